"""Rows set aside come back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharpen.data.corpus import Corpus
from sharpen.types import Labelled

ROWS = [
    Labelled("a", ({"role": "user", "content": "é"}, {"role": "assistant", "content": "\u2028"}), (1,), place="f:1"),
    Labelled("b", (), (), text="once", place="f:2"),
    Labelled("c", ({"role": "user", "content": "x"},), (), tools=({"type": "function"},), desirable=False, place="f:9"),
]


def test_rows_come_back_in_any_order_with_their_places(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    for row in ROWS:
        corpus.append(row)
    assert len(corpus) == 3
    for index in (2, 0, 1, 0):
        assert corpus[index] == ROWS[index] and corpus[index].place == ROWS[index].place
    corpus.append(ROWS[0])
    assert corpus[3] == ROWS[0]
    with pytest.raises(IndexError):
        corpus[4]


def test_a_size_is_at_least_that_of_the_text_and_no_file_is_left_to_see(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.append(Labelled("a", (), (), text="é" * 5000))
    assert 10_000 <= corpus.size(0) < 11_000
    assert not list(tmp_path.iterdir())
