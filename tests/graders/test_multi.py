"""`multi`: scores by formula, whose fault a fault is, and what the recipe's reader refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sharpen.config.graders import Multi
from sharpen.config.load import parse
from sharpen.errors import ConfigError
from sharpen.graders.multi import combine
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Fault, Grade, Sample

GRADERS: dict[str, Any] = {
    "right": {"type": "numeric"},
    "short": {"type": "regex", "pattern": ".{1,9}", "mode": "fullmatch"},
}


def multi(formula: str = "0.8 * right + 0.2 * short", **graders: Any) -> Multi:
    return Multi.model_validate({"graders": graders or GRADERS, "calculate_output": formula})


def graded(config: Multi, *texts: str) -> list[Grade]:
    with GraderPool(config, workers=1) as pool:
        return asyncio.run(pool.grade_many([(Example("e", (), {"answer": 7}), Sample(text)) for text in texts]))


def kinds(given: list[Grade]) -> list[str]:
    return [grade.fault.kind if grade.fault else "" for grade in given]


def test_the_score_is_the_formula_of_the_parts_and_each_part_is_shown() -> None:
    both, long, wrong = graded(multi(), "7", "It must be 7", "8")
    assert (both.score, both.metrics) == (1.0, {"right": 1.0, "short": 1.0})
    assert (long.score, long.metrics) == (0.8, {"right": 1.0, "short": 0.0})
    assert (wrong.score, wrong.metrics) == (0.2, {"right": 0.0, "short": 1.0})
    assert graded(multi("right * short"), "It must be 7")[0].score == 0.0


def test_a_completions_fault_gives_the_minimum_of_its_own_grader_alone() -> None:
    slow = {"type": "regex", "pattern": "(a+)+", "mode": "fullmatch", "time_limit": 0.5}
    config = multi("right + slow + 1", right={"type": "numeric"}, slow=slow)
    with GraderPool(config, workers=1) as pool:
        pairs = [(Example("e", (), {"answer": 7}), Sample(text)) for text in ("no", "a" * 40 + " 7")]
        unparsed, timed_out = asyncio.run(pool.grade_many(pairs))
        assert pool.repeatable(unparsed) and not pool.repeatable(timed_out)
    assert (unparsed.score, unparsed.fault) == (
        1.0,
        Fault("sample_parse_error", "right: the completion has no number"),
    )
    assert (timed_out.score, timed_out.metrics) == (2.0, {"right": 1.0, "slow": 0.0})
    assert timed_out.fault == Fault("timeout", "slow: timed out after 0.5 s")


def test_a_graders_fault_is_one_of_the_whole() -> None:
    lost = {"type": "string_check", "reference": "{{ item.missing }}"}
    (given,) = graded(multi("0 * lost + right", right={"type": "numeric"}, lost=lost), "7")
    assert (given.score, kinds([given])) == (None, ["invalid_variable_error"])
    assert "lost: " in given.explanation
    raising = {"type": "plugin", "use": "operator:truediv"}  # dict / dict
    (given,) = graded(multi("own", own=raising), "7")
    assert (given.score, kinds([given])) == (None, ["python_grader_runtime_error"])


@pytest.mark.parametrize("formula", ["1 / (right - 1)", "log(right - 1)", "exp(1000 * right)", "9 ^ 9 ^ 9 * right"])
def test_a_formula_without_a_finite_value_is_the_graders_fault(formula: str) -> None:
    given = combine({"right": Grade(1.0)}, multi(formula, right={"type": "numeric"}).formula())
    assert (given.score, kinds([given])) == (None, ["formula_parse_error"])
    assert formula in given.explanation


def test_a_plugin_among_the_graders_makes_the_whole_unrepeatable() -> None:
    for part, repeatable in (({"type": "plugin", "use": "operator:ne"}, False), ({"type": "numeric"}, True)):
        with GraderPool(multi("own", own=part)) as pool:
            assert pool.repeatable(Grade(1.0)) is repeatable


def test_of_two_faults_the_one_that_may_not_repeat_is_told() -> None:
    formula = multi("a + b", a={"type": "numeric"}, b={"type": "numeric"}).formula()
    faulty = {kind: Grade(0.0, fault=Fault(kind, "x")) for kind in ("sample_parse_error", "timeout")}
    for first, second in (("sample_parse_error", "timeout"), ("timeout", "sample_parse_error")):
        given = combine({"a": faulty[first], "b": faulty[second]}, formula)
        assert given.fault is not None and given.fault.kind == "timeout"


def refused(graders: Any, formula: str = "a", **more: Any) -> str:
    grader = {"type": "multi", "graders": graders, "calculate_output": formula, **more}
    with pytest.raises(ConfigError) as caught:
        parse({"model": "m", "stages": [{"type": "rft", "data": {"path": "a"}, "grader": grader}]})
    return str(caught.value)


NUMERIC = {"type": "numeric"}


@pytest.mark.parametrize(
    ("graders", "formula", "words"),
    [
        ({"a": NUMERIC}, "a +", "stages.0.grader: calculate_output, position 4"),
        ({"a": NUMERIC}, "a + b", "position 5: unknown name `b`; the names are a"),
        ({}, "1", "stages.0.grader.graders"),
        ({"a b": NUMERIC}, "1", "letters, digits and _"),
        ({"min": NUMERIC}, "min", "the name 'min' is taken"),
        ({"score": NUMERIC}, "score", "the name 'score' is taken"),
        ({"multi": NUMERIC}, "multi", "the name 'multi' is taken"),
        ({"a": {"type": "multi", "graders": {}, "calculate_output": "1"}}, "a", "unknown type `multi`"),
        ({"a": {"type": "numerik"}}, "a", "stages.0.grader.graders.a.type: unknown type `numerik`; did you mean"),
        ({"a": {"type": "regex"}}, "a", "stages.0.grader.graders.a.pattern: is missing"),
        ({"math": {"type": "regex", "patern": "x"}}, "math", "graders.math.patern: unknown key `patern`; did you mean"),
        ({"a": {"type": "regex", "pattern": "("}}, "a", "stages.0.grader.graders.a: not a regular expression"),
        ([NUMERIC], "a", "unknown name `a`; the names are numeric"),
        ([NUMERIC, NUMERIC], "numeric", "two graders are named 'numeric'"),
        ([3], "a", "stages.0.grader.graders"),
    ],
)
def test_a_wrong_multi_is_refused_by_its_place(graders: Any, formula: str, words: str) -> None:
    assert words in refused(graders, formula)


def test_a_multi_survives_being_written_and_read() -> None:
    import yaml

    from sharpen.config.load import dump

    grader = {"type": "multi", "graders": GRADERS, "calculate_output": "right * short", "name": "both"}
    read = parse({"model": "m", "stages": [{"type": "rft", "data": {"path": "a"}, "grader": grader}]})
    assert parse(yaml.safe_load(dump(read))) == read
    with GraderPool(read.stages[0].grader) as pool:  # type: ignore[union-attr,arg-type]
        assert pool.name == "both"


def test_the_example_in_the_docs_grades_as_it_says() -> None:
    import re
    from pathlib import Path

    import yaml

    text = (Path(__file__).parents[2] / "docs/graders.md").read_text()
    (example,) = (block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "type: multi" in block)
    config = Multi.model_validate(yaml.safe_load(example)["grader"])
    right, long, wrong = graded(config, "7", "7 " * 50, "8")
    assert (right.score, long.score, wrong.score) == (1.0, 0.9, 0.0)
