"""The held-out problems of a run, read and checked against all training data before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sharpen.config.data import Data, ReasoningGymData, sources
from sharpen.config.recipe import Recipe
from sharpen.config.stages import RFT, SFT
from sharpen.data import overlap
from sharpen.data.corpus import Corpus
from sharpen.data.source import read_examples, read_labelled, training_keys
from sharpen.types import Example, Labelled

Row = TypeVar("Row", bound=Example | Labelled)


@dataclass
class HeldOut:
    """What training has seen, and the problems it has not."""

    train: dict[str, set[bytes]] = field(default_factory=dict)
    """The held-out keys that the training rows of each source have."""

    evals: dict[str, list[Example]] = field(default_factory=dict)
    """The problems of each eval."""

    examples: dict[str, list[Example]] = field(default_factory=dict)
    """The validation prompts of each RFT stage."""

    labelled: dict[str, list[Labelled]] = field(default_factory=dict)
    """The validation rows of each SFT stage."""

    rows: dict[str, Corpus] = field(default_factory=dict)
    """The training rows of each SFT stage, outside memory."""

    dropped: dict[str, int] = field(default_factory=dict)
    """How many generated problems of each source were dropped because training has their prompt."""

    @classmethod
    def read(cls, recipe: Recipe, base: Path, aside: Path) -> HeldOut:
        """Read and check every source; SFT's training rows are kept in the folder `aside`.

        Training rows are streamed past the keys of the held-out ones, so their number costs no memory. Raises
        DataError for the first bad row of any source, and OverlapError.
        """
        found = cls()
        for config in recipe.evals:
            found.evals[config.name] = list(read_examples(config.data, base))
        for stage in recipe.stages:
            if stage.validation is None:
                continue
            if isinstance(stage, SFT):
                found.labelled[stage.name] = list(read_labelled(stage.validation, base))
            else:
                found.examples[stage.name] = list(read_examples(stage.validation, base))
        kinds = (found.evals, found.examples, found.labelled)
        wanted = {key for kind in kinds for rows in kind.values() for row in rows for key in overlap.keys(row)}
        for stage in recipe.stages:
            found._scan(stage, base, wanted, aside)
        for config in recipe.evals:
            name = f"evals.{config.name}"
            found.evals[config.name] = found._keep(name, found.evals[config.name], config.data)
        for stage in recipe.stages:
            name = f"stages.{stage.name}.validation"
            if stage.validation is None:
                continue
            if isinstance(stage, SFT):
                found.labelled[stage.name] = found._keep(name, found.labelled[stage.name], stage.validation)
            else:
                found.examples[stage.name] = found._keep(name, found.examples[stage.name], stage.validation)
        return found

    def _scan(self, stage: SFT | RFT, base: Path, wanted: set[bytes], aside: Path) -> None:
        """Look through a stage's training rows once: which held-out keys they have, and, for SFT, set them aside."""
        name = f"stages.{stage.name}.data"
        if not isinstance(stage, SFT):
            self.train[name] = training_keys(stage.data, base, labelled=False, among=wanted)
            return
        rows = self.rows[stage.name] = Corpus(aside)
        seen: set[bytes] = set()
        for row in read_labelled(stage.data, base):
            rows.append(row)
            if wanted:
                seen.update(key for key in overlap.keys(row) if key in wanted)
        for source in sources(stage.data):
            if isinstance(source, ReasoningGymData):  # its bare questions too, which labelled rows do not carry
                seen |= training_keys(source, base, labelled=True, among=wanted)
        self.train[name] = seen

    def _keep(self, name: str, rows: Iterable[Row], data: Data) -> list[Row]:
        """The rows no training source has: generated ones may be dropped, chosen ones are refused."""
        generated = all(isinstance(source, ReasoningGymData) for source in sources(data))
        kept = overlap.held_out(rows, self.train, may_drop=generated, name=name)
        self.dropped[name] = kept.dropped
        return kept.rows
