"""`rubric`: functions written for verifiers, by name what their signatures ask for, and their weighted sum."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from sharpen.config.graders import Rubric
from sharpen.errors import GraderError
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Grade, Message, Sample

FAULT = "python_grader_runtime_error"
ASK: tuple[Message, ...] = ({"role": "user", "content": "2+3?"},)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers import `rubrics`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def rubric(*functions: str | tuple[str, float], **settings: Any) -> Rubric:
    """Of functions in `rubrics`, with weights where they are not 1."""
    pairs = [one if isinstance(one, tuple) else (one, None) for one in functions]
    named = [{"use": f"rubrics:{name}"} | ({} if weight is None else {"weight": weight}) for name, weight in pairs]
    return Rubric.model_validate({"functions": named, **settings})


def graded(config: Rubric, text: str = "5", turns: tuple[Message, ...] = (), **item: Any) -> Grade:
    with GraderPool(config, workers=1) as pool:
        return asyncio.run(pool.grade_many([(Example("e", ASK, item), Sample(text, messages=turns))]))[0]


def test_the_score_is_the_weighted_sum_and_every_value_is_shown() -> None:
    config = rubric("exact", ("words", -0.25), ("later", 0.0))
    assert graded(config, "5", answer="5").score == 1 - 0.25 * 1
    given = graded(config, "It is 5", answer="5")
    assert given.score == 0 - 0.25 * 3
    assert given.metrics == {"exact": 0.0, "words": 3.0, "later": 11.0}
    assert given.explanation == "1 × exact 0 + -0.25 × words 3 + 0 × later 11"


def test_functions_share_the_state_in_their_order() -> None:
    item: dict[str, Any] = {"answer": "5", "info": {"a": 1}, "task": "sums"}
    assert graded(rubric("first", "second"), **item).score == 1.0
    assert graded(rubric("second", "first"), **item).score == 0.0


def test_info_is_an_object_or_its_json_and_empty_where_there_is_none() -> None:
    config = rubric("of_info")
    assert graded(config, info={"points": 2.5}).score == 2.5
    assert graded(config, info='{"points": 2.5}').score == 2.5
    assert graded(config).score == -1.0
    given = graded(config, info="points: 2.5")
    assert (given.score, given.fault and given.fault.kind) == (None, "invalid_variable_error")


def test_a_rows_own_fields_are_handed_over_under_their_names() -> None:
    assert graded(rubric("of_field"), difficulty=0.75).score == 0.75
    assert graded(rubric("all_names"), answer="5", difficulty=0.75, example_id=3).score == 1.0
    assert graded(rubric("all_names"), answer="5").score == 0.0


def test_of_an_episode_the_completion_is_all_turns() -> None:
    turns = tuple({"role": role, "content": "5"} for role in ("assistant", "tool", "assistant"))
    assert graded(rubric("later"), turns=turns).score == 13.0


def test_the_parser_is_the_last_turns_text_or_what_is_named() -> None:
    for parser, text, score in (
        ("", "5", 1.0),
        ("", "[5]", 0.0),
        ("rubrics:boxes", "It is [5].", 1.0),
        ("rubrics:Boxes", "It is [5].", 1.0),
        ("rubrics:boxes", "5", 0.0),
    ):
        assert graded(rubric("parsed", parser=parser), text, answer="5").score == score, (parser, text)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("raising", "raising: ValueError: no"),
        ("leaving", "leaving: SystemExit: 3"),
        ("nan", "not a finite number"),
        ("nothing", "nothing: TypeError: its value is no number: None"),
        ("hanging", "timed out after 0.7 s"),
    ],
)
def test_a_function_without_a_number_is_the_graders_fault_whatever_its_weight(function: str, words: str) -> None:
    given = graded(rubric("exact", (function, 0.0), time_limit=0.7 if function == "hanging" else 60), answer="5")
    assert (given.score, given.fault and given.fault.kind) == (None, FAULT)
    assert words in given.explanation


def test_a_row_without_what_a_function_asks_for_is_at_fault() -> None:
    given = graded(rubric("words", "exact"), reply="5")
    assert (given.score, given.fault and given.fault.kind) == (None, "invalid_variable_error")
    assert "exact asks for answer, which the item does not have; its fields are ['reply']" in given.explanation


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        (("exact", "exact"), "two functions of the rubric have one name"),
        (("of_group",), r"compares the attempts of a group \(answers, completions\)"),
        (("missing",), "missing"),
    ],
)
def test_a_rubric_that_cannot_work_is_refused_at_the_start(functions: tuple[str, ...], words: str) -> None:
    with GraderPool(rubric(*functions), workers=1) as pool, pytest.raises(GraderError, match=words):
        asyncio.run(pool.start())


def test_a_rubric_has_a_function_and_finite_weights() -> None:
    with pytest.raises(ValidationError):
        rubric()
    with pytest.raises(ValidationError):
        rubric(("exact", float("nan")))


def test_the_example_in_the_docs_grades_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs/graders.md").read_text()
    (example,) = (block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "type: rubric" in block)
    (source,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "parser" in block)
    (tmp_path / "my_rubric.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    given = graded(Rubric.model_validate(yaml.safe_load(example)["grader"]), "5", answer="5")
    assert (given.score, given.metrics) == (1.0, {"right": 1.0, "words": 1.0})
