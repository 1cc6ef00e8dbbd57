"""Attention sinks, against a softmax written out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sharpen.models.attention import Cache, Packed, Prefill, Span

HEADS, KEY_HEADS, SIZE, SCALE = 4, 2, 8, 0.3
WINDOWS = pytest.mark.parametrize("window", [None, 3])


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensors(tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and sinks, which want gradients."""
    shapes = ((1, HEADS, tokens, SIZE), (1, KEY_HEADS, tokens, SIZE), (1, KEY_HEADS, tokens, SIZE), (HEADS,))
    query, key, value, sinks = (numbers(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes))
    return query, key, value, sinks


def written_out(
    query: Tensor, key: Tensor, value: Tensor, sinks: Tensor, sees: list[list[int]], window: int | None
) -> Tensor:
    """Each head and token by itself; `sees` lists the tokens before and at each, in order."""
    rows = []
    for head in range(HEADS):
        own = head // (HEADS // KEY_HEADS)
        for token, seen in enumerate(sees):
            near = seen[-window:] if window else seen
            scores = torch.stack([SCALE * query[0, head, token] @ key[0, own, other] for other in near])
            weights = scores.exp() / (scores.exp().sum() + sinks[head].exp())
            rows.append(weights @ value[0, own, near])
    return torch.stack(rows).view(1, HEADS, len(sees), SIZE)


@WINDOWS
def test_packed_spans_have_the_values_and_gradients_of_a_softmax_with_a_sink(window: int | None) -> None:
    """Two spans, and two that share a prefix of five tokens."""
    spans = [Span(0, 3), Span(3, 5), Span(8, 4, 3, 5), Span(12, 2, 3, 5)]
    sees = [list(range(end + 1)) for end in range(3)] + [list(range(3, 4 + end)) for end in range(5)]
    for start, length in ((8, 4), (12, 2)):
        sees += [[*range(3, 8), *range(start, start + place + 1)] for place in range(length)]
    query, key, value, sinks = given = tensors(14)
    slope = numbers(1, HEADS, 14, SIZE, seed=9)
    expected = written_out(query, key, value, sinks, sees, window)
    gradients = torch.autograd.grad((expected * slope).sum(), given)
    found = Packed(spans).attend(0, query, key, value, SCALE, window, sinks)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(torch.autograd.grad((found * slope).sum(), given), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert gradients[3].abs().max() > 1


@WINDOWS
def test_a_prefill_and_cached_steps_have_the_values_of_a_softmax_with_a_sink(window: int | None) -> None:
    """Rows of prompts of four and two tokens; each goes on for three."""
    lengths, made = (4, 2), 3
    rows = [tensors(length + made) for length in lengths]
    sinks = rows[0][3]
    expected = [
        written_out(*row[:3], sinks, [list(range(end + 1)) for end in range(row[0].shape[2])], window) for row in rows
    ]
    cache = Cache(1, torch.tensor([0, 2]), 4, 4 + made)
    layout = Prefill(Packed([Span(0, 4), Span(4, 2)]), cache, [(0, 1), (1, 2)])

    def check(found: Tensor, first: Sequence[int], count: Sequence[int], dim: int) -> None:
        parts = [whole[:, :, start : start + size] for whole, start, size in zip(expected, first, count, strict=True)]
        torch.testing.assert_close(found, torch.cat(parts, dim), atol=1e-5, rtol=1e-5)

    def given(part: int, first: Sequence[int], count: Sequence[int], dim: int) -> Tensor:
        cuts = [row[part][:, :, start : start + size] for row, start, size in zip(rows, first, count, strict=True)]
        return torch.cat(cuts, dim)

    query, key, value = (given(part, (0, 0), lengths, 2) for part in range(3))
    check(layout.attend(0, query, key, value, SCALE, window, sinks), (0, 0), lengths, 2)
    for step in range(made):
        places = [length + step for length in lengths]
        query, key, value = (given(part, places, (1, 1), 0) for part in range(3))
        check(cache.attend(0, query, key, value, SCALE, window, sinks), places, (1, 1), 0)
        cache.advance()
