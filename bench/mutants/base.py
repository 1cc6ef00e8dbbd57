"""A mutation: one wrong text in the place of a right one."""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One wrong text for one right one, which occurs exactly once in the file."""

    name: str
    file: str
    right: str
    wrong: str


def of(file: str, *mutations: tuple[str, str, str]) -> list[Mutation]:
    """The mutations of a file of `src/sharpen`, each a name, the right text and the wrong one."""
    return [Mutation(name, file, right, wrong) for name, right, wrong in mutations]
