"""Metrics over classes against numbers worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sharpen.reports.classes import measure, section

# answer, text, correct: a 2 right, one taken for b; b 3 right, one taken for a; c 1 right, one for a, one for nothing
ROWS = [
    *[("a", "a", 1)] * 2,
    ("a", "b", 0),
    *[("b", "It is B.", 1)] * 3,
    ("b", "a!", 0),
    ("c", "c", 1),
    ("c", "a", 0),
    ("c", "who knows", 0),
]


def items(rows: list[tuple[Any, str, int]]) -> list[dict[str, Any]]:
    return [{"answer": answer, "text": text, "correct": correct} for answer, text, correct in rows]


def test_precision_recall_and_f1_by_hand() -> None:
    found = measure(items(ROWS))
    assert found is not None and found.labels == ("a", "b", "c")
    assert found.confusion.tolist() == [[2, 1, 0, 0], [1, 3, 0, 0], [1, 0, 1, 1]]
    assert found.precision == pytest.approx([2 / 4, 3 / 4, 1])
    assert found.recall == pytest.approx([2 / 3, 3 / 4, 1 / 3])
    assert found.f1 == pytest.approx([4 / 7, 6 / 8, 2 / 4])
    assert found.macro_f1 == pytest.approx((4 / 7 + 6 / 8 + 2 / 4) / 3)


def naive_macro(rows: list[tuple[str, str]]) -> float:
    """Macro-F1 from (reference, answer) pairs, class by class."""
    scores = []
    for label in "abc":
        right = sum(pair == (label, label) for pair in rows)
        wrong = sum((reference == label) != (answer == label) for reference, answer in rows)
        if right or wrong:
            scores.append(2 * right / (2 * right + wrong))
    return sum(scores) / len(scores)


def test_the_interval_is_that_of_drawing_items() -> None:
    pairs = [("a", "a"), ("a", "a"), ("a", "b"), *[("b", "b")] * 3, ("b", "a"), ("c", "c"), ("c", "a"), ("c", "-")] * 6
    generator = np.random.default_rng(3)
    drawn = [naive_macro([pairs[i] for i in generator.integers(0, 60, 60)]) for _ in range(3000)]
    found = measure(items(ROWS * 6))
    assert found is not None
    assert naive_macro(pairs) == pytest.approx(found.macro_f1)
    assert found.ci95 == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))), abs=0.012)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("Good", 1),
        ("It is very good indeed", 2),
        ("good? no: bad", 3),
        ("not-good", 3),
        ("goodness", 3),
        ("fine", 3),
        ("bad", 3),
        ("", 3),
    ],
)
def test_a_wrong_answer_counts_for_the_only_label_that_stands_in_it(text: str, column: int) -> None:
    """The reference is `bad`; said in an answer that is graded wrong, it is out of form and counts for nothing."""
    filler = [(label, label, 1) for label in ("bad", "good", "very good") for _ in range(3)]
    found = measure(items([*filler, ("bad", text, 0)]))
    assert found is not None and found.labels == ("bad", "good", "very good")
    assert found.confusion[0].tolist() == [3 + (column == 0), *(int(column == other) for other in (1, 2, 3))]


def test_numbers_are_labels_too_and_signs_and_decimals_count() -> None:
    rows = [(label, str(label), 1) for label in (1, -1, 2.5) for _ in range(3)]
    found = measure(items([*rows, (2.5, "-1", 0), (2.5, "1.", 0), (2.5, "1.7", 0)]))
    assert found is not None and found.labels == ("-1", "1", "2.5")
    assert found.confusion[2].tolist() == [1, 1, 3, 1]


@pytest.mark.parametrize(
    "rows",
    [
        [("a", "a", 1)] * 10,
        [(f"label {index}", "x", 0) for index in range(20)],
        [(f"label {index % 51}", "x", 0) for index in range(500)],
        [("a", "a", 1)] * 5 + [("b", "b", 1)] * 5 + [(None, "b", 1)],
        [],
    ],
)
def test_what_is_no_small_set_of_labels_has_no_classes(rows: list[tuple[Any, str, int]]) -> None:
    assert measure(items(rows)) is None
    assert section(items(rows), "x") == ""


def test_fifty_labels_are_still_classes_and_one_never_answered_has_no_precision() -> None:
    found = measure(items([(f"label-{index % 50}", "nothing", 0) for index in range(150)]))
    assert found is not None and len(found.labels) == 50
    assert np.isnan(found.precision).all() and found.macro_f1 == 0.0
