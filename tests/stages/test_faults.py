"""Faults of graders: never an invented score, and a run that pauses before it starves."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharpen.errors import GraderError, Interrupted
from sharpen.graders.base import completion_fault, grader_fault
from sharpen.runs.observer import Observer
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from sharpen.types import Grade
from tests.runs.lab import World, bits, differences, events, letters, quick

DICE = "tests.stages.dice"


def rollouts(run: Path, stage: str = "rft") -> list[list[dict[str, Any]]]:
    """The lines of each step."""
    return [read_lines(path) for path in sorted((run / "rollouts" / stage).glob("*.jsonl"))]


def groups(lines: list[dict[str, Any]], size: int) -> list[list[dict[str, Any]]]:
    return [lines[start : start + size] for start in range(0, len(lines), size)]


def faulty_at(*calls: int) -> Any:
    """`letters`, with a fault of the grader at these calls (from 0)."""
    count = iter(range(10_000))

    def function(sample: dict[str, Any], item: dict[str, Any]) -> float | Grade:
        return grader_fault("other_error", "down") if next(count) in calls else letters(sample, item)

    return function


def test_faults_of_the_grader_leave_mean_and_std_and_train_nothing(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stage = world.rft_stage(prompts_per_step=3, group_size=4, steps=1, max_fault_share=0.6)
    with quick(faulty_at(0, 4, 5, 6, 8, 9)):
        pipeline.run(world.recipe(stage), run, base=world.folder)
    (line,), (step,) = read_lines(run / "metrics.jsonl"), rollouts(run)
    one, dropped, two = groups(step, 4)
    assert line["faults"] == {"other_error": 6}
    assert line["dropped_groups"] == 1
    assert [made["advantage"] for made in dropped] == [None] * 4
    for group, valid in ((one, slice(1, 4)), (two, slice(2, 4))):
        rewards = np.array([made["reward"] for made in group[valid]])
        assert np.ptp(rewards) > 0
        expected = (rewards - rewards.mean()) / rewards.std(ddof=1)
        np.testing.assert_allclose([made["advantage"] for made in group[valid]], expected)
    for made in (one[0], two[0], two[1]):
        assert made["scores"]["score"] is None and made["reward"] is None and made["advantage"] == 0
        assert made["fault"] == "other_error" and made["explanation"] == "down"
    valid_lines = [made for made in (*one, *two) if made["reward"] is not None]
    assert line["tokens"]["trained"] == sum(len(made["tokens"]) for made in valid_lines)
    scores = [made["scores"]["score"] for made in step if made["reward"] is not None]
    assert line["reward"]["by_grader"] == {"plugin": pytest.approx(np.mean(scores))}


def test_faults_of_the_completion_keep_their_score_of_zero_and_are_counted(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    count = iter(range(10_000))

    def function(sample: dict[str, Any], item: dict[str, Any]) -> float | Grade:
        return completion_fault("timeout", "slow") if next(count) % 3 == 0 else 0.1 + letters(sample, item)

    with quick(function):
        pipeline.run(world.recipe(world.rft_stage(steps=1)), run, base=world.folder)
    (line,), (step,) = read_lines(run / "metrics.jsonl"), rollouts(run)
    assert line["faults"] == {"timeout": 2}
    for group in groups(step, 3):
        assert group[0]["scores"]["score"] == 0 and group[0]["reward"] == 0 and group[0]["advantage"] < 0


def test_too_many_faults_in_a_step_pause_the_run_and_a_resume_goes_on_to_the_same_bits(
    world: World, tmp_path: Path
) -> None:
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    recipe = world.recipe(world.rft_stage(save_every=50))
    with quick():
        pipeline.run(recipe, undisturbed, base=world.folder)
    with quick(faulty_at(*range(18, 30))), pytest.raises(GraderError, match=r"6 of 6 completions.*down.*--resume"):
        pipeline.run(recipe, run, base=world.folder)
    paused = events(run)[-1]
    assert (paused["event"], paused["step"]) == ("paused", 3) and "down" in paused["cause"]
    assert [event["event"] for event in events(run)].count("paused") == 1
    assert json.loads((run / "summary.json").read_text())["status"] == "paused"
    assert events(run, "checkpoint")[-1]["step"] == 3
    with quick(faulty_at(*range(18))), pytest.raises(GraderError):
        pipeline.resume(run)
    with quick():
        pipeline.resume(run)
    assert not differences(bits(run), bits(undisturbed))


def test_a_pause_in_the_first_step_begins_anew(world: World, tmp_path: Path) -> None:
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    recipe = world.recipe(world.rft_stage())
    with quick():
        pipeline.run(recipe, undisturbed, base=world.folder)
    with quick(faulty_at(0, 1)), pytest.raises(GraderError, match="2 of 6"):
        pipeline.run(recipe, run, base=world.folder)
    with quick():
        pipeline.resume(run)
    assert not differences(bits(run), bits(undisturbed))


def test_few_faults_step_after_step_pause_the_run_as_well_also_across_a_resume(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(world.rft_stage(max_fault_steps=3, save_every=1))
    with quick(faulty_at(0, 6, 12)), pytest.raises(GraderError, match="in 3 steps running"):
        pipeline.run(recipe, tmp_path / "run", base=world.folder)
    assert events(tmp_path / "run", "checkpoint")[-1]["step"] == 2
    with quick(faulty_at(0)), pytest.raises(GraderError, match="in 3 steps running"):
        pipeline.resume(tmp_path / "run")
    with quick():
        pipeline.resume(tmp_path / "run")
    assert [line["faults"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")] == [
        *[{"other_error": 1}] * 2,
        *[{}] * 3,
    ]
    with quick(faulty_at(0, 6, 18)):  # never three running
        pipeline.run(recipe, tmp_path / "other", base=world.folder)


def test_a_failing_grader_of_an_evaluation_pauses_the_run_with_the_cause(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = world.recipe(evals=[world.eval_config()])
    with quick(faulty_at(3)), pytest.raises(GraderError, match=r"held-out item eval:4 .*down"):
        pipeline.run(recipe, run, base=world.folder)
    assert not (run / "evals").exists()
    assert events(run)[-1]["event"] == "paused" and "down" in events(run)[-1]["cause"]
    with quick():
        assert pipeline.resume(run)["base"]["evals"]["held"]["n"] == 5


def test_a_plugin_that_is_mended_lets_a_real_run_go_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = tmp_path / "orders.json"
    monkeypatch.setenv("SHARPEN_TEST_ORDERS", str(orders))
    orders.write_text(json.dumps({"fails": string.printable}))
    run = tmp_path / "run"
    stage = world.rft_stage(grader={"type": "plugin", "use": f"{DICE}:fail"}, steps=2)
    with pytest.raises(GraderError, match=r"ValueError: out of order.*dice\.py:\d+"):
        pipeline.run(world.recipe(stage), run, base=world.folder)
    assert events(run)[-1]["event"] == "paused"
    orders.write_text(json.dumps({"fails": ""}))
    assert pipeline.resume(run)["status"] == "finished"
    assert all(line["faults"] == {} for line in read_lines(run / "metrics.jsonl"))


class Stop(Observer):
    """Ends the run after a step, before its checkpoint, as if it had been killed there."""

    def metrics(self, line: Mapping[str, Any]) -> None:
        if line["step"] == 3:
            raise Interrupted("killed by the test")


def test_grades_that_cannot_be_repeated_are_those_of_before_on_resume(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stage = world.rft_stage(grader={"type": "plugin", "use": f"{DICE}:roll"}, steps=4, save_every=2)
    with pytest.raises(Interrupted):
        pipeline.run(world.recipe(stage), run, base=world.folder, observer=Stop())
    before = rollouts(run)
    lines = bits(run)["metrics.jsonl"]
    assert len(before) == 3 and events(run, "checkpoint")[-1]["step"] == 2
    pipeline.resume(run)
    assert rollouts(run)[:3] == before
    assert bits(run)["metrics.jsonl"][:3] == lines
    grades = [line["grade"]["score"] for line in read_lines(run / "journal" / "rft.jsonl")]
    assert len(grades) == 24 and grades == [made["scores"]["score"] for step in rollouts(run) for made in step]


def test_a_journaled_grade_is_not_taken_for_another_answer(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with quick(), pytest.raises(Interrupted):
        pipeline.run(world.recipe(world.rft_stage(save_every=50)), run, base=world.folder, observer=Stop())
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("seed: 3", "seed: 4"))  # as other versions would: other answers
    with quick():
        pipeline.resume(run)
    for made in (made for step in rollouts(run) for made in step):
        assert made["scores"]["score"] == letters({"output_text": made["text"]}, {})


def test_a_grader_that_fails_on_the_validation_rows_pauses_the_run_and_changes_no_bit(
    world: World, tmp_path: Path
) -> None:
    """A mean over what is left would decide which weights are best; the step is done over."""
    run, down = tmp_path / "run", True

    def function(sample: dict[str, Any], item: dict[str, Any]) -> float | Grade:
        return grader_fault("other_error", "down") if down and item["on"] == "validation" else letters(sample, item)

    rows = {name: inline_rows(world, name) for name in ("data", "validation")}
    recipe = world.recipe(world.rft_stage(steps=4, **rows))
    with quick(function):
        with pytest.raises(GraderError, match=r"at the validation rows, the grader failed on 3 of 3 .*down"):
            pipeline.run(recipe, run, base=world.folder)
        assert json.loads((run / "summary.json").read_text())["status"] == "paused"
        assert [line["step"] for line in read_lines(run / "metrics.jsonl")] == [1, 2]
        down = False
        pipeline.resume(run)
        pipeline.run(recipe, tmp_path / "undisturbed", base=world.folder)
    assert not differences(bits(run), bits(tmp_path / "undisturbed"))


def inline_rows(world: World, on: str) -> dict[str, Any]:
    """Rows that say where they are used."""
    source = {"data": world.rft, "validation": world.rft_validation}[on]["path"]
    lines = (world.folder / source).read_text().splitlines()
    return {"type": "inline", "rows": [{**json.loads(line), "on": on} for line in lines]}
