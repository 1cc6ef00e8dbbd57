"""Inverse transform sampling: right frequencies, right edges, right log-probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.rollout.draw import BLOCK, cut, draw

LAST = 1 - 2**-53
"""The largest number a generator gives."""


def drawn(logits: torch.Tensor, uniforms: list[float], temperature: float = 1.0) -> list[int]:
    """Tokens of one distribution (V,) at many uniform numbers."""
    rows = logits.expand(len(uniforms), -1)
    tokens, _ = draw(rows, temperature, torch.tensor(uniforms, dtype=torch.float64))
    return tokens.tolist()


@pytest.mark.parametrize("vocabulary", [5, BLOCK - 1, BLOCK, BLOCK + 1, 700])
def test_tokens_come_as_often_as_they_should(vocabulary: int) -> None:
    """Chi-square over 20,000 draws, within 4.5 standard deviations of its mean."""
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary)).mul(0.7)
    uniforms = np.random.default_rng(vocabulary).random(20_000)
    counts = np.bincount(drawn(logits, uniforms.tolist(), 0.8), minlength=vocabulary)
    expected = 20_000 * (logits.double() / 0.8).softmax(-1).numpy()
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    freedom = vocabulary - 1
    assert abs(chi_square - freedom) < 4.5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("vocabulary", [3, BLOCK, 700])
def test_the_token_is_where_the_cumulative_probability_first_exceeds_the_number(vocabulary: int) -> None:
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(1))
    bounds = logits.softmax(-1).double().cumsum(0).numpy()
    for token in {0, 1, vocabulary // 2, vocabulary - 2}:  # known to float32 rounding
        inside = float(bounds[token] / bounds[-1])
        assert drawn(logits, [inside - 1e-6, inside + 1e-6]) == [token, token + 1]


def test_the_smallest_and_largest_numbers_give_the_first_and_last_possible_token() -> None:
    for vocabulary in (4, BLOCK, 2 * BLOCK, 2 * BLOCK + 9, 3 * BLOCK):
        for seed in range(20):
            logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed))
            logits[[0, -2, -1]] = -torch.inf
            tokens = drawn(logits, [0.0, LAST])
            assert tokens[0] == 1 and tokens[1] == vocabulary - 3


def test_no_number_gives_a_token_beyond_the_vocabulary_when_the_last_blocks_are_impossible() -> None:
    for seed in range(50):
        logits = torch.randn(3 * BLOCK + 7, generator=torch.Generator().manual_seed(seed))
        logits[BLOCK + 11 :] = -torch.inf
        assert drawn(logits, [LAST]) == [BLOCK + 10]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_impossible_tokens_are_never_drawn(data: st.DataObject) -> None:
    vocabulary = data.draw(st.integers(1, 3 * BLOCK))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    logits = 20 * torch.randn(vocabulary, generator=generator)
    logits[torch.rand(vocabulary, generator=generator) < data.draw(st.sampled_from([0.1, 0.9, 0.999]))] = -torch.inf
    logits[data.draw(st.integers(0, vocabulary - 1))] = 3.0
    uniforms = data.draw(st.lists(st.floats(0, LAST), min_size=1, max_size=30))
    tokens = drawn(logits, [0.0, *uniforms, LAST])
    possible = logits.softmax(-1) > 0
    assert all(possible[token] for token in tokens)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3 * BLOCK), st.lists(st.floats(0, LAST), min_size=2, max_size=40))
def test_larger_numbers_give_later_tokens(vocabulary: int, uniforms: list[float]) -> None:
    logits = 3 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    tokens = drawn(logits, sorted(uniforms))
    assert tokens == sorted(tokens)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_logprobs_are_those_of_the_distribution_drawn_from(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(200, 300, generator=generator)
    tokens, logprobs = draw(logits, temperature, torch.rand(200, generator=generator, dtype=torch.float64))
    expected = (logits.double() / temperature).log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs.double(), expected, atol=1e-5, rtol=0)


def test_temperature_zero_takes_the_likeliest_token_whatever_the_number() -> None:
    logits = 4 * torch.randn(50, 300, generator=torch.Generator().manual_seed(0))
    tokens, logprobs = draw(logits, 0.0, torch.linspace(0, LAST, 50, dtype=torch.float64))
    assert torch.equal(tokens, logits.argmax(-1))
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).amax(-1))


def test_rows_do_not_touch_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 300, generator=generator)
    uniform = torch.rand(40, generator=generator, dtype=torch.float64)
    together, _ = draw(logits, 1.0, uniform)
    alone = [int(draw(logits[row : row + 1], 1.0, uniform[row : row + 1])[0]) for row in range(40)]
    assert together.tolist() == alone


CUTS: list[tuple[int | None, float, float]] = [
    (5, 1.0, 0.0),
    (None, 0.7, 0.0),
    (None, 1.0, 0.2),
    (40, 0.9, 0.0),
    (4, 0.5, 0.1),
    (300, 0.95, 0.02),
    (1000, 0.999, 1e-6),
]


@pytest.mark.parametrize("settings_", CUTS)
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_what_is_cut_off_is_what_transformers_cuts_off(
    settings_: tuple[int | None, float, float], scale: float
) -> None:
    from transformers.generation.logits_process import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    top_k, top_p, min_p = settings_
    logits = scale * torch.randn(50, 300, generator=torch.Generator().manual_seed(0))
    expected = logits.clone()
    ids: Any = torch.zeros(50, 1, dtype=torch.long)
    if top_k is not None:
        expected = TopKLogitsWarper(top_k)(ids, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(ids, expected)
    if min_p > 0:
        expected = MinPLogitsWarper(min_p)(ids, expected)
    found = cut(logits, *settings_)
    assert torch.equal(found.logits, expected)
    assert [sorted(ids) for ids in found.left] == [row.isfinite().nonzero()[:, 0].tolist() for row in expected]


def test_cuts_by_hand() -> None:
    """Probabilities 0.1, 0.5, 0.15, 0.25."""
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()

    def left(top_k: int | None = None, top_p: float = 1.0, min_p: float = 0.0) -> list[int]:
        return list(cut(logits, top_k, top_p, min_p).left[0])

    assert left() == [1, 3, 2, 0], "the likeliest first"
    assert left(top_k=2) == [1, 3]
    assert left(top_p=0.49) == [1] and left(top_p=0.51) == [1, 3] and left(top_p=0.8) == [1, 3, 2]
    assert left(top_p=1e-9) == [1], "one is always left"
    assert left(top_k=2, top_p=0.6) == [1], "of what top-k left, the first has two thirds"
    assert left(min_p=0.4) == [1, 3] and left(min_p=0.25) == [1, 3, 2]
    assert left(top_k=2, min_p=0.25) == [1, 3]


def test_of_equal_tokens_the_first_are_kept() -> None:
    assert list(cut(torch.zeros(1, 6), 2, 1.0, 0.0).left[0]) == [0, 1]
    assert list(cut(torch.zeros(1, 6), None, 0.4, 0.0).left[0]) == [0, 1, 2]


def test_draws_after_a_cut_come_as_often_as_the_renormalised_probabilities_say() -> None:
    logits = torch.randn(200, generator=torch.Generator().manual_seed(5))
    rest = cut(logits[None], 20, 0.8, 0.05)
    left = sorted(rest.left[0])
    uniforms = np.random.default_rng(1).random(20_000)
    tokens, logprobs = draw(rest.logits.expand(20_000, -1), 1.0, torch.from_numpy(uniforms))
    chances = logits[left].double().softmax(-1)
    assert set(tokens.tolist()) == set(left)
    expected = 20_000 * chances.numpy()
    counts = np.bincount(tokens.numpy(), minlength=200)[left]
    assert float(((counts - expected) ** 2 / expected).sum()) < len(left) - 1 + 4.5 * (2 * (len(left) - 1)) ** 0.5
    found = dict(zip(tokens.tolist(), logprobs.tolist(), strict=True))
    assert [found[token] for token in left] == pytest.approx(chances.log().tolist(), abs=1e-5)
