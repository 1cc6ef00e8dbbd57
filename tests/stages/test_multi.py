"""A run graded by a `multi`: each part's mean stands beside the whole's."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.runs.lab import World


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
