"""Grader functions handed over in Python: which stage or eval each is for, and those that a run cannot do without."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

from sharpen.config.graders import Plugin
from sharpen.config.recipe import Recipe
from sharpen.config.stages import RFT
from sharpen.errors import ConfigError

Functions = Mapping[str, Any]
"""Functions, or objects with `grade`, by the name of their stage or eval, or as `evals.NAME`."""

MAIN = "__main__"


def handed_over(recipe: Recipe, given: Functions) -> dict[str, Callable[..., Any]]:
    """The functions by the name of their stage, or as `evals.NAME`.

    One of the running program that is not given is taken from there. Raises ConfigError for a function that nothing is
    graded by, and where one is missing: no recipe can name what stands in a notebook or within another function.
    """
    plugins = {stage.name: stage.grader for stage in recipe.stages if isinstance(stage, RFT)}
    plugins |= {f"evals.{config.name}": config.grader for config in recipe.evals}
    found: dict[str, Callable[..., Any]] = {}
    taken: set[str] = set()
    for place, grader in plugins.items():
        if not isinstance(grader, Plugin):
            continue
        names = [name for name in (place, place.removeprefix("evals.")) if name in given]
        taken |= set(names)
        if names:
            found[place] = given[names[0]]
        elif _of_a_program(grader.use):
            found[place] = _here(place, grader.use)
    if unknown := sorted(set(given) - taken):
        known = ", ".join(place for place, grader in plugins.items() if isinstance(grader, Plugin)) or "nothing"
        raise ConfigError(
            "no stage or eval of this name is graded by a function",
            path=f"graders.{unknown[0]}",
            remedy=f"Graded by one: {known}",
        )
    return found


def _of_a_program(use: str) -> bool:
    """Whether the name is that of something no other program can import."""
    return use.startswith(f"{MAIN}:") or "<" in use or "()" in use


def _here(place: str, use: str) -> Callable[..., Any]:
    """What the running program has under the name."""
    module, _, name = use.partition(":")
    function = getattr(sys.modules.get(module), name, None) if module == MAIN else None
    if not callable(function):
        raise ConfigError(
            "the grader was handed over in Python, and nothing here has it",
            path=f"{place if place.startswith('evals.') else f'stages.{place}'}.grader",
            value=use,
            remedy=f"Go on from Python, with it: sharpen.resume(FOLDER, graders={{{place!r}: ...}})",
        )
    return cast(Callable[..., Any], function)
