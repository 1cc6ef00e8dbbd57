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
    if temperature == 0:
        tokens = logits.argmax(-1)
    else:
        logits = logits / temperature
        tokens = _invert(logits.softmax(-1), uniform)
    logprobs = logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
    return tokens, logprobs


def _invert(probabilities: Tensor, uniform: Tensor) -> Tensor:
    rows, vocabulary = probabilities.shape
    padded = torch.nn.functional.pad(probabilities, (0, -vocabulary % BLOCK)).view(rows, -1, BLOCK)
    blocks = padded.sum(-1, dtype=torch.float64).cumsum(-1)  # (R, blocks)
    aim = uniform.to(torch.float64) * blocks[:, -1]
    block = torch.searchsorted(blocks, aim[:, None], right=True)[:, 0].clamp(max=blocks.shape[1] - 1)
    row = torch.arange(rows, device=probabilities.device)
    before = torch.where(block > 0, blocks[row, block - 1], 0.0)
    inside = padded[row, block]  # (R, BLOCK)
    steps = inside.to(torch.float64).cumsum(-1)
    index = torch.searchsorted(steps, (aim - before)[:, None], right=True)[:, 0]
    # Rounding may carry the aim past the block's end: then its last token that has any probability.
    last = BLOCK - 1 - (inside.flip(-1) > 0).float().argmax(-1)
    return block * BLOCK + torch.minimum(index, last)
