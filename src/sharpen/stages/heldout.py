"""The held-out problems of a run, read and checked against all training data before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sharpen.config.data import Data, ReasoningGymData, sources
from sharpen.config.recipe import Recipe
from sharpen.config.stages import DPO, RFT, SFT, AnyStage, RewardModeling
from sharpen.data import overlap
from sharpen.data.corpus import Corpus
from sharpen.data.mix import Mix, Stream
from sharpen.data.source import read_answers, read_examples, read_labelled, read_pairs, training_keys
from sharpen.types import Example, Labelled, Preference

Row = TypeVar("Row", Example, Labelled | Preference)


def rows_of(stage: SFT | DPO | RewardModeling, data: Data, base: Path) -> Iterator[Labelled | Preference]:
    """The rows of a stage that imitates or compares: labelled, pairs, or single answers. Raises DataError."""
    if isinstance(stage, SFT):
        return read_labelled(data, base)
    paired = isinstance(stage, RewardModeling) or stage.loss.paired
    return read_pairs(data, base) if paired else read_answers(data, base)


@dataclass
class HeldOut:
    """What training has seen, and the problems it has not."""

    train: dict[str, set[bytes]] = field(default_factory=dict)
    """The held-out keys that the training rows of each source have."""

    evals: dict[str, list[Example]] = field(default_factory=dict)
    """The problems of each eval."""

    examples: dict[str, list[Example]] = field(default_factory=dict)
    """The validation prompts of each RFT stage."""

    labelled: dict[str, list[Labelled | Preference]] = field(default_factory=dict)
    """The validation rows of each other stage."""

    rows: dict[str, Corpus] = field(default_factory=dict)
    """The training rows of each stage but RFT, outside memory."""

    mixes: dict[str, Mix] = field(default_factory=dict)
    """In which order each stage sees its training rows."""

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
            if isinstance(stage, RFT):
                found.examples[stage.name] = list(read_examples(stage.validation, base))
            else:
                found.labelled[stage.name] = list(rows_of(stage, stage.validation, base))
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
            if isinstance(stage, RFT):
                found.examples[stage.name] = found._keep(name, found.examples[stage.name], stage.validation)
            else:
                found.labelled[stage.name] = found._keep(name, found.labelled[stage.name], stage.validation)
        return found

    def _scan(self, stage: AnyStage, base: Path, wanted: set[bytes], aside: Path) -> None:
        """Look through a stage's training rows once: how many there are, and which held-out keys they have.

        All but RFT's are set aside.
        """
        if not isinstance(stage, RFT):
            self.rows[stage.name] = Corpus(aside)
        replay = stage.replay if isinstance(stage, SFT) else None
        own = self._look(stage, "data", stage.data, base, wanted)
        general = self._look(stage, "replay.data", replay.data, base, wanted) if replay else ()
        self.mixes[stage.name] = Mix(own, general, replay.share if replay else 0.0)

    def _look(self, stage: AnyStage, place: str, data: Data, base: Path, wanted: set[bytes]) -> tuple[Stream, ...]:
        """Look through the rows at a place of a stage; returns the streams that they make."""
        seen: set[bytes] = set()
        streams: list[Stream] = []
        for number, source in enumerate(sources(data)):
            count = 0
            for row in read_examples(source, base) if isinstance(stage, RFT) else rows_of(stage, source, base):
                count += 1
                if not isinstance(row, Example):
                    self.rows[stage.name].append(row)
                if wanted or isinstance(row, Example):
                    seen.update(key for key in overlap.keys(row) if key in wanted)
            if isinstance(source, ReasoningGymData) and not isinstance(stage, RFT):
                # Its bare questions too, which labelled rows do not carry.
                seen |= training_keys(source, base, labelled=True, among=wanted)
            streams.append(Stream(f"{place}.{number}", count, source.weight or 1.0))
        self.train[f"stages.{stage.name}.{place}"] = seen
        if any(source.weight for source in sources(data)):
            return tuple(streams)
        return (Stream(place, sum(stream.rows for stream in streams)),)

    def _keep(self, name: str, rows: Iterable[Row], data: Data) -> list[Row]:
        """The rows no training source has: generated ones may be dropped, chosen ones are refused."""
        generated = all(isinstance(source, ReasoningGymData) for source in sources(data))
        kept = overlap.held_out(rows, self.train, may_drop=generated, name=name)
        self.dropped[name] = kept.dropped
        return kept.rows
