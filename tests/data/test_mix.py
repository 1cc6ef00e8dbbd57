"""Rows drawn in proportion: exact at every position, every row of a source as often, and the same from anywhere."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.data.mix import Mix, Stream, shared_out
from sharpen.data.order import indices

KEY = (7, "sft", "order")
WEIGHTS = st.lists(st.floats(0.001, 1000) | st.integers(1, 9).map(float), min_size=1, max_size=8)


def bound(count: int) -> Fraction:
    """How far from its proportion any of so many numbers may be, as `shared_out` says."""
    return (1 + sum((Fraction(1, place) for place in range(1, count - 1)), Fraction())) / 2 if count > 1 else Fraction()


def test_numbers_worked_by_hand() -> None:
    assert [shared_out(count, [3, 1]) for count in range(6)] == [[0, 0], [1, 0], [2, 0], [2, 1], [3, 1], [4, 1]]
    assert shared_out(10, [1, 2, 7]) == [1, 2, 7]
    assert shared_out(1_000_000_000, [0.1, 0.2, 0.7]) == [100_000_000, 200_000_000, 700_000_000]
    tenth = Mix((Stream("data", 9),), (Stream("replay.data", 9),), 0.1)
    assert tenth.counts(0, 5) == {"data": 5, "replay.data": 0}, "0.1 is a tenth: nine tenths of 5 are 4.5 exactly"
    assert bound(2) == Fraction(1, 2) and bound(3) == 1 and bound(5) == Fraction(17, 12)


@given(WEIGHTS, st.integers(0, 100_000))
def test_every_prefix_is_in_proportion_and_each_position_one_source_s(weights: list[float], count: int) -> None:
    now, then = shared_out(count, weights), shared_out(count + 1, weights)
    whole = sum(Fraction(repr(weight)) for weight in weights)
    assert sum(now) == count
    assert all(
        abs(found - count * Fraction(repr(weight)) / whole) <= bound(len(weights))
        for found, weight in zip(now, weights, strict=True)
    )
    assert sorted(later - before for before, later in zip(now, then, strict=True)) == [*[0] * (len(weights) - 1), 1]


def mixes() -> st.SearchStrategy[Mix]:
    def streams(name: str) -> st.SearchStrategy[tuple[Stream, ...]]:
        sizes = st.lists(st.tuples(st.integers(1, 30), st.floats(0.05, 20)), min_size=1, max_size=4)
        return sizes.map(lambda found: tuple(Stream(f"{name}.{at}", *one) for at, one in enumerate(found)))

    alone = streams("data").map(Mix)
    beside = st.builds(Mix, streams("data"), streams("replay.data"), st.floats(0.01, 0.99))
    return alone | beside


def source_of(mix: Mix, row: int) -> str:
    for stream in mix.streams:
        if row < stream.rows:
            return stream.name
        row -= stream.rows
    raise AssertionError("no such row")


@given(mixes(), st.integers(0, 200), st.integers(0, 60), st.integers(0, 60))
def test_rows_follow_from_their_position_alone(mix: Mix, start: int, one: int, two: int) -> None:
    whole = mix.rows(start, start + one + two, KEY)
    assert whole == mix.rows(start, start + one, KEY) + mix.rows(start + one, start + one + two, KEY)
    if len(mix.streams) > 1:
        found = Counter(source_of(mix, row) for row in whole)
        assert mix.counts(start, start + one + two) == {stream.name: found[stream.name] for stream in mix.streams}


@given(mixes(), st.integers(1, 300))
@settings(max_examples=60)
def test_each_source_s_rows_come_equally_often_and_sources_in_their_shares(mix: Mix, count: int) -> None:
    rows = mix.rows(0, count, KEY)
    times, of_source = Counter(rows), Counter(source_of(mix, row) for row in rows)
    first = 0
    for stream in mix.streams:
        seen = [times[row] for row in range(first, first + stream.rows)]
        assert max(seen) - min(seen) <= 1
        first += stream.rows
    for streams, share in ((mix.own, 1 - mix.share), (mix.replay, mix.share)):
        drawn = sum(of_source[stream.name] for stream in streams)
        assert abs(drawn - count * share) <= 0.5 + 1e-9
        whole = sum(stream.weight for stream in streams)
        for stream in streams:
            assert abs(of_source[stream.name] - drawn * stream.weight / whole) <= bound(len(streams)) + 1e-9


@given(mixes(), st.sampled_from([0.5, 1.0, 1.7, 3.0]))
def test_epochs_count_the_stage_s_own_rows(mix: Mix, epochs: float) -> None:
    own = max(1, round(epochs * mix.own_rows))
    length = mix.length(epochs)
    counts = mix.counts(0, length)
    assert sum(counts[stream.name] for stream in mix.own) == own if counts else length == own
    assert abs(length - own / (1 - mix.share)) <= 0.5 + 1e-6


@given(st.integers(1, 40), st.integers(0, 100), st.integers(0, 50))
def test_a_single_stream_is_the_stream_of_shuffled_epochs(rows: int, start: int, count: int) -> None:
    mix = Mix((Stream("data", rows),))
    assert mix.rows(start, start + count, KEY) == indices(rows, start, start + count, KEY)
    assert mix.counts(start, start + count) == {}


def test_replayed_rows_change_neither_which_own_rows_come_nor_their_order() -> None:
    alone = Mix((Stream("data", 10),))
    beside = Mix(alone.own, (Stream("replay.data", 4),), 0.25)
    rows = beside.rows(0, 40, KEY)
    assert [row for row in rows if row < 10] == alone.rows(0, 30, KEY)
    assert all(sum(row >= 10 for row in rows[step : step + 4]) == 1 for step in range(0, 40, 4))


@pytest.mark.parametrize("changed", [(8, "sft", "order"), (7, "other", "order")])
def test_seed_and_stage_decide_the_order_and_sources_do_not_share_one(changed: tuple[int, str, str]) -> None:
    mix = Mix((Stream("data.0", 30, 1), Stream("data.1", 30, 1)))
    rows = mix.rows(0, 60, KEY)
    assert rows != mix.rows(0, 60, changed) and sorted(rows) == sorted(mix.rows(0, 60, changed))
    assert [row for row in rows if row < 30] != [row - 30 for row in rows if row >= 30]


def test_another_weight_draws_other_rows() -> None:
    one, other = (Mix((Stream("data.0", 9, 1), Stream("data.1", 9, weight))) for weight in (1, 2))
    assert one.counts(0, 12) == {"data.0": 6, "data.1": 6}
    assert other.counts(0, 12) == {"data.0": 4, "data.1": 8}
