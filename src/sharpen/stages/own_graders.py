"""Graders that name a reward model of their own recipe: that of a stage before them, which a run has yet to make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpen.config.base import Config, replaced
from sharpen.config.graders import RewardModel
from sharpen.config.recipe import Recipe
from sharpen.errors import ConfigError


def named(recipe: Recipe, run: Path) -> Recipe:
    """The recipe in which such graders name the folder that the model will be in, `run` being the run's directory.

    Raises ConfigError where the stage does not come before the grader's; the base model, for one, is evaluated first.
    """
    folders = {name: str((run / "models" / name).resolve()) for name in _reward_models(recipe)}
    stages = []
    for index, stage in enumerate(recipe.stages):
        later = {other.name for other in recipe.stages[index:]} & folders.keys()
        _refuse(stage, later, f"stages.{stage.name}", "does not come before this stage", "Put that stage before it")
        stages.append(_with(stage, folders))
    for config in recipe.evals:
        fact = "is trained by this run, and the base model is evaluated before"
        _refuse(config, set(folders), f"evals.{config.name}", fact, "Train it in a run of its own, and name its folder")
    return recipe.model_copy(update={"stages": tuple(stages)})


def check_trained(recipe: Recipe) -> None:
    """Raise ConfigError where a grader's model is yet to be trained: without a run there is none."""
    for stage in recipe.stages:
        fact = "is trained by this recipe, and there is no run yet"
        remedy = "Train it in a run of its own, and name RUN/models/STAGE as the grader's model"
        _refuse(stage, _reward_models(recipe), f"stages.{stage.name}", fact, remedy)


def _reward_models(recipe: Recipe) -> set[str]:
    return {stage.name for stage in recipe.stages if not stage.makes_policy}


def _refuse(value: Any, names: set[str], path: str, fact: str, remedy: str) -> None:
    """Raise ConfigError where a grader anywhere in a config has the model of one of these stages."""
    found = next((name for name in sorted(names) if _with(value, {name: ""}) != value), None)
    if found:
        raise ConfigError(f"the grader's reward model {fact}", path=path, value=found, remedy=remedy)


def _with(value: Any, folders: Mapping[str, str]) -> Any:
    """The config, in which graders that name a stage have its folder."""

    def placed(config: Config) -> Config:
        if isinstance(config, RewardModel) and config.model in folders:
            return config.model_copy(update={"model": folders[config.model]})
        return config

    return replaced(value, placed)
