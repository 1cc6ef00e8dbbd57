"""A tiny model learns to ask its tool before it answers: both turns are trained, from sampling to the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sharpen.config.optim import Optim
from sharpen.data.render import Renderer
from sharpen.models.load import load, save
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from sharpen.train.engine import Engine
from sharpen.train.losses import CrossEntropy
from sharpen.types import Labelled, Message
from tests.runs.lab import World, bits, differences, prompts, quick
from tests.tiny import tiny_model

CALL = '<tool_call>{"name": "ask", "arguments": {}}</tool_call>'


def ask() -> str:
    """The tool: it knows the answer."""
    return "7"


def told(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """1 when the last turn repeats what the tool said; a guess earns nothing, however right."""
    replies = [message["content"] for message in sample["messages"] if message["role"] == "tool"]
    return float(bool(replies) and sample["output_text"] == replies[-1])


def talk(*turns: tuple[str, str]) -> tuple[Message, ...]:
    return tuple({"role": role, "content": content} for role, content in turns)


@pytest.fixture(scope="module")
def hesitant(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world whose model calls the tool about once in three times, and else guesses."""
    world = World(tmp_path_factory.mktemp("world"))
    loaded = load(tiny_model(world.folder / "blank", num_hidden_layers=1, initializer_range=0.1), torch.float32)
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    rows = [
        renderer.labelled(Labelled(row["prompt"], messages, trained), 500)
        for row in prompts("say", 8)
        for messages, trained in (
            (talk(("user", row["prompt"]), ("assistant", CALL), ("tool", "7"), ("assistant", "7")), (1, 3)),
            (talk(("user", row["prompt"]), ("assistant", "9")), (1,)),
            (talk(("user", row["prompt"]), ("assistant", "4")), (1,)),
        )
    ]
    engine = Engine(loaded.model, Optim(lr=1.5e-2, schedule="constant", warmup_ratio=0.0), 40, 8192)
    for _ in range(40):
        engine.step(rows, CrossEntropy())
    save(loaded.model, loaded.tokenizer, Path(world.model), loaded.dtype)
    return world


def test_a_tiny_model_learns_to_ask_its_tool_and_does_so_again_bit_by_bit(hesitant: World, tmp_path: Path) -> None:
    stage = hesitant.rft_stage(
        env={"type": "tools", "use": f"{__name__}:ask", "announce": False},
        steps=8,
        prompts_per_step=4,
        group_size=8,
        sampling={"max_tokens": 70},
        optim={"lr": 3e-3, "schedule": "constant", "warmup_ratio": 0.0},
    )
    recipe = hesitant.recipe(stage)
    with quick(told):
        pipeline.run(recipe, tmp_path / "run", base=hesitant.folder)
    rewards = [line["reward"]["mean"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")]
    assert 0.1 < rewards[0] < 0.6, rewards
    assert sum(rewards[-3:]) / 3 > rewards[0] + 0.25, rewards
    lines = read_lines(tmp_path / "run" / "rollouts" / "rft" / "step-00008.jsonl")
    won = [line for line in lines if line["reward"] == 1]
    assert all([turn["role"] for turn in line["messages"]] == ["assistant", "tool", "assistant"] for line in won)
    with quick(told):
        pipeline.run(recipe, tmp_path / "again", base=hesitant.folder)
    assert not differences(bits(tmp_path / "run"), bits(tmp_path / "again"))
