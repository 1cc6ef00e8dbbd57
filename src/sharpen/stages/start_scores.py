"""What the weights a stage starts from say of its answers: computed before the first step, kept on disk.

So a reference needs no second model in memory, and a resumed stage has the very numbers it began with.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sharpen.stages.work import Work
from sharpen.train.engine import Engine
from sharpen.train.ranks import shares
from sharpen.types import Sequence as Row

FILE = "start_scores.npz"

Named = tuple[str, Sequence[Row]]
"""Rows that are scored together, and a name for them."""


class StartScores:
    """The log-probabilities of rows' trained tokens, four bytes each."""

    def __init__(self, work: Work, *, whole: bool) -> None:
        """`whole` as in the loss that the rows are for."""
        self._work = work
        self._whole = whole
        self._path = work.folder / FILE
        self._places: dict[str, int] = {}
        self._values = array("f")
        if self._path.is_file():
            with np.load(self._path) as found:
                self._places = dict(zip(found["names"].tolist(), found["places"].tolist(), strict=True))
                self._values = array("f", found["values"].tobytes())

    def has(self, names: Iterable[str]) -> bool:
        """Whether all of them have been scored."""
        return all(name in self._places for name in names)

    def score(self, engine: Engine, several: Iterable[Sequence[Named]], total: int) -> None:
        """Score what has not been, with the weights that `engine` has now: `total` times some rows together, in the
        batches that a step on them has, so that the step agrees with its start to the last bit.

        Raises Interrupted where the run is to stop; then nothing is kept.
        """
        for done, named in enumerate(several):
            if self.has(name for name, _ in named):
                continue
            self._work.run.observer.progress(
                f"{self._work.stage.name}: scoring the answers before it learns", done, total
            )
            self._work.stop_here()
            parts = shares([row for _, rows in named for row in rows], engine.ranks.size)  # as each rank packs its own
            scored = {
                id(row): made
                for part in parts
                for row, made in zip(part, engine.score(part, whole=self._whole), strict=True)
            }
            for name, rows in named:
                own = [scored[id(row)] for row in rows]
                if name not in self._places:
                    self._places[name] = len(self._values)
                    for row in own:
                        self._values.extend(v for v, m in zip(row.old_logprobs, row.mask, strict=True) if m)

    def given(self, named: Named) -> list[Row]:
        """The rows with the start's scores as `ref_logprobs`."""
        place, found = self._places[named[0]], []
        for row in named[1]:
            values = iter(self._values[place : place + row.trained])
            found.append(replace(row, ref_logprobs=tuple(next(values) if m else 0.0 for m in row.mask)))
            place += row.trained
        return found

    def keep(self) -> None:
        """Write the scores down."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_name(f".{FILE}")
        columns: dict[str, Any] = {
            "names": np.array(list(self._places)),
            "places": np.array(list(self._places.values())),
            "values": np.array(self._values, dtype=np.float32),
        }
        with aside.open("wb") as file:
            np.savez(file, **columns)
        aside.replace(self._path)
