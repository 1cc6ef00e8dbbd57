"""Sources in whole runs: several, each with its grader; splits; shapes a stage does not train on; late faults."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sharpen.config.data import FileData, InlineData
from sharpen.config.graders import MathAnswer, StringCheck
from sharpen.errors import ConfigError, DataError, OverlapError
from sharpen.graders.pool import GraderPool
from sharpen.runs.store import read_lines
from sharpen.stages import epochs, pipeline
from sharpen.stages.resolve import reopen
from sharpen.stages.routing import Router, graders
from sharpen.types import Example, Sample
from tests.runs.lab import World, bits, events, labelled, prompts, write_rows

pytestmark = pytest.mark.usefixtures("here")

EQUAL = StringCheck(name="equal")
OTHER = StringCheck(name="other", operation="ne")


def test_each_example_goes_to_the_grader_of_its_source() -> None:
    data = (InlineData(rows=({},)), InlineData(rows=({},), grader=OTHER), InlineData(rows=({},), grader=OTHER))
    configs = graders(EQUAL, data, None)
    assert list(configs.values()) == [EQUAL, OTHER], "equal graders share a pool"
    assert graders(EQUAL, data, InlineData(rows=({},), grader=MathAnswer())).keys() > configs.keys()
    key = next(name for name in configs if name)
    pairs = [(Example("a", (), {"answer": "x"}, grader=own), Sample("x")) for own in ("", key, "", key)]

    async def grade() -> list[float | None]:
        with Router({name: GraderPool(config, workers=1) for name, config in configs.items()}) as router:
            await router.start()
            assert router.repeatable((await router.grade_many(pairs[:1]))[0])
            return [made.score for made in await router.grade_many(pairs)]

    assert asyncio.run(grade()) == [1, 0, 1, 0]


def grader(name: str) -> dict[str, Any]:
    return {"type": "plugin", "use": "tests.runs.lab:letters", "name": name}


def test_rft_reads_all_sources_and_reports_each_grader(world: World, tmp_path: Path) -> None:
    data = [{"type": "inline", "rows": prompts("one", 3)}, {"path": world.rft["path"], "grader": grader("second")}]
    stage = world.rft_stage(data=data, steps=3, prompts_per_step=4, grader=grader("first"))
    run = tmp_path / "run"
    pipeline.run(world.recipe(stage), run, base=world.folder)
    lines = read_lines(run / "metrics.jsonl")
    assert all(set(line["reward"]["by_grader"]) == {"first", "second"} for line in lines)
    asked = {
        line["prompt"][0]["content"].split()[0] for path in run.glob("rollouts/rft/*") for line in read_lines(path)
    }
    assert asked == {"one", "say"}
    first = reopen(run)[0].recipe.stages[0].data
    assert isinstance(first, tuple) and all(isinstance(source, FileData) for source in first)


def test_a_source_of_sft_has_no_grader(world: World, tmp_path: Path) -> None:
    stage = world.sft_stage(data={**world.sft, "grader": grader("x")})
    with pytest.raises(ConfigError, match="imitated, not graded"):
        pipeline.run(world.recipe(stage), tmp_path / "run", base=world.folder)


def test_one_file_is_trained_on_and_evaluated_on_by_a_split(world: World, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "all.jsonl", labelled("count", 20))
    both = {"path": path, "split": {"test": 0.25}}
    stage = world.sft_stage(data=both, validation={**both, "split": {"test": 0.25, "part": "test"}})
    run = tmp_path / "run"
    summary = pipeline.run(
        world.recipe(stage, evals=[world.eval_config(data={**both, "split": {"test": 0.25, "part": "test"}})]),
        run,
        base=world.folder,
    )
    assert summary["base"]["evals"]["held"]["n"] == 5
    assert read_lines(run / "metrics.jsonl")[-1]["steps"] == 8, "two epochs of 15 rows by four"
    with pytest.raises(OverlapError):
        pipeline.run(world.recipe(stage, evals=[world.eval_config(data=both)]), tmp_path / "again", base=world.folder)


def test_inline_rows_keep_their_columns_and_split_in_the_run(world: World, tmp_path: Path) -> None:
    rows = [{"question": row["prompt"], "answer": row["completion"]} for row in labelled("count", 12)]
    data = {"type": "inline", "rows": rows, "columns": {"prompt": "question", "completion": "answer"}}
    run = tmp_path / "run"
    pipeline.run(world.recipe(world.sft_stage(data={**data, "split": {"test": 0.5}})), run, base=world.folder)
    assert read_lines(run / "metrics.jsonl")[-1]["steps"] == 3, "two epochs of six rows by four"


def test_preference_rows_are_refused_by_sft_with_a_remedy_that_trains(world: World, tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "no"} for row in labelled("count", 12)]
    data = {"path": write_rows(tmp_path / "pairs.jsonl", rows)}
    with pytest.raises(DataError, match=r"pairs\.jsonl:1: preference rows .*for a dpo stage, not sft"):
        pipeline.run(world.recipe(world.sft_stage(data=data)), tmp_path / "refused", base=world.folder)
    for run, used in (("pairs", {**data, "columns": {"completion": "chosen"}}), ("plain", world.sft)):
        pipeline.run(world.recipe(world.sft_stage(data=used)), tmp_path / run, base=world.folder)
    weights = [bits(tmp_path / run)["models/sft/model.safetensors"] for run in ("pairs", "plain")]
    assert weights[0] == weights[1]


def test_an_image_in_a_prompt_is_named_by_file_line_and_field(world: World, tmp_path: Path) -> None:
    shown = {"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}
    data = {"path": write_rows(tmp_path / "rows.jsonl", [*prompts("say", 2), shown])}
    with pytest.raises(DataError, match=r"rows\.jsonl:3:messages\[0\]\.content: content in parts"):
        pipeline.run(world.recipe(world.rft_stage(data=data)), tmp_path / "run", base=world.folder)


def test_a_row_that_may_be_too_long_is_found_before_the_first_step_wherever_it_stands(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "CHECKED", 2)
    rows = [*labelled("count", 11), {"prompt": "count", "completion": "x" * 1500}]
    data = {"path": write_rows(tmp_path / "rows.jsonl", rows)}
    with pytest.raises(DataError, match=r"rows\.jsonl:12: the row is longer than max_length = 1000"):
        pipeline.run(world.recipe(world.sft_stage(data=data, max_length=1000)), tmp_path / "run", base=world.folder)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_fault_that_shows_late_ends_the_run_after_a_checkpoint(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tools are not shown by this model's template, and the row is short and late."""
    monkeypatch.setattr(epochs, "CHECKED", 0)
    tool = {"type": "function", "function": {"name": "f"}}
    rows: list[dict[str, Any]] = labelled("count", 12)
    rows[-1] = {**rows[-1], "tools": [tool]}
    run = tmp_path / "run"
    recipe = world.recipe(world.sft_stage(data={"path": write_rows(tmp_path / "rows.jsonl", rows)}, batch_size=1))
    with pytest.raises(DataError, match=r"rows\.jsonl:12:tools: the chat template has no tool support"):
        pipeline.run(recipe, run, base=world.folder)
    steps = len(read_lines(run / "metrics.jsonl"))
    assert steps > 0, "the seed draws the bad row first: choose another"
    assert events(run, "checkpoint")[-1]["step"] == steps
    assert events(run)[-1]["event"] == "failed"
