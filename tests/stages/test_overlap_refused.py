"""Held-out problems that training has seen end a run before it begins; generated ones are dropped and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import DataError, OverlapError
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.runs.lab import World, events, labelled, prompts, write_rows

pytestmark = pytest.mark.usefixtures("here")


def gym(start: int, count: int) -> dict[str, Any]:
    """Sums of two digits: few enough problems for index ranges to meet."""
    params = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    return {"type": "reasoning_gym", "generator": "chain_sum", "params": params, "start": start, "count": count}


@pytest.mark.parametrize("where", ["eval of sft", "eval of rft", "validation of sft", "validation of rft"])
def test_an_overlap_is_refused_by_name_before_anything_is_trained(world: World, tmp_path: Path, where: str) -> None:
    rows = [{**prompts("ask", 1)[0]}, {"prompt": "  COUNT\n3 "}, {"prompt": "Say  3"}]
    held_out = {"path": write_rows(tmp_path / "held.jsonl", rows if "eval" in where else rows[:2])}
    target = "count" if where.endswith("sft") else "say"
    if where.startswith("validation of sft"):
        held_out = {"path": write_rows(tmp_path / "held.jsonl", [*labelled("other", 1), labelled("count", 4)[3]])}
    if where.startswith("validation of rft"):
        held_out = {"path": write_rows(tmp_path / "held.jsonl", [rows[0], rows[2]])}
    kind = where.rpartition(" ")[2]
    stages = [world.sft_stage(), world.rft_stage()]
    evals = []
    if "eval" in where:
        stages = [stage for stage in stages if stage["type"] == kind]
        evals = [world.eval_config(data=held_out)]
    else:
        stages = [{**stage, "validation": held_out} if stage["type"] == kind else stage for stage in stages]
    run = tmp_path / "run"
    with pytest.raises(OverlapError, match=rf"1 in stages\.{kind}\.data.*(?i:{target})") as refused:
        pipeline.run(world.recipe(*stages, evals=evals), run, base=world.folder)
    assert ("evals.held" if evals else f"stages.{kind}.validation") in str(refused.value)
    assert events(run)[-1]["event"] == "failed"
    for folder in ("models", "stages", "evals", "metrics.jsonl"):
        assert not (run / folder).exists()


def test_generated_problems_that_training_has_are_dropped_and_counted(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    grader = {"type": "reasoning_gym"}
    recipe = world.recipe(
        world.sft_stage(data=gym(0, 40), epochs=0.1, validation=gym(900, 30)),
        evals=[world.eval_config(data=gym(500, 60), grader=grader, samples=0)],
    )
    pipeline.run(recipe, run, base=world.folder)
    (checked,) = events(run, "held_out_checked")
    dropped = checked["dropped"]
    assert dropped["evals.held"] > 0 and dropped["stages.sft.validation"] > 0
    items = read_lines(run / "evals" / "held" / "base.jsonl")
    questions = {item["prompt"][0]["content"] for item in items}
    from sharpen.config.data import ReasoningGymData
    from sharpen.data.source import read_examples

    seen = {row.messages[0]["content"] for row in read_examples(ReasoningGymData(**gym(0, 40)), Path())}
    asked = [row.messages[0]["content"] for row in read_examples(ReasoningGymData(**gym(500, 60)), Path())]
    assert questions == set(asked) - seen
    assert len(asked) == len(items) + dropped["evals.held"]


def test_a_source_of_which_nothing_would_be_left_is_refused(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(
        world.sft_stage(data=gym(0, 20)), evals=[world.eval_config(data=gym(0, 20), grader={"type": "reasoning_gym"})]
    )
    with pytest.raises(OverlapError):
        pipeline.run(recipe, tmp_path / "run", base=world.folder)


def test_a_row_that_is_wrong_is_named_by_file_and_line_before_anything_is_trained(world: World, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [*labelled("count", 2), {"prompt": "no completion"}])
    with pytest.raises(DataError, match=r"rows\.jsonl:3"):
        pipeline.run(
            world.recipe(world.sft_stage(), world.sft_stage(name="two", data={"path": str(path)})),
            tmp_path / "run",
            base=world.folder,
        )
    assert not (tmp_path / "run" / "models").exists()
