"""A stage that ends early, the weights it hands on, and a learning rate nobody named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from sharpen.config.load import parse
from sharpen.errors import ConfigError, Interrupted
from sharpen.guards.plateau import Plateau
from sharpen.runs.observer import Observer
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from sharpen.train.rate import auto_lr
from tests.runs.lab import World, bits, differences, events
from tests.runs.test_stopped import Sender

WORSE = {"eval_every": 1, "optim": {"lr": 0.5, "warmup_ratio": 0.0}}
"""So steep that the last step is not the best."""

ELSEWHERE = {"type": "inline", "rows": [{"prompt": "far", "completion": "ZZZZ"}]}
"""What training leads away from."""


@pytest.mark.parametrize(
    ("patience", "min_delta", "scores", "stops_after"),
    [
        (2, 0.0, [1, 2, 2, 1.5, 3], 4),
        (1, 0.0, [1, 2, 3], None),
        (2, 0.5, [1, 1.4, 1.4, 9], 3),  # small gains do not add up: they are counted from the last improvement
        (2, 0.5, [1, 1.4, 1.6, 1.7, 1.8], 5),
        (2, 0.0, [float("nan"), float("nan")], 2),
        (2, 0.0, [-2.0, -1.0, float("nan"), -0.5, -0.5], None),
    ],
)
def test_a_plateau_is_reached_after_so_many_looks_without_improvement(
    patience: int, min_delta: float, scores: list[float], stops_after: int | None
) -> None:
    plateau, stopped = Plateau(patience, min_delta), None
    for number, score in enumerate(scores, start=1):
        again = Plateau(patience, min_delta)
        again.restore(json.loads(json.dumps(plateau.state())))
        plateau = again
        plateau.look(score)
        if plateau.reached and stopped is None:
            stopped = number
    assert stopped == stops_after


def steps(run: Path, stage: str) -> list[int]:
    return [line["step"] for line in read_lines(run / "metrics.jsonl") if line["stage"] == stage]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    return state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.usefixtures("here")
def test_each_kind_of_stage_stops_when_validation_does_not_improve(world: World, tmp_path: Path) -> None:
    stopping = {"patience": 2, "min_delta": 99.0}
    recipe = world.recipe(
        world.sft_stage(validation=world.sft_validation, eval_every=1, early_stopping=stopping),
        world.rft_stage(validation=world.rft_validation, eval_every=1, early_stopping=stopping),
    )
    pipeline.run(recipe, tmp_path / "run", base=world.folder)
    assert (steps(tmp_path / "run", "sft"), steps(tmp_path / "run", "rft")) == ([1, 2, 3], [1, 2, 3])
    told = [(event["stage"], event["step"]) for event in events(tmp_path / "run", "early_stopped")]
    assert told == [("sft", 3), ("rft", 3)]


@pytest.mark.parametrize("stage", ["sft", "rft"])
@pytest.mark.usefixtures("here")
def test_the_best_weights_become_the_model_and_plain_transformers_reads_them(
    world: World, tmp_path: Path, stage: str
) -> None:
    made = {
        "sft": world.sft_stage(validation=ELSEWHERE, **WORSE),
        "rft": world.rft_stage(validation=world.rft_validation, **WORSE),
    }[stage]
    for final in ("last", "best"):
        recipe = world.recipe({**made, "final": final})
        pipeline.run(recipe, tmp_path / final, base=world.folder)
    best = weights(tmp_path / "last" / "stages" / f"01-{stage}" / "best")
    assert same(weights(tmp_path / "best" / "models" / stage), best)
    assert not same(weights(tmp_path / "last" / "models" / stage), best)
    lines = read_lines(tmp_path / "best" / "metrics.jsonl")
    scores = [line["validation"].get("reward", -line["validation"].get("loss", 0)) for line in lines]
    (taken,) = events(tmp_path / "best", "best_taken")
    assert taken["step"] == 1 + scores.index(max(scores)) < len(scores)


@pytest.mark.usefixtures("here")
def test_the_next_stage_starts_from_the_best_weights(world: World, tmp_path: Path) -> None:
    sft = world.sft_stage(validation=ELSEWHERE, final="best", **WORSE)
    pipeline.run(world.recipe(sft, world.rft_stage()), tmp_path / "run", base=world.folder)
    sender = Sender(15, lambda what: what == "rft 1")
    with pytest.raises(Interrupted):
        pipeline.run(world.recipe(sft, world.rft_stage()), tmp_path / "stopped", base=world.folder, observer=sender)
    pipeline.resume(tmp_path / "stopped")  # loads models/sft, which the first run had in memory
    assert not differences(bits(tmp_path / "stopped"), bits(tmp_path / "run"))


@pytest.mark.parametrize("when", ["sft 1", "sft 3", "sft 4"])
@pytest.mark.usefixtures("here")
def test_patience_outlives_a_restart(world: World, tmp_path: Path, when: str) -> None:
    stage = world.sft_stage(
        validation=world.sft_validation,
        eval_every=1,
        early_stopping={"patience": 3, "min_delta": 99.0},
        final="best",
    )
    recipe = world.recipe(stage)
    pipeline.run(recipe, tmp_path / "run", base=world.folder)
    assert steps(tmp_path / "run", "sft") == [1, 2, 3, 4]

    class Crash(Observer):
        def metrics(self, line: Mapping[str, Any]) -> None:
            if when == f"sft {line['step']}":
                raise ConfigError("out of order")

    with pytest.raises(ConfigError):
        pipeline.run(recipe, tmp_path / "stopped", base=world.folder, observer=Crash())
    pipeline.resume(tmp_path / "stopped")
    assert not differences(bits(tmp_path / "stopped"), bits(tmp_path / "run"))


@pytest.mark.usefixtures("here")
def test_a_stage_stopped_early_is_not_trained_on_when_only_its_model_is_missing(world: World, tmp_path: Path) -> None:
    stopping = {"patience": 1, "min_delta": 99.0}
    stage = world.sft_stage(validation=world.sft_validation, eval_every=1, early_stopping=stopping)
    pipeline.run(world.recipe(stage), tmp_path / "run", base=world.folder)
    before = bits(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "models")
    pipeline.resume(tmp_path / "run")
    assert not differences(bits(tmp_path / "run"), before)


@pytest.mark.parametrize("settings", [{"early_stopping": {}}, {"final": "best"}])
def test_judging_needs_rows_to_judge_by(settings: dict[str, Any]) -> None:
    stage = {"type": "sft", "data": {"path": "a"}, **settings}
    with pytest.raises(ConfigError, match="needs `validation`") as caught:
        parse({"model": "m", "stages": [stage]})
    assert caught.value.path == "stages.0"


@pytest.mark.usefixtures("here")
def test_a_rate_nobody_named_is_chosen_told_and_written_down(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(world.sft_stage(optim={}), world.rft_stage(optim={"lr": "auto", "warmup_ratio": 0.0}))
    run = tmp_path / "run"
    pipeline.run(recipe, run, base=world.folder)
    parameters = sum(tensor.numel() for name, tensor in weights(Path(world.model)).items() if name != "lm_head.weight")
    expected = {kind: auto_lr(kind, parameters, adapter=False) for kind in ("sft", "rft")}
    written = yaml.safe_load((run / "recipe.yaml").read_text())
    assert [stage["optim"]["lr"] for stage in written["stages"]] == [expected["sft"].lr, expected["rft"].lr]
    assert set(written["resolved"]) == {"versions", "hardware", "data", "graders", "starts"}
    told = [(event["stage"], event["lr"], event["message"]) for event in events(run, "lr_chosen")]
    assert told == [(name, choice.lr, choice.reason) for name, choice in expected.items()]
    peak = max(line["lr"] for line in read_lines(run / "metrics.jsonl") if line["stage"] == "rft")
    assert peak == pytest.approx(expected["rft"].lr)
    pipeline.resume(run)
    assert len(events(run, "lr_chosen")) == 2


@pytest.mark.parametrize("lr", [0, -1e-5, "high", [], ".inf"])
def test_a_rate_that_is_none_is_told_in_one_sentence(lr: Any) -> None:
    stage = {"type": "sft", "data": {"path": "a"}, "optim": {"lr": lr}}
    with pytest.raises(ConfigError, match="should be a number above 0, or auto") as caught:
        parse({"model": "m", "stages": [stage]})
    assert caught.value.path == "stages.0.optim.lr"
