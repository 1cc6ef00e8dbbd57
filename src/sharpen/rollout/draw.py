"""Draw tokens from logits with counted random numbers."""

from __future__ import annotations

import math
from array import array
from typing import NamedTuple

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


class Cut(NamedTuple):
    """Logits (R, V) with −∞ for what was cut off, and the tokens left in each row, the likeliest first."""

    logits: Tensor
    left: list[array[int]]


def cut(logits: Tensor, top_k: int | None, top_p: float, min_p: float) -> Cut:
    """Cut unlikely tokens off, from logits at the temperature: top-k, then top-p, then min-p, as transformers does.

    `top_k` keeps so many of the likeliest; `top_p` the smallest set of the likeliest whose probability, renormalised
    after top-k, is at least that; `min_p` those at least that share as probable as the likeliest. Of equally
    probable tokens the first come first. What a grammar excluded before (−∞) is never left.
    """
    ordered, order = logits.float().sort(dim=-1, descending=True, stable=True)
    kept = ordered > -torch.inf
    if top_k is not None:
        kept[:, top_k:] = False
    if top_p < 1:
        probabilities = ordered.masked_fill(~kept, -torch.inf).double().softmax(-1)
        kept &= probabilities.cumsum(-1) - probabilities < top_p
    if min_p > 0:
        kept &= ordered >= ordered[:, :1] + math.log(min_p)
    left = [array("i", ids.tolist()) for ids in order[kept].split(kept.sum(-1).tolist())]
    return Cut(torch.full_like(ordered, -torch.inf).scatter_(-1, order, ordered.masked_fill(~kept, -torch.inf)), left)


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
