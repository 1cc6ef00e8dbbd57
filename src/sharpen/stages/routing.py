"""Sources with graders of their own: each example is graded as its source says, or else as the stage says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from sharpen.config.data import Data, sources
from sharpen.config.graders import Grader, parts
from sharpen.config.graders.remote import Remote
from sharpen.config.recipe import Recipe
from sharpen.config.stages import RFT
from sharpen.data.source import grader_key
from sharpen.graders.pool import GraderPool, Pair
from sharpen.types import Example, Grade


def graders(own: Grader | None, *data: Data | None) -> dict[str, Grader]:
    """The stage's own grader, if any, under "", and each that a source names under its `Example.grader`."""
    named = [source.grader for several in data if several is not None for source in sources(several) if source.grader]
    found: dict[str, Grader] = {"": own} if own else {}
    return found | {grader_key(config): config for config in named}


def all_graders(recipe: Recipe) -> list[Grader]:
    """Every grader that the recipe names, in its stages, its evals and its sources."""
    found = [graders(held_out.grader, held_out.data) for held_out in recipe.evals]
    found += [graders(stage.grader, stage.data, stage.validation) for stage in recipe.stages if isinstance(stage, RFT)]
    return [config for named in found for config in named.values()]


def leaving(configs: Iterable[Grader]) -> list[dict[str, Any]]:
    """An event for each grader that sends rows to another machine: to whom, and what of them."""
    return [
        {
            "event": "remote",
            "grader": name,
            "host": part.host(),
            "fields": part.fields(),
            "message": f"the grader {name} sends {', '.join(part.fields())} of every row to {part.host()}",
        }
        for config in configs
        for name, part in parts(config).items()
        if isinstance(part, Remote) and part.leaves
    ]


class Router:
    """Does what a GraderPool does, with one pool for each distinct grader (`pools` as `graders` names them)."""

    def __init__(self, pools: Mapping[str, GraderPool]) -> None:
        self._pools = pools
        self._open = ExitStack()

    def grades(self, example: Example) -> bool:
        """Whether a grader grades this example; else the environment gives its reward."""
        return example.grader in self._pools

    async def grade_many(self, pairs: Sequence[Pair]) -> list[Grade]:
        """The grades, in the order of the pairs. Raises GraderError when a grader cannot be built."""
        found: dict[int, Grade] = {}
        for key, pool in self._pools.items():
            mine = [place for place, (example, _) in enumerate(pairs) if example.grader == key]
            if mine:
                found |= zip(mine, await pool.grade_many([pairs[place] for place in mine]), strict=True)
        return [found[place] for place in range(len(pairs))]

    async def start(self) -> None:
        """Build every grader now. Raises GraderError when that fails."""
        for pool in self._pools.values():
            await pool.start()

    def repeatable(self, grade: Grade) -> bool:
        """Whether every grader would surely grade so again."""
        return all(pool.repeatable(grade) for pool in self._pools.values())

    def __enter__(self) -> Self:
        for pool in self._pools.values():
            self._open.enter_context(pool)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
