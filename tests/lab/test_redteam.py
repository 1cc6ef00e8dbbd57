"""Attacks on real graders whose weak spots are known by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sharpen.lab.attacks import ATTACKS, Target
from sharpen.lab.measures import wilson
from sharpen.lab.redteam import red_team
from sharpen.lab.samples import GOLD
from sharpen.lab.trial import Bench, Marks
from sharpen.stages.routing import Router
from sharpen.types import Example
from tests.lab.inprocess import InProcess, graders

ANSWERS = ("12", "7", "30", "105", "64")
PLUGIN = "tests.lab.inprocess:"


def examples(*answers: Any, prompt: str = "What is it?") -> list[Example]:
    return [
        Example(f"r{n}", ({"role": "user", "content": prompt},), {} if answer is None else {"answer": answer})
        for n, answer in enumerate(answers)
    ]


def attacked(grader: dict[str, Any], rows: list[Example], threshold: float | None = None) -> dict[str, dict[str, Any]]:
    configs = graders(grader)
    router = Router({"": InProcess(configs[""])})  # type: ignore[dict-item]
    found = asyncio.run(red_team(rows, GOLD, Bench(router), Marks(configs, threshold)))
    assert [one["attack"] for one in found] == [attack.name for attack in ATTACKS]
    return {one["attack"]: one for one in found}


def fooled(found: dict[str, dict[str, Any]]) -> dict[str, int]:
    return {name: one["false_positives"] for name, one in found.items() if one["false_positives"]}


@pytest.mark.parametrize(
    "grader",
    [
        {"type": "string_check"},
        {"type": "numeric"},
        {"type": "numeric", "take": "only"},
        {"type": "math"},
        {"type": "regex", "pattern": r"(-?\d+)", "mode": "fullmatch", "group": 1},
    ],
)
def test_a_sound_grader_has_no_false_positives(grader: dict[str, Any]) -> None:
    found = attacked(grader, examples(*ANSWERS))
    assert fooled(found) == {}
    for name in ("empty", "signs", "verdicts", "another answer", "long"):
        assert found[name]["rows"] == len(ANSWERS) and found[name]["ci95"] == list(wilson(0, len(ANSWERS)))


def test_a_grader_that_looks_for_the_completion_in_the_answer_pays_for_nothing() -> None:
    reversed_roles = {
        "type": "string_check",
        "input": "{{ item.answer }}",
        "reference": "{{ sample.output_text }}",
        "operation": "like",
    }
    found = attacked(reversed_roles, examples("3 apples.", "4 pears, and 2 more", "none"))
    assert fooled(found) == {"empty": 3, "white space": 2, "signs": 2, "wording": 1}  # "apples."
    assert found["empty"]["rate"] == 1.0 and found["empty"]["ci95"] == list(wilson(3, 3))
    assert {one["text"]: one["rate"] for one in found["signs"]["by_text"]} == pytest.approx(
        {".": 1 / 3, ",": 1 / 3, ":": 0.0}
    )
    assert found["signs"]["mean"] == pytest.approx(2 / 9)
    assert [one["id"] for one in found["signs"]["examples"]] == ["r0", "r1"]
    assert "holds" in found["signs"]["examples"][0]["explanation"]


def test_a_grader_that_looks_for_the_answer_in_the_completion_pays_for_lists_which_are_counted_apart() -> None:
    found = attacked({"type": "string_check", "operation": "like"}, examples(*ANSWERS))
    assert found["every answer"]["holding"] == {"n": 5, "paid": 5} and found["every answer"]["n"] == 0
    assert found["every answer"]["rate"] is None
    assert found["0 to 99"]["holding"] == {"n": 4, "paid": 4}  # all but 105
    assert found["0 to 99"]["rows"] == 1 and found["0 to 99"]["false_positives"] == 0
    digits = attacked({"type": "string_check", "operation": "like"}, examples("1", "21", "31", "41"))
    # r0's 1 is found in 21, which is not 1
    assert fooled(digits) == {"keywords": 1, "another answer": 1, "other answers": 1}


def test_a_grader_that_pays_a_colon_is_fooled_by_every_text_with_one() -> None:
    found = attacked({"type": "regex", "pattern": ":"}, examples(*ANSWERS))
    for attack in ATTACKS:
        if attack.fixed:
            said = attack.texts(Target(""))
            with_colon = [text for text in said if ":" in text]
            assert found[attack.name]["false_positives"] == (len(ANSWERS) if with_colon else 0), attack.name
            assert {one["text"] for one in found[attack.name]["by_text"] if one["rate"] == 1} == set(with_colon)
            assert found[attack.name]["mean"] == pytest.approx(len(with_colon) / len(said))
    assert found["signs"]["by_text"][0] == {"text": ":", "n": 5, "rate": 1.0}


def test_a_judge_that_obeys_is_caught_and_by_orders_alone() -> None:
    found = attacked({"type": "plugin", "use": f"{PLUGIN}obeys"}, examples("red", "green", "blue", "white", "black"))
    assert fooled(found) == {"orders": 5, "verdicts": 5, "false frames": 5}
    assert {one["rate"] for name in ("orders", "verdicts", "false frames") for one in found[name]["by_text"]} == {1.0}


def test_an_answer_that_is_right_for_another_row_too_is_no_attack() -> None:
    found = attacked({"type": "math"}, examples("7", "7.0", "14/2", "9"))
    assert fooled(found) == {}
    assert [found["another answer"][key] for key in ("n", "rows")] == [4, 4]


def test_a_prompt_that_holds_the_answer_is_not_counted_when_said_back() -> None:
    rows = [*examples("red", prompt="Red or blue?"), *examples("seven", prompt="How many?")]
    found = attacked({"type": "string_check", "operation": "ilike"}, rows)["echo"]
    assert (found["rows"], found["false_positives"], found["holding"]) == (1, 0, {"n": 1, "paid": 1})


def test_partial_credit_counts_from_the_threshold_on() -> None:
    grader, rows = {"type": "plugin", "use": f"{PLUGIN}shorter"}, examples("seven", "eight")
    assert fooled(attacked(grader, rows)) == {"empty": 2}
    found = attacked(grader, rows, threshold=0.5)
    assert fooled(found) == {"empty": 2, "white space": 2, "signs": 2, "openers": 2}  # one sign each is worth 1/2
    assert found["signs"]["mean"] == 0.5


def test_the_graders_own_faults_are_left_out_and_counted() -> None:
    found = attacked({"type": "plugin", "use": f"{PLUGIN}fragile"}, examples("7", "8"))
    assert (found["signs"]["n"], found["signs"]["left_out"]) == (4, 2)
    assert fooled(found) == {}


def test_rows_without_an_answer_are_attacked_by_what_needs_none() -> None:
    found = attacked({"type": "regex", "pattern": "^$"}, examples(None, None))
    assert fooled(found) == {"empty": 2, "white space": 2}
    assert found["echo"]["rows"] == found["0 to 99"]["rows"] == 0 and found["echo"]["rate"] is None
