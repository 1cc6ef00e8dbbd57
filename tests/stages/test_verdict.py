"""What a verdict says of a run's evals: each rule with a run that shows it and one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sharpen.runs import statistics
from tests.stages.made_up import answers, kinds, recipe, rft, shares, step, told

LINES = [step(number) for number in range(1, 5)]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 200)


def of(run: Path, *models: list[dict[str, Any]], **held_out: Any) -> dict[str, Any]:
    return told(run, recipe(rft(), **held_out), models, LINES)


def test_a_plain_gain_is_told_without_remarks_but_for_what_the_test_could_show(tmp_path: Path) -> None:
    found = of(tmp_path, *shares(60, 120))
    assert found["remarks"] == []
    assert found["verdict"] == found["headline"]
    assert found["headline"].startswith(
        "On 200 held-out problems the base model gets 30.0 % right; RFT raises this to 60"
    )
    test = found["detectable"]["held_out"]
    by_hand = 2.801585 * ((0.3 - 0.3**2) / 200) ** 0.5  # 60 of 200 problems differ, all one way
    assert test["difference"] == pytest.approx(by_hand, rel=1e-6)
    assert test["text"] == "A test of 200 problems can show differences of about 9.1 points or more."
    assert (test["n"], test["stage"], test["power"]) == (200, "rft", 0.8)


def test_where_no_model_gets_any_right_the_verdict_says_what_to_try(tmp_path: Path) -> None:
    found = of(tmp_path, *shares(0, 0))
    assert kinds(found) == ["nothing_right"]
    assert "none of the 200 problems right: begin with an SFT stage" in found["verdict"]


def test_where_answers_are_found_but_in_no_form_the_form_is_what_is_missing(tmp_path: Path) -> None:
    found = of(tmp_path, *(answers([0] * 20, found=[1] * 5 + [0] * 15) for _ in range(2)))
    assert "stands somewhere in 25.0 % of its answers: what is missing is the form" in found["verdict"]


@pytest.mark.parametrize(("right", "said"), [(199, True), (185, False)])
def test_a_base_model_that_is_right_already_has_little_to_gain(tmp_path: Path, right: int, said: bool) -> None:
    assert ("nothing_to_gain" in kinds(of(tmp_path, *shares(right, 200)))) is said


@pytest.mark.parametrize(("after", "said"), [(60, True), (118, False)])
def test_a_stage_that_did_harm_is_said_to_have(tmp_path: Path, after: int, said: bool) -> None:
    base = answers([1] * 120 + [0] * 80)
    worse = answers([1] * (after - 10) + [0] * (130 - after) + [0] * 70 + [1] * 10)
    found = of(tmp_path, base, worse)
    assert ("worse" in kinds(found)) is said
    assert ("RFT has done harm: keep the base model" in found["verdict"]) is said


def test_no_measurable_difference_comes_with_the_smallest_one_that_could_have_been_shown(tmp_path: Path) -> None:
    """Ten won and ten lost of 200: standard error √(0.1/200), detectable 2.80 times that, 6.3 points."""
    base = answers([1] * 100 + [0] * 100)
    after = answers([0] * 10 + [1] * 90 + [1] * 10 + [0] * 90)
    found = of(tmp_path, base, after)
    assert "RFT makes no measurable difference at 50.0 %" in found["verdict"]
    (remark,) = found["remarks"]
    assert remark["kind"] == "no_difference" and "less than about 6.3 points would mostly go unseen" in remark["text"]
    assert remark["figures"]["detectable"] == pytest.approx(2.801585 * (0.1 / 200) ** 0.5, rel=1e-6)


def test_two_problems_show_nothing_and_the_verdict_says_so(tmp_path: Path) -> None:
    found = of(tmp_path, answers([1, 0]), answers([0, 1]))
    assert "2 problems are too few to show what RFT changed" in found["remarks"][0]["text"]
    assert found["detectable"]["held_out"]["text"] == "A test of 2 problems can show no difference: it is too small."


@pytest.mark.parametrize(("in_form", "found_after", "said"), [(0, 50, True), (40, 120, False)])
def test_a_gain_that_is_mostly_form_is_called_so(tmp_path: Path, in_form: int, found_after: int, said: bool) -> None:
    """Fifty of 200 are found before, so many of them in form; after, all that are found are in form.

    All of 25 points are form; then (0.25 + 0.6) / 2 × (1 − 0.8) = 8.5 of 40.
    """
    base = answers([1] * in_form + [0] * (200 - in_form), found=[1] * 50 + [0] * 150)
    column = [1] * found_after + [0] * (200 - found_after)
    found = of(tmp_path, base, answers(column, found=column))
    assert ("mostly_form" in kinds(found)) is said


@pytest.mark.parametrize(("cut", "said"), [(40, True), (10, False)])
def test_answers_cut_off_at_the_limit_are_told_with_the_setting_to_raise(tmp_path: Path, cut: int, said: bool) -> None:
    base, after = shares(60, 120)
    after = [line | {"finish": "length" if place < cut else "stop"} for place, line in enumerate(after)]
    found = of(tmp_path, base, after)
    assert ("cut_off" in kinds(found)) is said
    assert ("20.0 % of RFT's answers were cut off at 16 tokens" in found["verdict"]) is said
    assert ("raise evals.held_out.max_tokens" in found["verdict"]) is said


def test_the_base_models_cut_answers_do_not_belong_into_the_verdict(tmp_path: Path) -> None:
    base, after = shares(60, 120)
    found = of(tmp_path, [line | {"finish": "length"} for line in base], after)
    assert kinds(found) == ["cut_off"] and found["verdict"] == found["headline"]


def test_without_stages_there_is_no_difference_to_detect(tmp_path: Path) -> None:
    found = told(tmp_path, recipe(), shares(20))
    assert found["detectable"] == {} and found["remarks"] == []
