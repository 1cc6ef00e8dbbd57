"""`sharpen preflight`: the trial of every RFT stage of a recipe, on one model or several, without a run.

Each model is tried as it is now. In a run, a later stage is tried on what the stages before have made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch

from sharpen.config.recipe import Recipe
from sharpen.config.stages import RFT, Probe
from sharpen.errors import ConfigError
from sharpen.models.load import compute_dtype, load
from sharpen.runs.observer import Observer
from sharpen.stages import own_graders
from sharpen.stages.attempts import pools, read
from sharpen.stages.environment import environment
from sharpen.stages.following import SharedSampler
from sharpen.stages.heldout import HeldOut
from sharpen.stages.measure import without_run
from sharpen.stages.pipeline import blocking
from sharpen.stages.probe import advice, probe
from sharpen.stages.resolve import placed
from sharpen.stages.routing import Router, all_graders, leaving


def preflight(recipe: Recipe, base: Path, models: Sequence[str], observer: Observer) -> list[dict[str, Any]]:
    """A trial for each model (the recipe's own where none is named) and RFT stage: figures, and what they mean.

    Raises ConfigError where the recipe has no RFT stage, and what a run of the recipe would.
    """
    places = [index for index, stage in enumerate(recipe.stages) if isinstance(stage, RFT)]
    if not places:
        raise ConfigError("there is no RFT stage to try", path="stages", remedy="SFT stages need no trial")
    own_graders.check_trained(recipe)
    for told in leaving(all_graders(recipe)):
        observer.event(told)
    return blocking(_all(recipe, base, models or [recipe.model], places, observer))


async def _all(
    recipe: Recipe, base: Path, models: Sequence[str], places: Sequence[int], observer: Observer
) -> list[dict[str, Any]]:
    trials = []
    for model in models:
        own = placed(recipe.model_copy(update={"model": model}), base)
        torch.set_num_threads(own.threads or 1)
        observer.event({"event": "measuring", "message": f"reading the data and loading {model}"})
        held_out = HeldOut.read(own, base, Path(gettempdir()))
        loaded = load(own.model, compute_dtype(own.dtype), own.chat_template_kwargs)
        for index in places:
            stage = own.stages[index]
            assert isinstance(stage, RFT)
            observer.event({"event": "measuring", "message": f"{model}: {stage.name}"})
            work, trains = without_run(own, index, base, loaded, held_out, observer)
            engine, sampler = work.engine(stage.steps), SharedSampler(loaded, work.ranks)
            with Router(pools(stage, work)) as pool, environment(stage.env) as env:
                await pool.start()
                if env:
                    await env.start()
                found = await probe(stage, stage.probe or Probe(), work, sampler, engine, pool, env, read(stage, work))
            trials.append({"model": model, "stage": stage.name, "trains": trains, **found, "advice": advice(found)})
    return trials
