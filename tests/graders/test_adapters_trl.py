"""`trl`: reward functions written for TRL, called as its GRPOTrainer calls them."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharpen.config.graders import TRL, Multi
from sharpen.errors import GraderError
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Grade, Message, Sample

FAULT = "python_grader_runtime_error"
ASK: tuple[Message, ...] = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+3?"})


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers import `rewards`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def pair(text: str, **item: Any) -> tuple[Example, Sample]:
    return Example("e", ASK, item), Sample(text)


def graded(function: str, *pairs: tuple[Example, Sample], **settings: Any) -> list[Grade]:
    with GraderPool(TRL(use=f"rewards:{function}", **settings)) as pool:
        return asyncio.run(pool.grade_many(pairs))


def scores(given: list[Grade]) -> list[float | None]:
    return [grade.score for grade in given]


def kinds(given: list[Grade]) -> list[str]:
    return [grade.fault.kind if grade.fault else "" for grade in given]


def test_it_is_called_once_with_messages_and_every_field_as_a_column(tmp_path: Path) -> None:
    out = str(tmp_path / "seen.json")
    rows = [pair("5", out=out, answer=5, prompt="left out", completion_ids=[7]), pair("six", out=out, level={"n": 2})]
    graded("written", *rows)
    assert json.loads(Path(out).read_text()) == {
        "prompts": [list(ASK), list(ASK)],
        "completions": [[{"role": "assistant", "content": "5"}], [{"role": "assistant", "content": "six"}]],
        "columns": {"answer": [5, None], "level": [None, {"n": 2}]},
        "more": ["log_extra", "log_metric"],
    }


def test_a_standard_function_is_handed_texts(tmp_path: Path) -> None:
    out = str(tmp_path / "seen.json")
    graded("written", pair("5", out=out), conversational=False)
    seen = json.loads(Path(out).read_text())
    assert (seen["prompts"], seen["completions"]) == (["Be brief.\n\n2+3?"], ["5"])


def test_of_an_episode_it_is_handed_all_turns_after_the_prompt(tmp_path: Path) -> None:
    out = str(tmp_path / "seen.json")
    turns = tuple({"role": role, "content": role} for role in ("assistant", "tool", "assistant"))
    graded("written", (Example("e", ASK, {"out": out}), Sample("assistant", messages=turns)))
    assert json.loads(Path(out).read_text())["completions"] == [list(turns)]


@pytest.mark.parametrize("function", ["length", "length_later"])
def test_its_rewards_are_the_scores_async_or_not(function: str) -> None:
    assert scores(graded(function, pair("1"), pair("22"), pair("333"))) == [1.0, 2.0, 3.0]


def test_an_object_that_can_be_called_is_a_function() -> None:
    assert scores(graded("weighted", pair("", weight=0.25), pair("", weight=-2))) == [0.25, -2.0]


def test_it_sees_the_whole_batch_or_parts_of_it() -> None:
    rows = [pair("1"), pair("333"), pair("22"), pair("4444"), pair("1")]
    assert scores(graded("longest", *rows)) == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert scores(graded("longest", *rows, max_batch=2)) == [0.0, 1.0, 0.0, 1.0, 1.0]
    assert graded("longest") == []


def test_none_is_no_score_for_its_row_alone() -> None:
    given = graded("of_maths", pair("", topic="maths"), pair("", topic="prose"), pair("", topic="maths"))
    assert scores(given) == [1.0, None, 1.0]
    assert kinds(given) == ["", "other_error", ""]
    assert "returned None" in given[1].explanation


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("raise", "ValueError: no"),
        ("leave", "SystemExit: 3"),
        ("exit", "the worker died (exit status 3)"),
        ("hang", "timed out after 0.7 s"),
        ("short", "returned 1 rewards for 2 completions"),
        ("text", "returned no list of rewards: '11'"),
        ("mapping", "returned no list of rewards: {0: 1.0, 1: 1.0}"),
        ("number", "returned no list of rewards: 1.0"),
    ],
)
def test_what_goes_wrong_with_a_call_is_the_graders_fault_in_all_its_rows_and_the_next_call_is_graded(
    order: str, words: str
) -> None:
    with GraderPool(TRL(use="rewards:as_said", time_limit=0.7 if order == "hang" else 60)) as pool:
        given = asyncio.run(pool.grade_many([pair(order), pair("fine")]))
        assert scores(asyncio.run(pool.grade_many([pair("fine")]))) == [1.0]
        assert not pool.repeatable(Grade(1.0)), "foreign code may roll dice"
    assert scores(given) == [None, None]
    assert kinds(given) == [FAULT, FAULT]
    assert all(words in grade.explanation for grade in given), given


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("nan", "not a finite number"),
        ("inf", "not a finite number"),
        ("huge", "too large"),
        ("word", "no number: '1.0'"),
        ("list", "no number: [1.0]"),
    ],
)
def test_a_reward_that_is_no_finite_number_is_a_fault_of_its_row_alone(order: str, words: str) -> None:
    given = graded("as_said", pair(order), pair("fine"))
    assert scores(given) == [None, 1.0]
    assert kinds(given) == [FAULT, ""]
    assert words in given[0].explanation


def test_numbers_of_numpy_and_truth_values_are_numbers() -> None:
    assert scores(graded("as_said", pair("array"), pair(""))) == [0.25, 0.25]
    assert scores(graded("as_said", pair("flags"), pair(""))) == [1.0, 0.0]


def test_what_it_logs_stands_beside_the_score() -> None:
    first, second = graded("logging", pair("ab"), pair("cde"))
    assert first.metrics == {"mean": 1.5, "characters": 2.0}
    assert second.metrics == {"mean": 1.5, "characters": 3.0}
    assert (first.explanation, second.explanation) == ("upper: AB", "upper: CDE")
    given = graded("logging", pair("uneven"), pair(""))
    assert kinds(given) == [FAULT, FAULT]
    assert "3 values of 'upper' for 2 completions" in given[0].explanation


def test_a_function_that_needs_a_trainer_is_refused_at_the_start() -> None:
    with (
        GraderPool(TRL(use="rewards:of_tokens")) as pool,
        pytest.raises(GraderError, match="needs completion_ids, which only TRL's trainers have"),
    ):
        asyncio.run(pool.start())
    assert scores(graded("with_state", pair(""))) == [0.5]


def test_a_function_that_does_not_exist_is_named_at_the_start() -> None:
    with GraderPool(TRL(use="rewards:nothing")) as pool, pytest.raises(GraderError, match="nothing"):
        asyncio.run(pool.start())


def test_it_may_be_part_of_a_formula() -> None:
    graders = {"long": {"type": "trl", "use": "rewards:longest"}, "right": {"type": "numeric"}}
    config = Multi.model_validate({"graders": graders, "calculate_output": "right + 0.5 * long"})
    with GraderPool(config, workers=1) as pool:
        given = asyncio.run(pool.grade_many([pair("5", answer=5), pair("It is 5", answer=5), pair("6", answer=5)]))
    assert scores(given) == [1.0, 1.5, 0.0]


def test_the_example_in_the_docs_grades_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs/graders.md").read_text()
    (example,) = (block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "type: trl" in block)
    (source,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "log_extra" in block)
    (tmp_path / "my_rewards.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with GraderPool(TRL.model_validate(yaml.safe_load(example)["grader"])) as pool:
        right, longer = asyncio.run(pool.grade_many([pair("5", answer="5"), pair("It is 5", answer="5")]))
    assert (right.score, longer.score) == (1.0, 0.0)
    assert longer.metrics == {"characters": 7.0}
