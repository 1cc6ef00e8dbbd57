"""Draw tokens from logits with counted random numbers."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 256
"""The inverse distribution function is searched in two levels: blocks of so many tokens, then inside."""


def draw(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (R,) and their log-probabilities (R,) from logits (R, V) and uniform numbers (R,).

    Inverse transform sampling: the token at which the cumulative probability first exceeds the
    number. Temperature 0 takes the most likely token.
    """
    logits = logits.float()
    if temperature not in (0, 1):
        logits = logits / temperature
    peak = logits.amax(-1, keepdim=True)
    weights = (logits - peak).exp_()  # (R, V), proportional to the probabilities
    padding = -weights.shape[1] % BLOCK
    blocked = (torch.nn.functional.pad(weights, (0, padding)) if padding else weights).view(len(weights), -1, BLOCK)
    cumulative = blocked.sum(-1).to(torch.float64).cumsum(-1)  # (R, blocks)
    tokens = logits.argmax(-1) if temperature == 0 else _invert(blocked, cumulative, uniform)
    chosen = logits.gather(-1, tokens[:, None]) - peak
    logprobs = chosen[:, 0] - cumulative[:, -1].log().float()
    return tokens, logprobs


def _invert(blocked: Tensor, cumulative: Tensor, uniform: Tensor) -> Tensor:
    """Where the cumulative weight first exceeds `uniform` times the whole: first the block, then inside it."""
    row = torch.arange(len(blocked), device=blocked.device)
    aim = uniform.to(torch.float64) * cumulative[:, -1]
    block = torch.searchsorted(cumulative, aim[:, None], right=True)[:, 0].clamp(max=cumulative.shape[1] - 1)
    before = torch.where(block > 0, cumulative[row, block - 1], 0.0)
    inside = blocked[row, block]  # (R, BLOCK)
    steps = inside.to(torch.float64).cumsum(-1)
    index = torch.searchsorted(steps, (aim - before)[:, None], right=True)[:, 0]
    # Rounding may carry the aim past the block's end: then its last token that has any weight.
    last = BLOCK - 1 - (inside.flip(-1) > 0).float().argmax(-1)
    return block * BLOCK + torch.minimum(index, last)
