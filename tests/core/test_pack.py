"""Packing: index arithmetic checked exactly, on random rows, trees and duplicates."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from zlib import compress

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.data.pack import Batch, atoms, cost, pack, sequences
from sharpen.models.attention import Packed
from sharpen.train.backward import forward
from sharpen.train.engine import score
from sharpen.types import Sequence as Row
from sharpen.types import Support

TOKENS = 6


@st.composite
def some_rows(draw: st.DrawFn) -> list[Row]:
    """Atoms of one or several branches; few kinds of token and short branches make duplicates likely."""
    token = st.integers(0, TOKENS - 1)
    rows: list[Row] = []
    for atom in range(draw(st.integers(1, 4))):
        prefix = draw(st.lists(token, max_size=6))
        for branch in draw(st.lists(st.lists(token, min_size=1, max_size=5), min_size=1, max_size=4)):
            tokens = tuple(prefix + branch)
            trained = draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens)))
            numbers = tuple(float(place + 100 * len(rows)) for place in range(len(tokens)))
            rows.append(Row(tokens, (False, *trained[1:]), f"atom {atom}", len(prefix), numbers, numbers, numbers))
    return rows


def history(batch: Batch, place: int) -> list[int]:
    """The tokens that token `place` sees, its own included, as the spans say."""
    (span,) = (span for span in batch.spans if span.start <= place < span.start + span.length)
    before = range(span.prefix_start, span.prefix_start + span.prefix)
    seen = [*before, *range(span.start, place + 1)]
    assert batch.positions[seen].tolist() == list(range(len(seen)))
    return batch.tokens[seen].tolist()


def trained(rows: list[Row]) -> list[tuple[int, Row, int]]:
    """(sequence, row, index) of all trained tokens, in order."""
    return [(s, row, i) for s, row in enumerate(rows) for i, is_trained in enumerate(row.mask) if is_trained]


@settings(max_examples=150, deadline=None)
@given(some_rows(), st.integers(1, 60))
def test_every_prediction_is_of_its_own_sequences_next_token_after_its_own_past(rows: list[Row], budget: int) -> None:
    remaining = list(rows)
    for batch in pack(rows, budget):
        part, remaining = remaining[: len(batch.lengths)], remaining[len(batch.lengths) :]
        wanted = trained(part)
        assert [row.trained for row in part] == batch.lengths.tolist()
        assert batch.sequence.tolist() == [sequence for sequence, _, _ in wanted]
        assert batch.target.tolist() == [row.tokens[index] for _, row, index in wanted]
        assert batch.advantages.tolist() == [row.advantages[index] for _, row, index in wanted]
        assert batch.rollout_logprobs.tolist() == [row.rollout_logprobs[index] for _, row, index in wanted]
        assert batch.old_logprobs is not None
        assert batch.old_logprobs.tolist() == [row.old_logprobs[index] for _, row, index in wanted]
        for source, (_, row, index) in zip(batch.source.tolist(), wanted, strict=True):
            assert history(batch, source) == list(row.tokens[:index])
    assert not remaining


def held(atom: list[Row], budget: int) -> list[Row]:
    """The atom, or as many of its first rows as the budget holds; one at least."""
    return next(atom[:count] for count in range(len(atom), 0, -1) if count == 1 or cost(atom[:count]) <= budget)


@settings(max_examples=150, deadline=None)
@given(some_rows(), st.integers(1, 60))
def test_the_budget_is_kept_and_atoms_that_fit_stay_whole(rows: list[Row], budget: int) -> None:
    place = 0
    for batch in pack(rows, budget):
        part = rows[place : place + len(batch.lengths)]
        place += len(part)
        assert len(batch.tokens) <= budget or len(part) == 1
        if place < len(rows) and rows[place].atom == part[-1].atom:
            (parted,) = (atom for atom in atoms(rows) if atom[0].atom == part[-1].atom)
            assert cost(parted) > budget, "an atom that fits is parted"
            assert cost([*atoms(part)[-1], rows[place]]) > budget, "packed as full as can be"
        elif place < len(rows):
            assert sum(map(cost, atoms(part))) + cost(held(atoms(rows[place:])[0], budget)) > budget
    assert place == len(rows)


@settings(max_examples=60, deadline=None)
@given(some_rows())
def test_spans_cover_every_token_once_and_shared_prefixes_are_stored_once(rows: list[Row]) -> None:
    (batch,) = pack(rows, 10_000)
    covered = [place for span in batch.spans for place in range(span.start, span.start + span.length)]
    assert sorted(covered) == list(range(len(batch.tokens)))
    assert sorted(Packed(batch.spans).order.tolist()) == sorted(set(Packed(batch.spans).order.tolist()))
    expected = 0
    for atom in atoms(rows):
        branches = [row.tokens[row.shared :] for row in atom]
        alone = len(atom) == 1 or atom[0].shared == 0
        expected += sum(len(row.tokens) for row in atom) if alone else atom[0].shared + sum(map(len, set(branches)))
    assert len(batch.tokens) == expected


class Successor:
    """A model whose hidden state is the token itself, and whose head is sure that token + 1 comes next."""

    def __init__(self) -> None:
        self.lm_head = SimpleNamespace(weight=60 * torch.roll(torch.eye(TOKENS), 1, 0))

    def base_model(self, input_ids: torch.Tensor, position_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=torch.eye(TOKENS)[input_ids])


@settings(max_examples=60, deadline=None)
@given(some_rows(), st.integers(1, 60))
def test_the_models_word_for_each_target_is_asked_at_the_token_before_it(rows: list[Row], budget: int) -> None:
    scored = score(Successor(), rows, budget)
    assert len(scored) == len(rows)
    for row, result in zip(rows, scored, strict=True):
        assert result.tokens == row.tokens
        for index, is_trained in enumerate(row.mask):
            follows = row.tokens[index] == (row.tokens[index - 1] + 1) % TOKENS
            assert result.old_logprobs[index] == (-60.0 if is_trained and not follows else 0.0)


def test_rows_without_anything_trained_have_no_predictions() -> None:
    (batch,) = pack([Row((1, 2, 3), (False,) * 3, "a")], 100)
    predictions = forward(Successor(), batch, 1.0)
    assert predictions.logprobs.shape == (0,)
    assert score(Successor(), [Row((1, 2, 3), (False,) * 3, "a")], 100)[0].old_logprobs == (0.0, 0.0, 0.0)


def test_no_rows_make_no_batches() -> None:
    assert list(pack([], 100)) == []


def test_old_logprobs_are_there_only_when_every_row_has_them() -> None:
    with_old = Row((1, 2), (False, True), "a", old_logprobs=(0.0, -1.0))
    without = Row((1, 2), (False, True), "b")
    (both,), (one,) = pack([with_old, without], 100), pack([with_old], 100)
    assert both.old_logprobs is None and one.old_logprobs is not None


def segment(atom: str, attempt: int | None, trained: int, support: Support | None = None) -> Row:
    numbers = (0.0, *[-float(place + 1) for place in range(trained)])
    return Row(
        tuple(range(trained + 1)),
        (False, *[True] * trained),
        atom,
        ref_logprobs=numbers,
        attempt=attempt,
        support=support,
    )


def test_a_rollouts_segments_are_one_sequence_and_rows_without_attempt_one_each() -> None:
    rows = [
        segment("a", 0, 2),
        segment("a", 0, 3),
        segment("a", 1, 1),
        segment("b", 1, 1),
        segment("b", None, 2),
        segment("b", None, 1),
    ]
    assert [len(sequence) for sequence in sequences(rows)] == [2, 1, 1, 1, 1]
    (batch,) = pack(rows, 100)
    assert batch.lengths.tolist() == [5, 1, 1, 2, 1] and batch.rows == 6
    assert batch.sequence.tolist() == [0] * 5 + [1, 2, 3, 3, 4]
    assert batch.ref_logprobs is not None
    assert batch.ref_logprobs.tolist() == [-1, -2, -1, -2, -3, -1, -1, -1, -2, -1]


def test_supports_stand_one_after_the_other_in_the_order_of_the_predictions() -> None:
    one, two = Support((2, 1), array("i", [5, 1, 2])), Support((3,), array("i", [4, 1, 0]))
    (batch,) = pack([segment("a", 0, 2, one), segment("a", 1, 1, two)], 100)
    assert batch.support is not None
    assert batch.support.counts.tolist() == [2, 1, 3] and batch.support.ids.tolist() == [5, 1, 2, 4, 1, 0]
    restricted = batch.support.restrict(torch.arange(12.0).view(2, 6), 1)
    assert [(row > -1).nonzero()[:, 0].tolist() for row in restricted] == [[2], [0, 1, 4]]
    assert restricted[1, [0, 1, 4]].tolist() == [6, 7, 10]
    (without,) = pack([segment("a", 0, 2)], 100)
    assert without.support is None


def test_a_grammars_sets_are_unpacked_once_each_and_named_by_the_predictions() -> None:
    low, high = compress(bytes([0b00000110])), compress(bytes([0b00110000]))  # tokens 1 and 2; 4 and 5
    rows = [
        segment("a", 0, 2, Support((), array("i"), (low, high))),
        segment("a", 1, 1, Support((), array("i"), (high,))),
        segment("b", 0, 1, Support((), array("i"), (low,))),
    ]
    (batch,) = pack(rows, 100)
    assert batch.support is not None and batch.support.sets is not None and len(batch.support.sets) == 2
    restricted = batch.support.restrict(torch.arange(18.0).view(3, 6), 1)
    assert [(row > -1).nonzero()[:, 0].tolist() for row in restricted] == [[4, 5], [4, 5], [1, 2]]
    assert restricted[2, [1, 2]].tolist() == [13, 14]
