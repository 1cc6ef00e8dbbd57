"""The numbers and the words of a run's summary."""

from __future__ import annotations

from typing import Any

import pytest

from sharpen.stages.summary import score, versus
from sharpen.stages.verdict import headline


def items(
    correct: list[int],
    form: list[int] | None = None,
    found: list[int] | None = None,
    drawn: list[list[int]] | None = None,
) -> list[dict[str, Any]]:
    return [
        {
            "id": str(index),
            "correct": right,
            "format": form[index] if form else None,
            "found": found[index] if found else None,
            "samples": [{"correct": other} for other in (drawn[index] if drawn else [])],
        }
        for index, right in enumerate(correct)
    ]


def test_scores_by_hand() -> None:
    found = score(items([1, 0, 0, 0], form=[1, 1, 0, 0], drawn=[[1, 1], [1, 0], [0, 0], [0, 0]]))
    assert (found["score"], found["n"], found["format"]["score"], found["found"]) == (0.25, 4, 0.5, None)
    assert found["ci95"] == [0.0, 0.75]
    assert found["avg_at_k"]["k"] == 2 and found["avg_at_k"]["score"] == pytest.approx(3 / 8)
    assert found["pass_at_k"]["k"] == 2 and found["pass_at_k"]["score"] == pytest.approx(1 / 2)


def test_what_was_not_measured_is_null() -> None:
    found = score(items([1, 0]))
    assert (found["format"], found["avg_at_k"], found["pass_at_k"]) == (None, None, None)
    partly = items([1, 0], form=[1, 0])
    partly[1]["format"] = None
    assert score(partly)["format"] is None, "a share of some items only would mislead"


def test_the_difference_is_split_into_form_and_task() -> None:
    before = items([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], form=[1] * 4 + [0] * 6)
    after = items([1, 1, 1, 1, 1, 1, 0, 0, 0, 0], form=[1] * 8 + [0] * 2)
    found = versus(before, after)
    assert found["delta"] == pytest.approx(0.4)
    assert (found["format_gain"], found["task_gain"]) == pytest.approx((0.25, 0.15))
    # 4 won and none lost of 10: (5 - 1) / 12 - 1.96 * sqrt((6 / 12 - (4 / 12)**2) / 12); McNemar's exact p is 0.125
    assert found["ci95"][0] == pytest.approx(-0.0195, abs=1e-4) and 0.68 < found["ci95"][1] < 0.8
    unknown = versus(items([1, 0]), items([1, 1]))
    assert (unknown["format_gain"], unknown["task_gain"]) == (None, None)


def test_where_the_grader_finds_answers_in_any_form_the_task_gain_is_that_of_finding() -> None:
    """Found 4 of 10, 2 of those in form; then 4 found, all in form: the model knows no more than before."""
    before = items([1, 1] + [0] * 8, form=[1] * 5 + [0] * 5, found=[1] * 4 + [0] * 6)
    after = items([1] * 4 + [0] * 6, form=[1] * 10, found=[1] * 4 + [0] * 6)
    found = versus(before, after)
    assert (found["format_gain"], found["task_gain"]) == pytest.approx((0.2, 0.0))


def test_items_in_another_order_are_no_pairs() -> None:
    with pytest.raises(AssertionError):
        versus(items([1, 0]), items([1, 0])[::-1])


def summary_of(*counts: int, n: int = 500) -> dict[str, Any]:
    """A base and its stages, which get the first so many of `n` items right."""
    lines = [items([1] * count + [0] * (n - count)) for count in counts]
    stages = [
        {"name": name, "evals": {"held_out": {**score(after), "vs_previous": versus(before, after)}}}
        for name, before, after in zip(("sft", "rft"), lines, lines[1:], strict=False)
    ]
    return {"base": {"evals": {"held_out": score(lines[0])}}, "stages": stages}


def test_the_verdict_says_up_only_where_the_interval_is_above_zero() -> None:
    words = headline(summary_of(50, 150, 250))
    assert words.startswith(
        "On 500 held-out problems the base model gets 10.0 % right; SFT raises this to 30.0 % (+20.0"
    )
    assert "; RFT raises this to 50.0 % (+20.0 points [+" in words and words.endswith("]).")


def test_the_verdict_says_down_and_no_difference() -> None:
    assert "SFT lowers this to 10.0 % (-20.0 points [-" in headline(summary_of(150, 50))
    assert "SFT makes no measurable difference at 10.2 % (+0.2 points [-0.5, +0.9])" in headline(summary_of(50, 51))
    assert "SFT makes no measurable difference at 10.0 % (+0.0 points [-0.7, +0.7])" in headline(summary_of(50, 50))


def test_two_items_are_too_few_for_a_verdict() -> None:
    assert "SFT makes no measurable difference at 100.0 %" in headline(summary_of(0, 2, n=2))


def test_without_held_out_problems_nothing_is_claimed() -> None:
    assert headline({"base": {"evals": {}}, "stages": []}).startswith("No held-out problems were given")


def test_a_stage_that_was_not_evaluated_is_left_out() -> None:
    summary = summary_of(50, 150)
    summary["stages"].append({"name": "rft", "evals": {}})
    assert "RFT" not in headline(summary)
