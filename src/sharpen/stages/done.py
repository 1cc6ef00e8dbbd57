"""What of a run is done: the models that stand, and what has to go because it was made from one that does not."""

from __future__ import annotations

import shutil

from sharpen.config.recipe import BASE, Recipe
from sharpen.errors import CheckpointError
from sharpen.runs.manifest import verify
from sharpen.runs.store import RunDir
from sharpen.stages import starts, summary
from sharpen.stages.work import stage_folder


def done(recipe: Recipe, run: RunDir) -> set[int]:
    """The stages that have published a model which matches its manifest, and so have those it was made from."""
    found: set[int] = set()
    for index, stage in enumerate(recipe.stages):
        folder = run.path / "models" / stage.name
        if not (folder.exists() and starts.needs(recipe, index, run.path) <= found):
            continue
        try:
            verify(folder)
            found.add(index)
        except CheckpointError as error:
            run.event("alert", stage=stage.name, kind="damaged_model", message=error.describe())
    return found


def forget_all_but(done: set[int], recipe: Recipe, run: RunDir) -> None:
    """Drop the evals of models that are to be made anew, and all that was made from such a model."""
    run.kept = frozenset(recipe.stages[index].name for index in done)
    for index, stage in enumerate(recipe.stages):
        if index in done:
            continue
        for config in recipe.evals:
            summary.eval_path(run.path, config.name, stage.name).unlink(missing_ok=True)
        if not starts.needs(recipe, index, run.path) <= done:
            run.rewind(stage.name, 0)
            for folder in (run.path / "models" / stage.name, stage_folder(run.path, index, stage)):
                if folder.exists():
                    shutil.rmtree(folder)


def owed(done: set[int], recipe: Recipe, run: RunDir) -> list[int | None]:
    """The models there are that lack an eval, as stages (None: the recipe's); last the newest in any case."""
    made = [None, *(index for index in sorted(done) if recipe.stages[index].makes_policy)]

    def lacking(policy: int | None) -> bool:
        name = BASE if policy is None else recipe.stages[policy].name
        return not all(summary.eval_path(run.path, config.name, name).exists() for config in recipe.evals)

    return [*filter(lacking, made[:-1]), made[-1]]
