"""One step over rows that come and go, shared by training's sampler and by serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.models.attention import Span, layout
from sharpen.models.cache import Cache, Step
from sharpen.models.fused import hidden

Begun = list[tuple[tuple[int, ...], list[int]]]
"""Each distinct prompt that begins, with the slots that continue it."""


def forward(model: Any, cache: Cache, begun: Begun, newest: Sequence[int]) -> Tensor:
    """The hidden state (N, W) of each row's newest token: of a row that begins, its prompt's last."""
    tokens: list[int] = []
    positions: list[int] = []
    prompts: list[tuple[Span, list[int]]] = []
    for prompt, slots in begun:
        before = len(prompt) - 1
        if before:
            prompts.append((Span(len(tokens), before), slots))
            tokens += prompt[:-1]
            positions += range(before)
        else:
            cache.lengths[slots] = 0
    step = Step(cache, len(newest), prompts)
    places = torch.cat([torch.tensor(positions, dtype=torch.long), step.places])
    with layout(step):
        found = hidden(model, torch.tensor([*tokens, *newest]), places)
    step.done()
    return found[len(tokens) :]


def close(cache: Cache, rows: list[Any], free: Sequence[int]) -> None:
    """Fill slots that stay free with the last rows, so that those in use are the first."""
    for slot in sorted(free, reverse=True):
        last = len(rows) - 1
        if slot != last:
            cache.move(last, slot)
            rows[slot] = rows[last]
        rows.pop()
