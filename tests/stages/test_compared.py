"""Runs that the pipeline made are comparable: seeds form an arm though each keeps its own copy of inline rows."""

from __future__ import annotations

from pathlib import Path

from sharpen.reports.comparison import compare
from sharpen.stages import pipeline
from tests.runs.lab import World, labelled, prompts, quick


def test_runs_of_a_recipe_are_one_arm_and_a_changed_setting_is_found(world: World, tmp_path: Path) -> None:
    for name, seed, lr in (("slow-1", 1, 1e-3), ("slow-2", 2, 1e-3), ("fast-1", 1, 3e-3)):
        stage = world.sft_stage(data={"type": "inline", "rows": labelled("count", 4)}, epochs=1, optim={"lr": lr})
        config = world.eval_config(data={"type": "inline", "rows": prompts("ask", 5)}, samples=0)
        recipe = world.recipe(stage, evals=[config], seed=seed)
        with quick():
            pipeline.run(recipe, tmp_path / name, base=world.folder)
    found = compare([tmp_path / name for name in ("slow-1", "slow-2", "fast-1")])
    assert [(arm.name, arm.seeds) for arm in found.arms] == [("slow", ("1", "2")), ("fast-1", ("1",))]
    assert found.differences == (("stages.sft.optim.lr", ("0.001", "0.003")),)
    assert (found.evals[0].items, found.evals[0].left_out) == (5, 0)
