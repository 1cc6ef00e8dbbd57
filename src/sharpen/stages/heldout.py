"""The held-out problems of a run, read and checked against all training data before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sharpen.config.data import Data, ReasoningGymData
from sharpen.config.recipe import Recipe
from sharpen.config.stages import SFT
from sharpen.data import overlap
from sharpen.data.overlap import Train
from sharpen.data.source import read_examples, read_labelled, training_keys
from sharpen.types import Example, Labelled

Row = TypeVar("Row", bound=Example | Labelled)


@dataclass
class HeldOut:
    """What training has seen, and the problems it has not."""

    train: Train
    evals: dict[str, list[Example]] = field(default_factory=dict)
    """The problems of each eval."""

    examples: dict[str, list[Example]] = field(default_factory=dict)
    """The validation prompts of each RFT stage."""

    labelled: dict[str, list[Labelled]] = field(default_factory=dict)
    """The validation rows of each SFT stage."""

    dropped: dict[str, int] = field(default_factory=dict)
    """How many generated problems of each source were dropped because training has their prompt."""

    @classmethod
    def read(cls, recipe: Recipe, base: Path) -> HeldOut:
        """Read and check every eval and validation source. Raises OverlapError."""
        found = cls(
            {
                f"stages.{stage.name}.data": training_keys(stage.data, base, labelled=isinstance(stage, SFT))
                for stage in recipe.stages
            }
        )
        for config in recipe.evals:
            found.evals[config.name] = found._keep(
                f"evals.{config.name}", read_examples(config.data, base), config.data
            )
        for stage in recipe.stages:
            name = f"stages.{stage.name}.validation"
            if stage.validation is None:
                continue
            if isinstance(stage, SFT):
                rows = read_labelled(stage.validation, base)
                found.labelled[stage.name] = found._keep(name, rows, stage.validation)
            else:
                prompts = read_examples(stage.validation, base)
                found.examples[stage.name] = found._keep(name, prompts, stage.validation)
        return found

    def _keep(self, name: str, rows: Iterable[Row], data: Data) -> list[Row]:
        """The rows no training source has: generated ones may be dropped, chosen ones are refused."""
        kept = overlap.held_out(rows, self.train, may_drop=isinstance(data, ReasoningGymData), name=name)
        self.dropped[name] = kept.dropped
        return kept.rows
