"""A run's rollouts, graded anew: rows are found again, and figures are those of the files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import ConfigError, RunError
from sharpen.lab import regrade as lab
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.lab.inprocess import InProcess, graders
from tests.runs.lab import World, prompts, quick, write_rows

LETTERS = {"type": "plugin", "use": "tests.runs.lab:letters"}
ANXIOUS = {"type": "plugin", "use": "tests.lab.inprocess:anxious"}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "GraderPool", InProcess)


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    with quick():
        pipeline.run(world.recipe(world.rft_stage(steps=3)), folder, base=world.folder)
    return folder


def regraded(run: Path, grader: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = asyncio.run(lab.regrade(run, graders(grader)[""], **more))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_the_runs_own_grader_says_again_what_it_said(run: Path) -> None:
    found = regraded(run, LETTERS)
    assert (found["stage"], found["steps"], found["n"], found["unmatched"]) == ("rft", 3, 18, 0)
    assert found["kendall"] == found["spearman"] == pytest.approx(1.0)
    assert found["groups"]["changed"] == 0 and found["groups"]["n"] == 6
    assert found["before"] == found["after"]
    for step, line in enumerate(found["by_step"], 1):
        lines = read_lines(run / "rollouts" / "rft" / f"step-{step:05d}.jsonl")
        mean = sum(one["scores"]["score"] for one in lines) / len(lines)
        assert (line["step"], line["n"], line["before"], line["after"]) == (
            step,
            6,
            pytest.approx(mean),
            line["before"],
        )


def test_the_opposite_grader_turns_all_pairs_round(run: Path) -> None:
    found = regraded(run, ANXIOUS)
    assert found["kendall"] == pytest.approx(-1.0)
    pairs = found["groups"]["pairs"]
    assert pairs["reversed"] > 0 and pairs["same"] == pairs["tied"] == pairs["parted"] == 0
    assert found["groups"]["changed"] == found["groups"]["teaches"]["before"] == found["groups"]["teaches"]["after"]
    assert found["mean"]["after"] == pytest.approx(-found["mean"]["before"])
    assert found["before"]["version"] != found["after"]["version"]
    assert (found["before"]["name"], found["after"]["type"]) == ("plugin", "plugin")


def test_the_new_grader_reads_the_rows_of_the_runs_own_data(run: Path, world: World) -> None:
    answers = {row["prompt"]: row["answer"] for row in prompts("say", 8)}
    found = regraded(run, {"type": "string_check", "operation": "like"})
    lines = [line for path in sorted((run / "rollouts" / "rft").iterdir()) for line in read_lines(path)]
    right = [answers[line["prompt"][0]["content"]] in line["text"] for line in lines]
    assert found["mean"]["after"] == pytest.approx(sum(right) / len(right))
    assert found["flips"]["wrong_to_right"] + found["flips"]["right_both"] == sum(right)
    assert regraded(run, {"type": "string_check", "operation": "like"}, threshold=2.0)["flips"]["wrong_to_right"] == 0


def test_steps_may_be_cut_and_stages_named(run: Path) -> None:
    assert [one["step"] for one in regraded(run, LETTERS, limit=2)["by_step"]] == [1, 2]
    assert regraded(run, LETTERS, stage="rft")["n"] == 18
    with pytest.raises(
        ConfigError, match=r"--stage: the run has no rollouts of this stage \(got 'sft'\).*those of rft"
    ):
        regraded(run, LETTERS, stage="sft")


def test_the_new_graders_faults_are_counted(run: Path) -> None:
    found = regraded(run, {"type": "string_check", "reference": "{{ item.missing }}"})
    assert found["faults"]["after"]["grader"] == {"invalid_variable_error": 18} and found["compared"] == 0


def test_a_row_that_a_step_has_twice_makes_two_groups_and_sources_graders_step_aside(
    world: World, tmp_path: Path
) -> None:
    own = {"type": "plugin", "use": "tests.runs.lab:letters", "name": "own"}
    data = {"path": write_rows(tmp_path / "one.jsonl", prompts("only", 1)), "grader": own}
    stage = world.rft_stage(data=data, steps=1, grader=LETTERS)
    with quick():
        pipeline.run(world.recipe(stage), tmp_path / "run", base=world.folder)
    found = regraded(tmp_path / "run", {"type": "regex", "pattern": "[a-z]"})
    assert (found["groups"]["n"], found["n"], found["unmatched"]) == (2, 6, 0)
    assert found["before"]["name"] == "plugin, own"


def test_episodes_are_graded_with_their_turns(world: World, tmp_path: Path) -> None:
    with quick():
        pipeline.run(world.turns(), tmp_path / "run", base=world.folder)
    found = regraded(tmp_path / "run", {"type": "plugin", "use": "tests.lab.inprocess:turns"})
    lines = [line for path in sorted((tmp_path / "run/rollouts/rft").iterdir()) for line in read_lines(path)]
    turns = [len(line["messages"]) for line in lines if line["scores"]["score"] is not None]
    assert found["unmatched"] == 0 and found["mean"]["after"] == pytest.approx(sum(turns) / len(turns)) and turns[0]
    assert found["before"]["name"] == "environment"


def test_data_that_is_not_what_it_was_is_refused(world: World, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    stage = world.rft_stage(data={"path": write_rows(path, prompts("say", 4))}, steps=1)
    with quick():
        pipeline.run(world.recipe(stage), tmp_path / "run", base=world.folder)
    write_rows(path, prompts("say", 5))
    with pytest.raises(RunError, match=r"data changed since the run began \(got 'stages\.rft\.data'\)"):
        regraded(tmp_path / "run", LETTERS)


def test_what_is_no_run_or_kept_no_rollouts_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run"):
        regraded(tmp_path, LETTERS)
    with quick():
        pipeline.run(world.recipe(world.sft_stage(epochs=1)), tmp_path / "run", base=world.folder)
    with pytest.raises(RunError, match="the run has no rollouts"):
        regraded(tmp_path / "run", LETTERS)
