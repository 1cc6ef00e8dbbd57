"""`--resume DIR --set ...`: what of a run's recipe may change while it goes on, and what that undoes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sharpen.config.graders.remote import HOW_ASKED, Remote
from sharpen.config.load import load
from sharpen.config.recipe import Recipe
from sharpen.errors import ConfigError
from sharpen.runs.store import read_lines
from sharpen.stages import starts

MAY_CHANGE = (
    "steps",
    "epochs",
    "eval_every",
    "save_every",
    "keep_last",
    "keep_every",
    "early_stopping",
    "final",
    "probe",
    "max_fault_share",
    "max_fault_steps",
    "tokens_per_microbatch",
)
"""Fields of a stage that only say how far it goes, what is looked at, and when it halts; the last of them
changes results by rounding alone."""

REOPENS = ("steps", "epochs", "early_stopping", "final")
"""Those that say which weights a stage that is done should have come to."""

RUN_MAY_CHANGE = ("report_to",)


class Change(NamedTuple):
    """A value of the recipe, then and now; `path` such as `stages.1.steps`."""

    path: str
    before: Any
    after: Any


def extended(recipe: Recipe, run: Path, overrides: Sequence[str]) -> tuple[Recipe, list[Change]]:
    """The recipe of the run in `run` with the overrides, and what they change.

    Raises ConfigError for a value that the steps already done were made with, listing what may change.
    """
    wanted = load(run / "recipe.yaml", overrides)
    changes = list(_changes(recipe.model_dump(mode="json"), wanted.model_dump(mode="json")))
    begun = {line["stage"]: line["step"] for line in read_lines(run / "metrics.jsonl")}
    for change in changes:
        kind, _, rest = change.path.partition(".")
        place, _, field = rest.partition(".")
        field = field.partition(".")[0]
        if _how_asked(recipe, change.path):
            continue
        if not (kind in RUN_MAY_CHANGE or (kind == "stages" and field in MAY_CHANGE)):
            raise _refused(change, run, "a run that goes on keeps this: what is done was made with it")
        if kind == "stages":
            _check_stage(recipe, int(place), field, change, begun, run)
    return wanted, changes


def reopen_models(recipe: Recipe, run: Path, changes: Sequence[Change]) -> None:
    """Drop the model of a stage that is to come to other weights; its last checkpoint holds those it had."""
    for change in changes:
        kind, place, field, *_ = (*change.path.split("."), "", "")
        if kind == "stages" and field in REOPENS:
            shutil.rmtree(run / "models" / recipe.stages[int(place)].name, ignore_errors=True)


def _check_stage(recipe: Recipe, index: int, field: str, change: Change, begun: Mapping[str, int], run: Path) -> None:
    """Raise ConfigError when a later stage stands on this one's weights, or the stage is past its new end."""
    name = recipe.stages[index].name
    on_it = (other.name for place, other in enumerate(recipe.stages) if index in starts.needs(recipe, place, run))
    later = next((other for other in on_it if other in begun), None)
    if later:
        raise _refused(change, run, f"{name} is done, and {later} has begun from its model")
    done = begun.get(name, 0)
    if field == "steps" and change.after < done:
        raise _refused(change, run, f"{name} has done {done} steps already")
    if field == "epochs" and done and change.after < change.before:
        raise _refused(change, run, f"{name} has begun, so its epochs can only grow")


def _how_asked(recipe: Recipe, path: str) -> bool:
    """Whether the path is that of how a grader's server is asked, such as `stages.0.grader.budget.tokens`."""
    found: Any = recipe
    for name in path.split("."):
        if isinstance(found, Remote) and name in HOW_ASKED:
            return True
        match found:
            case tuple():
                found = found[int(name)]
            case dict():
                found = found.get(name)
            case _:
                found = getattr(found, name, None)
    return False


def _refused(change: Change, run: Path, fact: str) -> ConfigError:
    asked = ", ".join(HOW_ASKED)
    may = ", ".join((*(f"stages.N.{name}" for name in MAY_CHANGE), *RUN_MAY_CHANGE, f"of judges and endpoints {asked}"))
    return ConfigError(
        fact,
        path=change.path,
        value=change.after,
        remedy=f"May change: {may}. For anything else start a new run: "
        f"sharpen run {run / 'recipe.yaml'} --out DIR --set {change.path}=...",
    )


def _changes(before: Any, after: Any, path: tuple[str, ...] = ()) -> Iterator[Change]:
    """The innermost values that differ; lists of equal length are compared item by item."""
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = {key: (before.get(key), after.get(key)) for key in (*before, *after)}
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = {str(index): pair for index, pair in enumerate(zip(before, after, strict=True))}
    else:
        if before != after:
            yield Change(".".join(path), before, after)
        return
    for key, (one, other) in pairs.items():
        yield from _changes(one, other, (*path, key))
