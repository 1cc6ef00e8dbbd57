"""What `sharpen bench` measures: real steps on real rows, counted truly, and nothing left behind."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from sharpen.config.recipe import Recipe
from sharpen.errors import DataError, GraderError, ModelError
from sharpen.graders.base import grader_fault
from sharpen.models.load import Loaded
from sharpen.models.load import load as load_model
from sharpen.runs.observer import Observer
from sharpen.stages import grading, measure
from sharpen.types import Rollout
from tests.runs.lab import World, labelled, quick, write_rows

AMPLE, NONE = 1e6, 0.0  # seconds: two whole steps of everything fit, however busy the machine; or nothing does


def measured(recipe: Recipe, seconds: float = AMPLE) -> dict[str, Any]:
    return measure.measure(recipe, Path(), seconds, Observer())


@pytest.fixture
def rollouts(monkeypatch: pytest.MonkeyPatch) -> list[Rollout]:
    """All that are graded in stages, in order."""
    seen: list[Rollout] = []

    async def judge(pairs: Sequence[tuple[Any, Rollout]], pool: Any) -> Any:
        seen.extend(rollout for _, rollout in pairs)
        return await grading.judge(pairs, pool)

    monkeypatch.setattr(measure, "judge", judge)
    return seen


# How much is measured


@dataclass
class Worker:
    """Takes `pace` seconds a unit, three more the first time; knows the time."""

    pace: float = 1.0
    now: float = 0.0
    sizes: list[int] = field(default_factory=list)

    async def take(self, number: int, size: int) -> measure.Taken:
        seconds = size * self.pace + (0.0 if self.sizes else 3.0)
        self.now += seconds
        self.sizes.append(size)
        return measure.Taken(size, {"step": seconds}, {})

    def within(self, whole: int, budget: float) -> list[int]:
        done = asyncio.run(measure.within(self.take, whole, budget, lambda: self.now))
        return [taken.units for taken in done]


@pytest.mark.parametrize(
    ("whole", "budget", "did", "counted"),
    [
        (4, 100, [1, 1, 4, 4], [4, 4]),  # the first unit warms up: 4 s, then a second each
        (1, 100, [1, 1, 1, 1], [1, 1]),
        (5, 14, [1, 1, 5], [5]),  # no second step: 4 s are left for its 5 units
        (9, 13, [1, 1, 8], [8]),  # no whole step: the largest part counts
        (9, 6, [1, 1], [1]),  # a second for one more unit would teach nothing
        (9, 0, [1, 1], [1]),
    ],
)
def test_what_is_measured_fits_into_the_time(whole: int, budget: float, did: list[int], counted: list[int]) -> None:
    worker = Worker()
    assert worker.within(whole, budget) == counted
    assert worker.sizes == did
    assert worker.now <= max(budget, 5.0)


def test_a_unit_that_takes_long_is_not_done_twice_to_warm_up() -> None:
    worker = Worker(pace=10.0)
    assert worker.within(4, 5.0) == [1]
    assert worker.sizes == [1]


# A recipe's figures


def test_the_tokens_of_sft_are_those_of_its_rows(world: World, here: None) -> None:
    stage = measured(world.recipe(world.sft_stage(batch_size=12, epochs=2)))["stages"][0]
    chats = [
        f"^user\n{row['prompt']}$\n^assistant\n{row['completion']}$" for row in labelled("count", 12)
    ]  # one character, one token
    rests = stage["rests_on"]
    assert rests["computed"] == 2 * sum(map(len, chats))
    assert rests["trained"] == 2 * 12 * len("0ab$")
    assert (rests["steps"], rests["rows"], rests["sampled"], rests["extrapolated"]) == (2, 24, 0, False)
    assert stage["tokens_per_second"]["computed"] == pytest.approx(sum(map(len, chats)) / stage["seconds"]["train"])
    assert stage["tokens_per_second"]["sampled"] is None


def test_the_tokens_of_rft_are_those_that_were_sampled(world: World, here: None, rollouts: list[Rollout]) -> None:
    stage = measured(world.recipe(world.rft_stage()))["stages"][0]
    rests = stage["rests_on"]
    counted = rollouts[-rests["completions"] :]  # the first were the warm-up's
    assert rests["completions"] == 2 * 2 * 3
    assert rests["sampled"] == rests["trained"] == sum(rollout.sampled for rollout in counted)
    assert rests["cut_off"] == sum(rollout.sample.finish == "length" for rollout in counted)
    groups = [counted[place : place + 3] for place in range(0, len(counted), 3)]
    prompts = [len(group[0].segments[0].tokens) - group[0].sampled for group in groups]
    assert rests["computed"] == rests["sampled"] + sum(prompts)
    seconds, rates = stage["seconds"], stage["tokens_per_second"]
    assert rates["sampled"] == pytest.approx(rests["sampled"] / 2 / seconds["sample"])
    assert rates["trained"] == pytest.approx(rests["trained"] / 2 / seconds["train"])


def test_the_split_sums_to_the_step_and_the_forecast_to_its_parts(world: World, here: None) -> None:
    recipe = world.whole()
    result = measured(recipe)
    sft, rft = result["stages"]
    (held_out,) = result["evals"]
    assert [(stage["name"], stage["type"], stage["forecast"]["steps"]) for stage in (sft, rft)] == [
        ("sft", "sft", 6),
        ("rft", "rft", 5),
    ]
    for stage in (sft, rft):
        step = stage["seconds"]["step"]
        assert sum(spent for phase, spent in stage["seconds"].items() if phase != "step") == pytest.approx(step)
        assert stage["forecast"]["steps_seconds"] == pytest.approx(stage["forecast"]["steps"] * step)
        assert stage["forecast"]["looks"] == 2  # after 3, and at the end
        whole = stage["forecast"]["steps_seconds"] + stage["forecast"]["looks_seconds"]
        assert stage["forecast"]["seconds"] == pytest.approx(whole)
    answers = rft["seconds"]["sample"] + rft["seconds"]["grade"]  # of 6 completions; each look has 3
    assert rft["forecast"]["looks_seconds"] == pytest.approx(2 * answers * 3 / 6)
    assert held_out["forecast"]["answers"] == 5 * 2 * 3  # problems, greedy and drawn, models
    assert held_out["forecast"]["seconds"] == pytest.approx(30 * held_out["seconds"]["step"])
    forecast = sum(part["forecast"]["seconds"] for part in (sft, rft, held_out))
    assert result["forecast_seconds"] == pytest.approx(result["start_seconds"] + forecast)
    assert all(part["peak_memory_bytes"] > 1e7 for part in (sft, rft, held_out, result))


def test_without_time_one_unit_of_each_is_measured_and_called_extrapolated(
    world: World, here: None, rollouts: list[Rollout]
) -> None:
    result = measured(world.whole(), NONE)
    sft, rft = (stage["rests_on"] for stage in result["stages"])
    assert (sft["rows"], sft["steps"], sft["extrapolated"]) == (1, 1 / 4, True)
    assert (rft["prompts"], rft["completions"], rft["extrapolated"]) == (1, 3, True)
    assert len(rollouts) == 2 * 3  # one group to warm up
    assert (result["evals"][0]["rests_on"]["problems"], result["evals"][0]["rests_on"]["extrapolated"]) == (1, True)
    stage = result["stages"][0]
    assert stage["forecast"]["steps_seconds"] == pytest.approx(6 * stage["seconds"]["step"])


def test_the_last_step_counts_with_the_rows_it_has(world: World, here: None) -> None:
    stage = measured(world.recipe(world.sft_stage(batch_size=8, epochs=1)))["stages"][0]
    assert stage["forecast"]["steps"] == 2
    assert stage["forecast"]["steps_seconds"] == pytest.approx(stage["seconds"]["step"] * 12 / 8)


def test_groups_without_spread_are_trained_on_and_counted(world: World) -> None:
    with quick(lambda sample, item: 1.0):
        rests = measured(world.recipe(world.rft_stage(algorithm={"preset": "grpo"})))["stages"][0]["rests_on"]
    assert rests["groups_without_spread"] == rests["prompts"] == 4
    assert rests["trained"] == rests["sampled"] > 0


def test_threads_and_type_are_the_recipes(world: World, here: None) -> None:
    result = measured(world.recipe(world.sft_stage(), threads=1, dtype="bfloat16"), NONE)
    assert (result["threads"], result["dtype"]) == (1, "bfloat16")


def test_adapters_are_trained_and_continued(world: World, here: None) -> None:
    sft, rft = measured(world.adapted(), NONE)["stages"]
    assert sft["trains"].startswith("DoRA rank 4 on all linear layers: ")
    assert rft["trains"].startswith("DoRA rank 4 on all linear layers, continued from sft: ")


def test_episodes_are_played_in_the_environment(world: World, here: None, rollouts: list[Rollout]) -> None:
    result = measured(world.turns())
    assert result["stages"][0]["rests_on"]["sampled"] > 0
    assert all(len(rollout.sample.messages) > 1 for rollout in rollouts)
    assert result["evals"][0]["rests_on"]["problems"] == 10


# Nothing is changed


def files(*folders: Path) -> dict[Path, tuple[int, int]]:
    found = [path for folder in folders for path in folder.rglob("*")]
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


def test_nothing_is_written_and_the_model_learns_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: None
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    models: list[Loaded] = []
    before: list[dict[str, torch.Tensor]] = []

    def load(*arguments: Any) -> Loaded:
        models.append(load_model(*arguments))
        before.append({name: weight.clone() for name, weight in models[0].model.state_dict().items()})
        return models[0]

    monkeypatch.setattr(measure, "load", load)
    seen = files(world.folder, tmp_path)
    measured(world.whole())
    assert files(world.folder, tmp_path) == seen
    after = models[0].model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before[0].items())


# What a run would refuse


def test_a_grader_that_fails_is_an_error(world: World) -> None:
    with quick(lambda sample, item: grader_fault("other_error", "no key")), pytest.raises(GraderError, match="no key"):
        measured(world.recipe(world.rft_stage()))


def test_rows_that_cannot_be_used_are_errors(world: World, tmp_path: Path, here: None) -> None:
    with pytest.raises(DataError, match="max_length"):
        measured(world.recipe(world.sft_stage(max_length=5)))
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        measured(world.recipe(world.rft_stage(data={"path": str(tmp_path / "missing.jsonl")})))
    bad = write_rows(tmp_path / "bad.jsonl", [{"prompt": 3, "completion": "a"}])
    with pytest.raises(DataError, match=r"bad\.jsonl"):
        measured(world.recipe(world.sft_stage(data={"path": bad})))


def test_a_model_that_is_not_there_is_an_error(world: World, here: None) -> None:
    with pytest.raises(ModelError, match="no such model"):
        measured(world.recipe(world.sft_stage(), model="smollm3"))
