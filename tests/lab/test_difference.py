"""Two graders on the same attempts, by hand: flips, the order within groups, steps, and the examples told."""

from __future__ import annotations

from typing import Any

import pytest

from sharpen.lab.difference import Attempt, compare
from sharpen.types import Fault, Grade


def attempts(*groups: tuple[int, list[tuple[float | None, float | None]]], full: float = 1.0) -> list[Attempt]:
    """Groups as (step, [(before, after), ...])."""
    found = []
    for number, (step, scores) in enumerate(groups):
        for place, (before, after) in enumerate(scores):
            line = {"example": f"g{number}", "text": f"t{place}", "explanation": "then"}
            made = Grade(after, explanation="now", fault=None if after is not None else Fault("other_error"))
            found.append(Attempt(line, step, number, full, before, made))
    return found


def test_an_equal_grader_changes_nothing() -> None:
    found = compare(attempts((1, [(0, 0), (1, 1)]), (2, [(0.5, 0.5), (0.5, 0.5), (1, 1)])), 1.0)
    assert found["kendall"] == found["spearman"] == found["groups"]["kendall"] == pytest.approx(1.0)
    assert found["flips"] == {"right_to_wrong": 0, "wrong_to_right": 0, "right_both": 2, "wrong_both": 3}
    assert found["groups"]["changed"] == 0 and found["examples"] == []
    assert found["groups"]["pairs"] == {"same": 3, "reversed": 0, "tied": 0, "parted": 0}


def test_within_groups_only_the_order_counts() -> None:
    found = compare(
        attempts(
            (1, [(0.0, 10.0), (1.0, 20.0)]),  # the same order on another scale
            (1, [(0.0, 20.0), (1.0, 10.0)]),  # turned round
            (1, [(0.0, 10.0), (1.0, 10.0)]),  # tied now
            (1, [(1.0, 10.0), (0.0, 10.0)]),  # likewise
            (2, [(1.0, 10.0), (1.0, 20.0)]),  # told apart only now
            (2, [(0.0, 10.0), (0.0, 10.0)]),  # never told apart
        ),
        20.0,
    )
    groups = found["groups"]
    assert groups["pairs"] == {"same": 1, "reversed": 1, "tied": 2, "parted": 1}
    assert (groups["n"], groups["changed"]) == (6, 4)
    assert groups["teaches"] == {"before": 4, "after": 3}
    assert groups["kendall"] == 0.0  # of the two groups that both tell apart
    assert found["flips"] == {"right_to_wrong": 4, "wrong_to_right": 1, "right_both": 2, "wrong_both": 5}


def test_each_side_has_full_marks_of_its_own() -> None:
    both: list[tuple[float | None, float | None]] = [(3.0, 1.0), (5.0, 0.5)]
    assert compare(attempts((1, both), full=5.0), 1.0)["flips"]["right_to_wrong"] == 1
    assert compare(attempts((1, both), full=3.0), 0.5)["flips"]["right_both"] == 2


def test_means_go_by_step_and_what_failed_is_left_out_and_counted() -> None:
    found = compare(attempts((1, [(0, 1), (1, 1), (None, 1)]), (4, [(1, 0), (1, None), (0, 0)])), 1.0)
    assert (found["n"], found["compared"]) == (6, 4)
    assert found["faults"] == {"before": 1, "after": {"completion": {}, "grader": {"other_error": 1}}}
    assert found["by_step"] == [
        {"step": 1, "n": 2, "before": 0.5, "after": 1.0},
        {"step": 4, "n": 2, "before": 0.5, "after": 0.0},
    ]
    assert found["mean"] == {"before": 0.5, "after": 0.5}


def test_flips_are_told_first_then_the_largest_changes_of_rank_each_text_once() -> None:
    scores: list[tuple[float | None, float | None]] = [(0.1, 0.1), (0.2, 0.9), (0.3, 0.3), (0.4, 0.4), (1, 1), (1, 0)]
    found = compare(attempts((1, scores), (2, scores)), 1.0)["examples"]
    assert [one["text"] for one in found[:4]] == ["t5", "t5", "t1", "t1"]
    assert found[0] == {
        "step": 1,
        "id": "g0",
        "text": "t5",
        "before": {"score": 1, "explanation": "then"},
        "after": {"score": 0, "explanation": "now"},
    }
    twice = attempts((1, [(0, 1), (1, 1)]))
    assert len(compare([*twice, *twice], 1.0)["examples"]) == 2


def test_without_a_common_score_there_is_nothing_to_say() -> None:
    found: dict[str, Any] = compare(attempts((1, [(0, None), (1, None)])), 1.0)
    assert found["compared"] == 0 and found["kendall"] is None and found["mean"]["after"] is None
    assert found["groups"]["n"] == 0 and found["by_step"] == [] and found["examples"] == []
