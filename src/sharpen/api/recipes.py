"""Recipes from Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.api.graders import Graded, Grader, checked, graded
from sharpen.api.rows import Data, source
from sharpen.config.recipe import Eval as EvalConfig
from sharpen.config.recipe import Recipe as RecipeConfig
from sharpen.config.stages import DPO as DPOConfig
from sharpen.config.stages import RFT as RFTConfig
from sharpen.config.stages import SFT as SFTConfig


def SFT(data: Data, **settings: Any) -> SFTConfig:
    """A supervised stage on labelled rows; `settings` are the fields of a recipe's `sft` stage.

    `data`, the setting `validation` and the `data` of the setting `replay` are a path, rows (dicts, a DataFrame, a
    Dataset), a recipe's `data`, or a list of such, each with its `weight`.
    Raises DataError for rows that are no plain values, with row and column, and ConfigError for wrong settings.
    """
    return checked(SFTConfig, {"data": source(data), **_sources(settings)})


def DPO(data: Data, **settings: Any) -> DPOConfig:
    """A preference stage; `settings` are the fields of a recipe's `dpo` stage, such as `loss="ipo"`.

    `data` and the setting `validation` are as for SFT, their rows pairs (`prompt`, `chosen`, `rejected`) or, for
    `loss="kto"`, single answers with a `label` (docs/preferences.md). Raises DataError and ConfigError.
    """
    return checked(DPOConfig, {"data": source(data), **_sources(settings)})


def RFT(data: Data, *, grader: Grader | None = None, **settings: Any) -> RFTConfig | Graded[RFTConfig]:
    """A reinforcement stage on prompts; `settings` are the fields of a recipe's `rft` stage.

    `grader` is a function `fn(sample, item)` that returns a number, an object with `grade(example, sample)`, or a
    recipe's grader: its fields as a mapping, or its type alone, such as "math". Functions and objects run in worker
    processes, a copy in each: what they change in themselves stays there. Only a stage whose `env` gives the reward may
    do without. `data` is as for SFT. Raises DataError and ConfigError.
    """
    return graded(RFTConfig, {"data": source(data), **_sources(settings)}, grader)


def Eval(
    data: Data, *, name: str = "held_out", grader: Grader | None = None, **settings: Any
) -> EvalConfig | Graded[EvalConfig]:
    """Held-out problems; `settings` are the fields of a recipe's eval, `data` and `grader` as for RFT.

    A score of 1 or more counts as correct. Raises DataError and ConfigError.
    """
    return graded(EvalConfig, {"name": name, "data": source(data), **settings}, grader)


class Recipe:
    """What to run; `config` is the recipe, `functions` its graders that are Python functions or objects.

    Those are named by their stage, or as `evals.NAME`.
    """

    def __init__(
        self,
        *,
        model: str,
        stages: Sequence[SFTConfig | DPOConfig | RFTConfig | Graded[RFTConfig]] = (),
        evals: Sequence[EvalConfig | Graded[EvalConfig]] = (),
        **settings: Any,
    ) -> None:
        """`settings` are a recipe's other fields (seed, threads, adapter ...). Raises ConfigError."""
        self.functions: dict[str, Any] = {s.config.name: s.grader for s in stages if isinstance(s, Graded)}
        self.functions |= {f"evals.{e.config.name}": e.grader for e in evals if isinstance(e, Graded)}
        plain = {"stages": tuple(map(_config, stages)), "evals": tuple(map(_config, evals))}
        self.config = checked(RecipeConfig, {"model": model, **plain, **settings})


def _config(part: Any) -> Any:
    return part.config if isinstance(part, Graded) else part


def _sources(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, with sources of validation and replay in any of the forms that data may have."""
    found = dict(settings)
    if found.get("validation") is not None:
        found["validation"] = source(found["validation"])
    if isinstance(replay := found.get("replay"), Mapping) and "data" in replay:
        found["replay"] = {**replay, "data": source(replay["data"])}
    return found
