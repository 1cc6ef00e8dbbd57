"""The model that a user means: besides aliases, folders and hub ids a run's directory stands for its final model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sharpen.errors import ConfigError, ModelError
from sharpen.models.registry import ALIASES
from sharpen.runs.store import read_lines, resume_command

REWARD_MODEL = "reward_model"
"""The type of the stages whose models write no text; they are meant only where a run has no others."""

RUNS = Path("runs")
"""Where runs are written by default."""


def named(name: str) -> str:
    """What `models.load` takes: of a run's directory the model of its last finished stage, else the name as it is.

    Raises ModelError where the run has no model yet.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        _suggest_run(name)
        return name
    recipe = _recipe(folder)
    if recipe is None:
        return name
    stages = recipe.get("stages") or ()
    made = [stage for stage in stages if _is_model(folder / "models" / str(stage["name"]))]
    if made:
        last = next((stage for stage in reversed(made) if stage.get("type") != REWARD_MODEL), made[-1])
        return str(folder / "models" / str(last["name"]))
    if not stages:
        return str(recipe["model"])
    raise ModelError(
        "the run has no model yet: none of its stages is finished",
        value=name,
        remedy=f"Finish it: {resume_command(folder)}; until then, what it began with is {recipe['model']}",
    )


def base_of(name: str) -> str:
    """The model that a run, or the run a model is from, began with. Raises ConfigError where that is not known."""
    folder = Path(name).expanduser()
    for run in (folder, folder.resolve().parent.parent):
        if folder.is_dir() and (recipe := _recipe(run)) is not None:
            return str(recipe["model"])
    raise ConfigError(
        "nothing says which model this one was trained from, as it is in no run's directory",
        value=name,
        remedy="Name the other model",
    )


def system_of(name: str) -> str:
    """The system message with which every held-out problem of a run begins; empty where they have none in common.

    Also for a model of the run: it was trained under that message, and knows nothing of what was asked without it.
    """
    folder = Path(name).expanduser()
    for run in (folder, folder.resolve().parent.parent):
        if folder.is_dir() and _recipe(run) is not None:
            prompts = [line["prompt"] for path in run.glob("evals/*/base.jsonl") for line in read_lines(path)]
            said = {turns[0]["content"] if turns[0]["role"] == "system" else "" for turns in prompts}
            return str(said.pop()) if len(said) == 1 else ""
    return ""


def unfinished(name: str) -> str:
    """The names of a run's stages that have no model yet, or nothing."""
    recipe = _recipe(Path(name).expanduser())
    stages = [str(stage["name"]) for stage in (recipe or {}).get("stages") or ()]
    return ", ".join(stage for stage in stages if not _is_model(Path(name).expanduser() / "models" / stage))


def _is_model(folder: Path) -> bool:
    """Models are renamed into place whole, so a folder with a configuration is one."""
    return (folder / "config.json").is_file()


def _recipe(folder: Path) -> dict[str, Any] | None:
    """The recipe of a run's directory; None where it is none."""
    path = folder / "recipe.yaml"
    if not path.is_file() or _is_model(folder):
        return None
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ModelError(
            f"the run's recipe cannot be read: {' '.join(str(error).split())}",
            value=str(path),
            remedy="Name the model's own folder, such as RUN/models/STAGE",
        ) from error
    return found if isinstance(found, dict) and "model" in found else None


def _suggest_run(name: str) -> None:
    """Raise ModelError where this is the name of a run, and of nothing else."""
    run = RUNS / name
    if name not in ALIASES and "/" not in name and (run / "recipe.yaml").is_file():
        raise ModelError("no such model", value=name, remedy=f"Did you mean the run {str(run)!r}?")
