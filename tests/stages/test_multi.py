"""A run graded by a `multi`: each part's mean stands beside the whole's, also of a source's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.runs.lab import World, prompts


def test_the_metrics_show_every_part_of_a_multi(world: World, tmp_path: Path) -> None:
    graders = {
        "vowel": {"type": "regex", "pattern": "[aeiou]"},
        "short": {"type": "regex", "pattern": ".{0,5}", "mode": "fullmatch"},
    }
    grader = {"type": "multi", "graders": graders, "calculate_output": "0.75 * vowel + short / 4"}
    pipeline.run(world.recipe(world.rft_stage(grader=grader, steps=2)), tmp_path / "run", base=world.folder)
    for step, line in enumerate(read_lines(tmp_path / "run" / "metrics.jsonl"), 1):
        made = read_lines(tmp_path / "run" / "rollouts" / "rft" / f"step-{step:05d}.jsonl")
        texts = [entry["text"].strip() for entry in made]
        vowel = sum(any(letter in "aeiou" for letter in text) for text in texts) / len(texts)
        short = sum(len(text) <= 5 and "\n" not in text for text in texts) / len(texts)
        expected = {"multi": 0.75 * vowel + 0.25 * short, "vowel": vowel, "short": short}
        assert line["reward"]["by_grader"] == pytest.approx(expected)
        assert {*made[0]["scores"]} == {"score", "vowel", "short"}


def test_a_multi_of_a_source_shows_its_parts_and_an_environment_rewards_the_other_sources(
    world: World, tmp_path: Path
) -> None:
    parts = {"vowel": {"type": "regex", "pattern": "[aeiou]"}, "five": {"type": "regex", "pattern": "....."}}
    multi = {"type": "multi", "graders": parts, "calculate_output": "vowel + 2 * five"}
    count = {"type": "plugin", "use": "tests.stages.episodes:Count"}
    data = [{"type": "inline", "rows": prompts("one", 3)}, {"path": world.rft["path"], "grader": multi}]
    stage = world.rft_stage(data=data, steps=3, prompts_per_step=4, env=count, grader=None)
    pipeline.run(world.recipe(stage), tmp_path / "run", base=world.folder)
    graded = 0
    for step, line in enumerate(read_lines(tmp_path / "run" / "metrics.jsonl"), 1):
        made = read_lines(tmp_path / "run" / "rollouts" / "rft" / f"step-{step:05d}.jsonl")
        own = [entry for entry in made if entry["prompt"][0]["content"].startswith("one")]
        assert all(entry["scores"] == {"score": entry["env_reward"]} for entry in own)
        scores = [entry["scores"] for entry in made if entry not in own]
        assert all(score["score"] == score["vowel"] + 2 * score["five"] for score in scores)
        graded += len(scores)
        means = {"multi": "score", "vowel": "vowel", "five": "five"}
        expected = {name: mean([score[key] for score in scores]) for name, key in means.items()}
        rewards = mean([entry["env_reward"] for entry in own])
        assert line["reward"]["by_grader"] == pytest.approx({"environment": rewards, **expected})
    assert graded


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
