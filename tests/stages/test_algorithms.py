"""Whole stages under each algorithm: what a preset does to a policy, what KL and entropy terms do, what is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sharpen.config.algorithms import PRESETS
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.runs.lab import World, events

pytestmark = pytest.mark.usefixtures("here")

STEEP = {"lr": 0.01, "warmup_ratio": 0.0, "schedule": "constant"}


def lines_of(world: World, run: Path, steps: int = 4, **stage: Any) -> list[dict[str, Any]]:
    """The metrics of a short stage whose reward is the share of lower-case letters."""
    settings = {"optim": STEEP, "steps": steps, "save_every": 99, **stage}
    pipeline.run(world.recipe(world.rft_stage(**settings)), run, base=world.folder)
    assert not events(run, "alert"), "sampler and trainer agree at the first step"
    return read_lines(run / "metrics.jsonl")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_learns_to_answer_in_letters(world: World, tmp_path: Path, preset: str) -> None:
    """Two optimiser steps a batch, so that ratios and clips are met; sampled under cuts, so that supports are too."""
    lines = lines_of(
        world,
        tmp_path / "run",
        12,
        algorithm={"preset": preset, "num_iterations": 2, "overlong_buffer": 0.0},
        sampling={"max_tokens": 8, "top_p": 0.97},
        prompts_per_step=4,
        group_size=8,
    )
    rewards = [line["reward"]["mean"] for line in lines]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1


def kl(estimator: str, coef: float) -> dict[str, Any]:
    return {"overlong_buffer": 0.0, "kl": {"estimator": estimator, "coef": coef}}


def test_the_reported_kl_depends_neither_on_the_estimator_nor_on_whether_it_is_paid_for(
    world: World, tmp_path: Path
) -> None:
    """A cost of 1e-9 a nat moves no policy; six groups, of which the metric looks at four."""
    found = {}
    for estimator, coef in (("k3", 0.0), ("k3", 1e-9), ("k2", 1e-9), ("k1_reward", 1e-9)):
        run = tmp_path / f"{estimator}-{coef}"
        lines = lines_of(world, run, 3, algorithm=kl(estimator, coef), prompts_per_step=6)
        found[estimator, coef] = [line["kl"] for line in lines]
    free = found["k3", 0.0]
    assert free[0] < 1e-9 and free[2] > 1e-3
    for values in found.values():
        assert values == pytest.approx(free, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("estimator", ["k1_reward", "k2", "k3"])
def test_a_policy_that_pays_for_straying_stays_nearer(world: World, tmp_path: Path, estimator: str) -> None:
    ends = []
    for coef in (0.0, 2.0):
        lines = lines_of(world, tmp_path / str(coef), 8, algorithm=kl(estimator, coef), group_size=8)
        ends.append(sum(line["kl"] for line in lines[-3:]) / 3)
    assert ends[1] < 0.8 * ends[0]


def test_an_entropy_bonus_keeps_the_policy_more_open(world: World, tmp_path: Path) -> None:
    ends = [
        lines_of(
            world, tmp_path / str(coef), 8, algorithm={"overlong_buffer": 0.0, "entropy_coef": coef}, group_size=8
        )[-1]["entropy"]
        for coef in (0.0, 1.0)
    ]
    assert ends[1] > ends[0] + 0.1
