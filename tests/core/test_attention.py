"""Packed spans and decoding steps, with and without attention sinks, against a softmax written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sharpen.models.attention import Packed, Span
from sharpen.models.cache import Cache, Step

HEADS, KEY_HEADS, SIZE, SCALE = 4, 2, 8, 0.3
WINDOWS = pytest.mark.parametrize("window", [None, 3])
SINKING = pytest.mark.parametrize("sinking", [True, False])


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensors(tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value and sinks, which want gradients."""
    shapes = ((tokens, HEADS, SIZE), (tokens, KEY_HEADS, SIZE), (tokens, KEY_HEADS, SIZE), (HEADS,))
    query, key, value, sinks = (numbers(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes))
    return query, key, value, sinks


def written_out(
    query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None, sees: list[list[int]], window: int | None
) -> Tensor:
    """Each head and token by itself; `sees` lists the tokens before and at each, in order."""
    rows = []
    for head in range(HEADS):
        own = head // (HEADS // KEY_HEADS)
        for token, seen in enumerate(sees):
            near = seen[-window:] if window else seen
            scores = torch.stack([SCALE * query[token, head] @ key[other, own] for other in near])
            sink = 0 if sinks is None else sinks[head].exp()
            weights = scores.exp() / (scores.exp().sum() + sink)
            rows.append(weights @ value[near, own])
    return torch.stack(rows).view(HEADS, len(sees), SIZE).transpose(0, 1)


@WINDOWS
@SINKING
def test_packed_spans_have_the_values_and_gradients_of_a_softmax(window: int | None, sinking: bool) -> None:
    """Two spans, and two that share a prefix of five tokens."""
    spans = [Span(0, 3), Span(3, 5), Span(8, 4, 3, 5), Span(12, 2, 3, 5)]
    sees = [list(range(end + 1)) for end in range(3)] + [list(range(3, 4 + end)) for end in range(5)]
    for start, length in ((8, 4), (12, 2)):
        sees += [[*range(3, 8), *range(start, start + place + 1)] for place in range(length)]
    query, key, value, sinks = tensors(14)
    given = (query, key, value, *([sinks] if sinking else []))
    sink = sinks if sinking else None
    slope = numbers(14, HEADS, SIZE, seed=9)
    expected = written_out(query, key, value, sink, sees, window)
    gradients = torch.autograd.grad((expected * slope).sum(), given)
    found = Packed(spans).attend(0, query, key, value, SCALE, window, sink)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(torch.autograd.grad((found * slope).sum(), given), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert min(gradient.abs().max() for gradient in gradients) > 0.5


@WINDOWS
@SINKING
def test_steps_have_the_values_of_a_softmax_while_rows_begin_move_and_go_on(window: int | None, sinking: bool) -> None:
    """Prompts of four and two tokens begin and go on; a third begins beside them, and takes another's slot."""
    rows = [tensors(tokens) for tokens in (9, 9, 9)]
    sinks = rows[0][3] if sinking else None
    whole = [written_out(*row[:3], sinks, [list(range(end + 1)) for end in range(9)], window) for row in rows]
    cache = Cache(1, 3, 9)

    def check(step: Step, *expected: tuple[int, int]) -> None:
        """The step's tokens, as (row, token): prompts but their last, then each row's newest."""
        query, key, value = (torch.stack([rows[row][part][token] for row, token in expected]) for part in range(3))
        found = step.attend(0, query, key, value, SCALE, window, sinks)
        step.done()
        wanted = torch.stack([whole[row][token] for row, token in expected])
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)

    with torch.no_grad():
        check(Step(cache, 2, [(Span(0, 3), [0]), (Span(3, 1), [1])]), (0, 0), (0, 1), (0, 2), (1, 0), (0, 3), (1, 1))
        check(Step(cache, 2), (0, 4), (1, 2))
        check(Step(cache, 3, [(Span(0, 2), [2])]), (2, 0), (2, 1), (0, 5), (1, 3), (2, 2))
        cache.move(2, 0)
        check(Step(cache, 2), (2, 3), (1, 4))
        check(Step(cache, 3, [(Span(0, 1), [2])]), (0, 0), (2, 4), (1, 5), (0, 1))
