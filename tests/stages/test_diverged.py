"""Steps whose loss or gradient is not finite change nothing; three running end the run; nothing broken is saved."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sharpen.errors import DivergedError
from sharpen.runs.observer import Observer
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from sharpen.train import backward, engine
from tests.runs.lab import World, bits, events

pytestmark = pytest.mark.usefixtures("here")


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int], value: float, *, gradient: bool = False) -> None:
    """From now on the forward passes of these engine steps (from 1) give `value`, or that as their gradient."""
    counts: list[int] = [0]
    original_step, original_forward = engine.Engine.step, backward.forward

    def step(self: engine.Engine, *arguments: Any, **options: Any) -> engine.StepResult:
        counts[0] += 1
        return original_step(self, *arguments, **options)

    def forward(model: Any, batch: Any, *rest: Any) -> Any:
        predictions = original_forward(model, batch, *rest)
        if counts[0] not in steps or not predictions.logprobs.requires_grad:
            return predictions
        factor = torch.tensor(value)
        if not gradient:
            return predictions._replace(logprobs=predictions.logprobs * factor)
        predictions.logprobs.register_hook(lambda gradients: gradients * factor)
        return predictions

    monkeypatch.setattr(engine.Engine, "step", step)
    monkeypatch.setattr(backward, "forward", forward)


def everything_saved_is_finite(run: Path) -> bool:
    files = list(run.rglob("*.safetensors"))
    return bool(files) and all(bool(tensor.isfinite().all()) for file in files for tensor in load_file(file).values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("kind", ["sft", "rft"])
def test_a_poisoned_step_is_skipped_and_leaves_the_weights_as_they_were(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, value: float, gradient: bool
) -> None:
    weights: list[list[torch.Tensor]] = []

    class Keep(Observer):
        def metrics(self, line: Mapping[str, Any]) -> None:
            weights.append([parameter.detach().clone() for parameter in engines[-1].parameters])

    engines: list[engine.Engine] = []
    original = engine.Engine.__init__

    def init(self: engine.Engine, *arguments: Any) -> None:
        original(self, *arguments)
        engines.append(self)

    monkeypatch.setattr(engine.Engine, "__init__", init)
    poison(monkeypatch, {2, 3}, value, gradient=gradient)
    stage = world.sft_stage(save_every=1) if kind == "sft" else world.rft_stage(save_every=1)
    run = tmp_path / "run"
    pipeline.run(world.recipe(stage), run, base=world.folder, observer=Keep())
    lines = read_lines(run / "metrics.jsonl")
    assert [line.get("skipped", False) for line in lines[:4]] == [False, True, True, False]
    assert lines[1]["loss"] is None or lines[1]["grad_norm"] is None
    same = [all(map(torch.equal, before, after)) for before, after in pairwise(weights)]
    assert same[:3] == [True, True, False]
    assert everything_saved_is_finite(run)


@pytest.mark.parametrize("kind", ["sft", "rft"])
def test_three_poisoned_steps_running_end_the_run_with_the_cause(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    stage = world.sft_stage(save_every=1) if kind == "sft" else world.rft_stage(save_every=1)
    pipeline.run(world.recipe(stage), undisturbed, base=world.folder)
    with monkeypatch.context() as patched:
        poison(patched, {3, 4, 5}, math.nan)
        with pytest.raises(DivergedError, match=r"3 steps running.*optim\.lr"):
            pipeline.run(world.recipe(stage), run, base=world.folder)
    failed = events(run)[-1]
    assert failed["event"] == "failed" and "not finite for 3 steps running" in failed["cause"]
    assert json.loads((run / "summary.json").read_text())["status"] == "failed"
    assert not (run / "models").exists()
    assert everything_saved_is_finite(run)
    pipeline.resume(run)  # the cause is gone, but the skipped steps of the checkpoint stay skipped
    assert events(run)[-1]["event"] == "finished"
    assert bits(run)["metrics.jsonl"][:2] == bits(undisturbed)["metrics.jsonl"][:2]


@pytest.mark.parametrize("batch_size", [24, 4])  # in the only step; in the first of six
def test_weights_that_a_step_has_broken_are_neither_published_nor_saved(
    world: World, tmp_path: Path, batch_size: int
) -> None:
    run = tmp_path / "run"
    stage = world.sft_stage(batch_size=batch_size, save_every=1, optim={"lr": 1e300, "warmup_ratio": 0.0})
    with pytest.raises(DivergedError, match="weights are no longer finite"):
        pipeline.run(world.recipe(stage), run, base=world.folder)
    assert events(run)[-1]["event"] == "failed"
    assert not list(run.rglob("*.safetensors"))


def test_a_learning_rate_far_too_high_never_leaves_a_broken_checkpoint(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stages = [
        world.sft_stage(save_every=1, optim={"lr": 1e30}, validation=world.sft_validation, eval_every=1),
        world.rft_stage(save_every=1, optim={"lr": 1e300}, validation=world.rft_validation, eval_every=1),
    ]
    for number, stage in enumerate(stages):
        with pytest.raises(DivergedError):
            pipeline.run(world.recipe(stage), run / str(number), base=world.folder)
        assert events(run / str(number))[-1]["event"] == "failed"
    assert all(
        bool(tensor.isfinite().all()) for file in run.rglob("*.safetensors") for tensor in load_file(file).values()
    )
