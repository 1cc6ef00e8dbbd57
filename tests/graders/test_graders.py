"""Each grader against answers worked by hand, and each field of its config."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reasoning_gym  # type: ignore[import-untyped]

from sharpen.config.graders import MathAnswer, Plugin, ReasoningGymScore, StringCheck
from sharpen.graders.base import Grader, finite, repeatable
from sharpen.graders.math import MathGrader
from sharpen.graders.plugin import PluginGrader
from sharpen.graders.reasoning_gym import ReasoningGymGrader
from sharpen.graders.string_check import StringCheckGrader
from sharpen.graders.template import InvalidVariable, render
from sharpen.types import Example, Fault, Grade, Sample


def grade(grader: Grader, text: str, **item: Any) -> Grade:
    return asyncio.run(grader.grade(Example("e", (), item), Sample(text)))


def kind(given: Grade) -> str:
    return given.fault.kind if given.fault else ""


ITEM = {"answer": 7, "a": {"b": [{"c": "deep"}]}, "list": [1, "é"], "yes": True, "none": None, "half": 0.5}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ item.answer }}", "7"),
        ("{{item.a.b[0].c}}/{{ sample.output_text }}", "deep/out"),
        ("{{ item.list }} {{ item.a }}", '[1, "é"] {"b": [{"c": "deep"}]}'),
        ("{{ item.list[1] }} {{ item.yes }} {{ item.half }}", "é True 0.5"),
        ("no placeholder { item.answer }", "no placeholder { item.answer }"),
    ],
)
def test_a_template_renders_paths(template: str, text: str) -> None:
    assert render(template, Example("e", (), ITEM), Sample("out")) == text


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ item.anwser }}", "its fields are .*'answer'"),
        ("{{ item.list[2] }}", r"no \[2\]"),
        ("{{ item.answer.x }}", "there is no x, it is 7"),
        ("{{ item.none }}", "is null"),
        ("{{ sample.output_json.k }}", "there is no k"),
        ("{{ item.a b }}", "not a path"),
        ("{{ other.answer }}", "no other"),
        ("{{ sample.anwser }}", "its fields are .*output_text"),
    ],
)
def test_a_wrong_variable_is_named_with_what_there_is(template: str, words: str) -> None:
    with pytest.raises(InvalidVariable, match=words):
        render(template, Example("e", (), ITEM), Sample("out"))


def test_an_output_that_looks_like_a_template_is_not_rendered_again() -> None:
    assert (
        render("{{ sample.output_text }}", Example("e", (), ITEM), Sample("{{ item.answer }}")) == "{{ item.answer }}"
    )


@pytest.mark.parametrize(
    ("operation", "text", "score"),
    [
        ("eq", "Paris", 1.0),
        ("eq", "paris", 0.0),
        ("ne", "Paris", 0.0),
        ("ne", "Rome", 1.0),
        ("like", "It is Paris.", 1.0),
        ("like", "It is paris.", 0.0),
        ("ilike", "It is pARIS.", 1.0),
        ("ilike", "Rome", 0.0),
    ],
)
def test_string_check_compares(operation: Any, text: str, score: float) -> None:
    assert grade(StringCheckGrader(StringCheck(operation=operation)), text, answer="Paris").score == score


def test_string_check_reads_its_input_and_reference_where_they_are_said_to_be() -> None:
    item = {"answer": "a", "other": "b", "shown": "b"}
    assert grade(StringCheckGrader(StringCheck()), "a", **item).score == 1.0
    assert grade(StringCheckGrader(StringCheck(reference="{{ item.other }}")), "a", **item).score == 0.0
    config = StringCheck(input="{{ item.shown }}", reference="{{ item.other }}")
    assert grade(StringCheckGrader(config), "a", **item).score == 1.0
    assert kind(grade(StringCheckGrader(StringCheck()), "a")) == "invalid_variable_error"


@pytest.mark.parametrize(
    ("text", "answer", "score"),
    [
        ("12", "12", 1.0),
        ("The answer is 5. No wait, it is 6.", "6", 1.0),
        ("The answer is 5. No wait, it is 6.", "5", 0.0),
        (r"\boxed{1} or \boxed{2}", "1", 0.0),
        (r"\boxed{1}, \boxed{2}", "2", 1.0),
        (r"It is \boxed{\frac{1}{2}}, found in 3 steps.", "0.5", 1.0),
        (r"So $x = \frac{\sqrt{8}}{2}$.", r"\sqrt{2}", 1.0),
        ("Answer:-1,234", -1234, 1.0),
        ("**5**", 5, 1.0),
        ("3+4=7", 7, 1.0),
        ("x = 7", 7, 1.0),
        (r"2\sqrt{3}", 2, 0.0),
        (r"2\sqrt{3}", r"\sqrt{12}", 1.0),
        ("3^{2}", 3, 0.0),
        ("(3,4)", "(3,4)", 1.0),
        ("4", "(3,4)", 0.0),
        ("2", "1, 2", 0.0),
        ("72", "She sold 48+24 = 72 clips.\n#### 72", 1.0),
        ("2x + 1", "1+2x", 1.0),
        ("12 apples", 12, 1.0),
        ("-3", 3, 0.0),
    ],
)
def test_math_compares_the_last_number_or_formula(text: str, answer: object, score: float) -> None:
    given = grade(MathGrader(MathAnswer()), text, answer=answer)
    assert (given.score, given.metrics, given.fault) == (score, {"format": 1.0}, None)


@pytest.mark.parametrize("text", ["", "no idea", r"\boxed{}", r"5, no: \boxed{6", r"The value is 2\sqrt{3}"])
def test_math_scores_zero_with_a_cause_when_there_is_no_readable_answer(text: str) -> None:
    given = grade(MathGrader(MathAnswer()), text, answer="2")
    assert (given.score, given.metrics, kind(given)) == (0.0, {"format": 0.0}, "sample_parse_error")


def test_math_blames_the_reference_not_the_completion_when_the_reference_is_unreadable() -> None:
    for item in ({"answer": "unknown"}, {"answer": ""}, {}):
        given = grade(MathGrader(MathAnswer()), "5", **item)
        assert (given.score, kind(given)) == (None, "invalid_variable_error")


def test_math_reads_the_reference_where_it_is_said_to_be() -> None:
    assert grade(MathGrader(MathAnswer(reference="{{ item.n }}")), "5", n=5, answer=6).score == 1.0


def gym_item(generator: str, **params: Any) -> dict[str, Any]:
    entry = reasoning_gym.create_dataset(generator, size=1, seed=3, **params)[0]
    return {**entry, "generator": generator, "params": params}


def test_reasoning_gym_gives_full_marks_only_and_reports_partial_credit() -> None:
    item = gym_item("chain_sum", min_terms=2, max_terms=2)
    right, wordy = item["answer"], f"It is {item['answer']}"
    grader = ReasoningGymGrader(ReasoningGymScore())
    assert grade(grader, f" {right}\n", **item) == Grade(1.0, {"partial": 1.0}, f"expected {right!r}")
    partly = grade(grader, wordy, **item)
    assert partly.score == 0.0
    assert partly.metrics["partial"] == pytest.approx(len(right) / len(wordy))


def test_reasoning_gym_wants_the_pattern_and_takes_its_group_for_the_answer() -> None:
    item = gym_item("chain_sum")
    right = item["answer"]
    whole = ReasoningGymGrader(ReasoningGymScore(pattern=r"-?\d+"))
    group = ReasoningGymGrader(ReasoningGymScore(pattern=r"It is (-?\d+)\."))
    assert grade(whole, right, **item).metrics == {"format": 1.0, "found": 1.0, "partial": 1.0}
    assert grade(group, f"It is {right}.", **item).score == 1.0
    assert grade(group, "It is 999999.", **item).metrics["format"] == 1.0
    missed = grade(whole, f"It is {right}.", **item)
    assert (missed.score, missed.metrics["format"], kind(missed)) == (0.0, 0.0, "sample_parse_error")
    assert missed.metrics["found"] == 1.0  # the right answer stands in it, out of form
    assert grade(whole, "It is 999999.", **item).metrics["found"] == 0.0


def test_reasoning_gym_uses_the_generators_own_verifier() -> None:
    item = gym_item("countdown")
    grader = ReasoningGymGrader(ReasoningGymScore())
    reordered = f"0 + {item['answer']}".removeprefix("0 + ").replace(" ", "")
    assert grade(grader, reordered, **item).score == 1.0
    assert grade(grader, str(item["metadata"]["target"]), **item).score == 0.0


def test_a_verifier_that_raises_on_junk_blames_the_completion_and_keeps_the_item_whole() -> None:
    item = gym_item("prime_factorization")
    given = grade(ReasoningGymGrader(ReasoningGymScore()), "abc", **item)
    assert (given.score, kind(given)) == (0.0, "sample_parse_error")
    assert item == gym_item("prime_factorization")


def test_reasoning_gym_refuses_items_of_another_source() -> None:
    assert kind(grade(ReasoningGymGrader(ReasoningGymScore()), "5", answer="5")) == "invalid_variable_error"


def plugin(function: Callable[..., Any]) -> PluginGrader:
    return PluginGrader(Plugin(use="given:directly"), function)


async def slow_half(sample: dict[str, Any], item: dict[str, Any]) -> float:
    await asyncio.sleep(0)
    return 0.5


@pytest.mark.parametrize(
    ("function", "score", "metrics"),
    [
        (lambda sample, item: sample["output_text"] == item["answer"], 1.0, {}),
        (lambda sample, item: sample["finish"] == "length", 0.0, {}),
        (lambda sample, item: np.float32(0.25), 0.25, {}),
        (lambda sample, item: np.array(2), 2.0, {}),
        (lambda sample, item: -3, -3.0, {}),
        (
            lambda sample, item: {"score": 1, "style": np.bool_(True), "words": 4},
            1.0,
            {"style": 1.0, "words": 4.0},
        ),
        (slow_half, 0.5, {}),
    ],
)
def test_a_plugin_returns_a_number_or_a_dict(
    function: Callable[..., Any], score: float, metrics: dict[str, float]
) -> None:
    assert grade(plugin(function), "x", answer="x") == Grade(score, metrics)


@pytest.mark.parametrize(
    "returned",
    [
        *(None, "1", float("nan"), float("inf"), 10**400, [1.0], np.array([1.0]), 1j, {}, {"metric": 1.0}),
        *({"score": None}, {"score": 1.0, "note": "good"}, {"score": 1.0, "extra": float("nan")}),
    ],
)
def test_a_plugin_that_returns_no_finite_number_has_a_fault_and_no_score(returned: Any) -> None:
    given = grade(plugin(lambda sample, item: returned), "x")
    assert (given.score, kind(given)) == (None, "python_grader_runtime_error")
    assert not repeatable(given)


def test_an_exception_in_a_plugin_names_type_message_and_the_plugins_own_line() -> None:
    def fails(sample: dict[str, Any], item: dict[str, Any]) -> float:
        return float(Path(item["missing"]).stat().st_size)

    line = fails.__code__.co_firstlineno + 1
    given = grade(plugin(fails), "x", missing="/nowhere")
    assert given.score is None
    assert "FileNotFoundError" in given.explanation
    assert f"{Path(__file__).name}:{line})" in given.explanation
    assert kind(grade(plugin(lambda sample, item: sys.exit(1)), "x")) == "python_grader_runtime_error"


def test_a_plugin_is_found_by_its_name() -> None:
    assert grade(PluginGrader(Plugin(use="operator:ne")), "x").score == 1.0


def test_grades_that_depend_on_the_moment_are_told_from_those_that_do_not() -> None:
    assert repeatable(Grade(1.0))
    assert repeatable(Grade(0.0, fault=Fault("sample_parse_error")))
    assert repeatable(Grade(None, fault=Fault("invalid_variable_error")))
    for moment in ("timeout", "crashed", "other_error", "python_grader_runtime_error"):
        assert not repeatable(Grade(0.0, fault=Fault(moment)))


def test_no_number_that_is_not_finite_passes_the_gate() -> None:
    assert finite(Grade(1.0, {"a": 2.0}), "other_error") == Grade(1.0, {"a": 2.0})
    for grade_ in (Grade(float("nan")), Grade(float("-inf")), Grade(1.0, {"a": float("nan")})):
        gated = finite(grade_, "other_error")
        assert (gated.score, kind(gated)) == (None, "other_error")
