"""The order of rows: shuffled epochs, computed from a position alone."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.data.order import Key, generator, indices

KEY = (7, "sft", "order")


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(0, 100), st.integers(0, 60), st.integers(0, 60))
def test_the_stream_can_be_cut_and_resumed_anywhere(rows: int, start: int, one: int, two: int) -> None:
    whole = indices(rows, start, start + one + two, KEY)
    assert whole == indices(rows, start, start + one, KEY) + indices(rows, start + one, start + one + two, KEY)
    assert len(whole) == one + two


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(0, 5))
def test_every_epoch_is_a_permutation(rows: int, epoch: int) -> None:
    assert sorted(indices(rows, epoch * rows, (epoch + 1) * rows, KEY)) == list(range(rows))


def test_epochs_and_keys_differ() -> None:
    epochs = [tuple(indices(20, epoch * 20, epoch * 20 + 20, KEY)) for epoch in range(5)]
    assert len(set(epochs)) == 5 and tuple(range(20)) not in epochs
    assert indices(20, 0, 20, (8, "sft", "order")) != list(epochs[0])


def test_numbers_are_counted_on_the_key_not_on_the_order_of_asking() -> None:
    first = generator((7, "rft", 3)).random(4).tolist()
    generator((1,)).random(100)
    assert generator((7, "rft", 3)).random(9)[:4].tolist() == first
    keys: list[Key] = [(7, "rft", 3), (7, "rft", "3"), (7, "rft3"), (73, "rft"), ()]
    assert len({generator(key).random() for key in keys}) == len(keys)


def test_the_numbers_are_pinned() -> None:
    """A change would make every earlier run impossible to repeat."""
    assert indices(6, 0, 6, KEY) == [0, 1, 2, 5, 3, 4]
    assert generator((7, "rft", 3)).random(2).tolist() == [0.024291867574176118, 0.9663290454864754]
