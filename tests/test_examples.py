"""The examples run, and do what they say."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from sharpen.models.load import load
from tests.tiny import tiny_model

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_rft_loop_is_short_and_raises_the_reward_of_a_tiny_model(tmp_path: Path) -> None:
    path = EXAMPLES / "rft_loop.py"
    assert len(path.read_text().splitlines()) <= 150
    spec = importlib.util.spec_from_file_location("rft_loop", path)
    assert spec and spec.loader
    example: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    loaded = load(tiny_model(tmp_path), torch.float32)
    history = asyncio.run(example.loop(loaded, steps=12, lr=1e-2, seed=0))
    assert sum(history[-3:]) > sum(history[:3]) + 0.3  # mean reward up by 0.1 or more


def test_the_guessing_game_is_an_environment_in_60_lines_in_which_a_tiny_model_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as where it is run as a script, and for the workers
    example: Any = importlib.import_module("guessing")
    text = (EXAMPLES / "guessing.py").read_text()
    assert len(text[text.index("class Guessing") : text.index("def rows")].splitlines()) <= 60
    run = example.play(
        str(tiny_model(tmp_path / "model")),
        steps=14,
        out=tmp_path / "run",
        threads=1,
        optim={"lr": 1e-2, "schedule": "constant"},
        sampling={"max_tokens": 8},
    )
    rewards = [line["reward"]["mean"] for line in run.metrics]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.3, rewards
    assert all(line["faults"] == {} for line in run.metrics)
