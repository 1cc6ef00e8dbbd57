"""Graders through worker processes: whose fault a hang, a crash or an exception is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import reasoning_gym  # type: ignore[import-untyped]

from sharpen.config.graders import MathAnswer, Plugin, ReasoningGymScore, StringCheck
from sharpen.config.graders.version import version
from sharpen.errors import ConfigError, GraderError
from sharpen.graders.pool import GraderPool
from sharpen.plugins import load
from sharpen.stages.resolve import with_paths
from sharpen.types import Example, Fault, Grade, Sample


def pair(text: str, **item: Any) -> tuple[Example, Sample]:
    return Example("e", (), item), Sample(text)


def grades(pool: GraderPool, *pairs: tuple[Example, Sample]) -> list[Grade]:
    return asyncio.run(pool.grade_many(pairs))


def kinds(given: list[Grade]) -> list[str]:
    return [grade.fault.kind if grade.fault else "" for grade in given]


ORDERS = ["0.25", "hang", "hang in C", "exit", "segfault", "raise", "nan", "0.75"]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers import `obeying`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def test_hangs_and_crashes_of_the_operators_grader_are_its_own_fault_and_have_no_score() -> None:
    with GraderPool(Plugin(use="obeying:obey", time_limit=0.5), workers=1) as pool:
        given = grades(pool, *map(pair, ORDERS))
        assert not pool.repeatable(given[0]), "foreign code may roll dice"
    assert [grade.score for grade in given] == [0.25, None, None, None, None, None, None, 0.75]
    assert set(kinds(given)[1:-1]) == {"python_grader_runtime_error"}
    assert given[1].explanation == "timed out after 0.5 s"
    assert "SIGSEGV" in given[4].explanation
    assert "ValueError: no" in given[5].explanation


def test_hangs_and_crashes_of_our_own_graders_are_the_completions_fault_and_score_zero() -> None:
    with GraderPool(load("obeying:Trusted")(time_limit=0.5), workers=1) as pool:
        given = grades(pool, *map(pair, ORDERS))
        assert [pool.repeatable(grade) for grade in given] == [True, *[False] * 6, True]
    assert [grade.score for grade in given] == [0.25, 0.0, 0.0, 0.0, 0.0, None, None, 0.75]
    assert kinds(given)[1:-1] == ["timeout", "timeout", "exit", "crashed", "other_error", "other_error"]


def test_a_function_of_a_notebook_needs_no_module_and_may_be_called_in_a_running_loop() -> None:
    bonus = 0.5

    async def cell() -> list[Grade]:
        with GraderPool(Plugin(use="notebook:cell"), function=lambda sample, item: item["n"] + bonus) as pool:
            await pool.start()
            return await pool.grade_many([pair("", n=number) for number in range(20)])

    assert [grade.score for grade in asyncio.run(cell())] == [number + 0.5 for number in range(20)]


def test_the_time_limit_of_the_config_decides() -> None:
    def slow(sample: dict[str, Any], item: dict[str, Any]) -> float:
        time.sleep(0.8)
        return 1.0

    for limit, score in ((0.3, None), (20.0, 1.0)):
        with GraderPool(Plugin(use="given:directly", time_limit=limit), function=slow, workers=1) as pool:
            assert grades(pool, pair(""))[0].score == score


def test_scores_are_reported_under_the_name_or_the_type() -> None:
    assert GraderPool(StringCheck()).name == "string_check"
    assert GraderPool(StringCheck(name="exact")).name == "exact"


def test_a_plugin_comes_from_the_module_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_grader.py").write_text("def one(sample, item): return 1\ndef two(sample, item): return 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, score in (("one", 1.0), ("two", 2.0)):
        with GraderPool(Plugin(use=f"my_grader:{name}"), workers=1) as pool:
            assert grades(pool, pair(""))[0].score == score
    with (
        GraderPool(Plugin(use="my_grader:three"), workers=1) as pool,
        pytest.raises(GraderError, match="three"),
    ):
        asyncio.run(pool.start())


def test_a_plugin_may_be_named_by_its_file_and_edits_of_it_are_another_version(tmp_path: Path) -> None:
    (tmp_path / "near.py").write_text("FACTOR = 2\n")
    code = "from near import FACTOR\n\n\ndef grade(sample, item):\n    return FACTOR * len(sample['output_text'])\n"
    (tmp_path / "grader.py").write_text(code)
    config = with_paths(Plugin(use="grader.py:grade"), tmp_path)
    with GraderPool(config) as pool:
        assert [grade.score for grade in grades(pool, pair("abc"))] == [6.0]
    before = version(config)
    (tmp_path / "grader.py").write_text(code.replace("FACTOR *", "3 *"))
    assert version(config) != before
    with pytest.raises(ConfigError, match="no such Python file"):
        load(f"{tmp_path / 'missing.py'}:grade")


def test_only_a_plugin_takes_a_function() -> None:
    with pytest.raises(ConfigError, match="only a plugin"):
        GraderPool(MathAnswer(), function=len)


def test_a_power_too_large_to_compute_times_out_and_the_next_sum_is_graded() -> None:
    with GraderPool(MathAnswer(time_limit=1.0), workers=1) as pool:
        given = grades(pool, pair("$9^{9^{9^{9}}}$", answer=5), pair("2+3", answer=5))
    assert given[0].score == 0.0
    assert given[0].fault in (None, Fault("timeout", "timed out after 1 s"))
    assert given[1].score == 1.0


def test_reasoning_gym_grades_its_own_answers_in_the_workers() -> None:
    data = reasoning_gym.create_dataset("chain_sum", size=4, seed=1)
    items = [{**entry, "generator": "chain_sum", "params": {}} for entry in data]
    with GraderPool(ReasoningGymScore(), workers=1) as pool:
        given = grades(pool, *[pair(item["answer"], **item) for item in items], pair("no", **items[0]))
    assert [grade.score for grade in given] == [1.0, 1.0, 1.0, 1.0, 0.0]
