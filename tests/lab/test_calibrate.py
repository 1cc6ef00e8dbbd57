"""A grader held against labels: thresholds tried by hand, intervals against another bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics  # type: ignore[import-untyped]

from sharpen.errors import ConfigError, DataError
from sharpen.lab.calibrate import best_threshold, calibrate
from sharpen.lab.trial import Marks, Text, Trial
from sharpen.types import Example, Grade, Sample
from tests.lab.inprocess import graders

MARKS = Marks(graders({"type": "math"}))


def trial(score: float | None, label: Any, row: int, *, of_row: bool = False) -> Trial:
    item, fields = ({"human": label}, {}) if of_row else ({}, {"human": label})
    return Trial(Text(Example(f"r{row}", (), item), Sample("t"), row, fields=fields), Grade(score, explanation="said"))


def trials(scores: Sequence[float], labels: Sequence[Any]) -> list[Trial]:
    return [trial(score, label, row) for row, (score, label) in enumerate(zip(scores, labels, strict=True))]


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), st.booleans()), min_size=2, max_size=30))
def test_the_best_threshold_has_the_best_balanced_accuracy(pairs: list[tuple[float, bool]]) -> None:
    scores, good = zip(*pairs, strict=True)
    if len(set(good)) < 2:
        return

    def balanced(threshold: float) -> float:
        return float(metrics.balanced_accuracy_score(good, [score >= threshold for score in scores]))

    best = max(balanced(threshold) for threshold in (0.0, 0.1, 0.3, 0.7, 0.95))
    assert balanced(best_threshold(scores, good)) == pytest.approx(best)


@pytest.mark.parametrize(
    ("scores", "good", "threshold"),
    [
        ([0.0, 0.2, 0.8, 1.0], [False, False, True, True], 0.5),
        ([0.1, 0.2, 0.3, 0.9], [False, True, False, True], 0.6),  # as good as 0.15, but the gap is wider
        ([0.5, 0.5], [True, False], 0.5),
        ([0.0, 1.0], [True, False], 0.0),  # upside down: nothing is better than to pass all
    ],
)
def test_of_equal_thresholds_the_one_in_the_widest_gap_is_taken(
    scores: list[float], good: list[bool], threshold: float
) -> None:
    assert best_threshold(scores, good) == pytest.approx(threshold)


def test_a_table_worked_by_hand() -> None:
    # full marks: 6 good passed, 2 bad passed, 3 good and 9 bad held back
    scores = [1.0] * 8 + [0.0] * 12
    labels = [True] * 6 + [False] * 2 + [True] * 3 + [False] * 9
    found = calibrate([*trials(scores, labels), trial(None, True, 20), trial(1.0, None, 21)], "human", MARKS)
    assert (found["n"], found["rows"], found["left_out"], found["good"]) == (20, 20, 2, 9)
    side = found["at_full_marks"]
    assert side["confusion"] == {"right_good": 6, "right_bad": 2, "wrong_good": 3, "wrong_bad": 9}
    assert side["agreement"]["value"] == pytest.approx(0.75)
    assert side["kappa"]["value"] == pytest.approx((0.75 - (8 * 9 + 12 * 11) / 400) / (1 - (8 * 9 + 12 * 11) / 400))
    assert side["balanced_accuracy"]["value"] == pytest.approx((6 / 9 + 9 / 11) / 2)
    assert found["best"]["threshold"] == 0.5 and found["best"]["confusion"] == side["confusion"]
    assert [(one["id"], one["label"]) for one in found["disagreements"]] == [
        ("r6", 0.0),
        ("r7", 0.0),
        ("r8", 1.0),
        ("r9", 1.0),
        ("r10", 1.0),
    ]


def test_intervals_are_those_of_a_bootstrap_over_rows() -> None:
    generator = np.random.default_rng(1)
    good = generator.random(120) < 0.4
    scores = np.round(generator.normal(good.astype(float), 1.0))  # with many ties
    found = calibrate(trials(scores.tolist(), good.tolist()), "human", MARKS)
    passed = scores >= 1
    measures: dict[str, Callable[[Any], float]] = {
        "auc": lambda rows: float(metrics.roc_auc_score(good[rows], scores[rows])),
        "kappa": lambda rows: float(metrics.cohen_kappa_score(good[rows], passed[rows])),
        "agreement": lambda rows: float(np.mean(good[rows] == passed[rows])),
    }
    drawn = [generator.integers(0, 120, 120) for _ in range(1500)]
    for name, value in {"auc": found["auc"], **found["at_full_marks"]}.items():
        if name in measures:
            expected = np.percentile([measures[name](rows) for rows in drawn], (2.5, 97.5))
            assert value["ci95"] == pytest.approx(expected, abs=0.025), name
            assert value["value"] == pytest.approx(measures[name](np.arange(120))), name
    low, high = found["best"]["ci95"]
    assert low <= found["best"]["threshold"] <= high


def test_texts_of_one_row_are_drawn_together_so_copies_add_no_certainty() -> None:
    scores, labels = [0.0, 1.0, 1.0, 0.0, 1.0, 0.5], [False, True, False, False, True, True]
    once = calibrate(trials(scores, labels), "human", MARKS)
    pairs = enumerate(zip(scores, labels, strict=True))
    copies = [trial(score, label, row) for row, (score, label) in pairs for _ in range(9)]
    many = calibrate(copies, "human", MARKS)
    assert (many["n"], many["rows"]) == (54, 6)
    for one, other in (
        (once["auc"], many["auc"]),
        (once["best"], many["best"]),
        (once["best"]["kappa"], many["best"]["kappa"]),
        (once["at_full_marks"]["agreement"], many["at_full_marks"]["agreement"]),
    ):
        assert one["ci95"] == pytest.approx(other["ci95"])


def test_labels_stand_in_the_samples_or_else_in_the_rows_as_words_or_numbers() -> None:
    own = [
        trial(1.0, "Yes", 0),
        trial(0.0, "false", 1),
        trial(1.0, 1, 2, of_row=True),
        trial(0.0, False, 3, of_row=True),
    ]
    found = calibrate(own, "human", MARKS)
    assert (found["n"], found["good"], found["at_full_marks"]["agreement"]["value"]) == (4, 2, 1.0)
    assert found["auc"] == {"value": 1.0, "ci95": [1.0, 1.0]}
    both = Trial(Text(Example("e", (), {"human": 0}), Sample("t"), 0, fields={"human": 1}), Grade(1.0))
    assert calibrate([both], "human", MARKS)["good"] == 1


def test_numbers_need_to_be_told_which_are_good() -> None:
    rated = trials([0.1, 0.4, 0.7, 1.0], [1, 3, 4, 5])
    with pytest.raises(ConfigError, match=r"--labels: .*got '1 to 5'.*--passing"):
        calibrate(rated, "human", MARKS)
    assert calibrate(rated, "human", MARKS, 4)["good"] == 2
    assert calibrate(rated, "human", MARKS, 3)["good"] == 3
    assert calibrate(rated, "human", MARKS, 4)["spearman"] == pytest.approx(1.0)


def test_what_is_no_label_is_told_with_its_row() -> None:
    with pytest.raises(DataError, match=r"the label of row r0 is neither a number nor true or false \(got 'maybe'\)"):
        calibrate(trials([1.0], ["maybe"]), "human", MARKS)
    with pytest.raises(DataError, match="no graded text has a label"):
        calibrate(trials([1.0], [True]), "other", MARKS)


def test_where_all_are_good_nothing_is_said_of_telling_apart() -> None:
    found = calibrate(trials([1.0, 0.0], [True, True]), "human", MARKS)
    assert found["auc"] == {"value": None, "ci95": None}
    assert found["best"] is None
    assert found["at_full_marks"]["balanced_accuracy"] == {"value": None, "ci95": None}
    assert found["at_full_marks"]["agreement"]["value"] == 0.5
