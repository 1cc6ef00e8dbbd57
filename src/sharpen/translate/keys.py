"""The keys of another trainer's configuration, each of which is accounted for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sharpen.config.peers import NONE

NO_EQUIVALENT = "has no equivalent"


class Left(NamedTuple):
    """A setting that the recipe does not carry, and why."""

    key: str
    value: Any
    why: str

    def __str__(self) -> str:
        return f"{self.key}: {json.dumps(self.value, ensure_ascii=False, default=str)}: {self.why}"


class Translated(NamedTuple):
    """A recipe, and what it does not say."""

    source: str
    """Whose configuration it was."""

    recipe: dict[str, Any]
    left: tuple[Left, ...]
    """Settings that change what is computed there and have no equivalent here."""

    check: tuple[str, ...]
    """What to look at before the first run."""

    needless: tuple[str, ...]
    """Keys that mean nothing here: workers, logging, caches."""


@dataclass
class Keys:
    """A mapping that is read key by key: what was never asked for has no equivalent."""

    values: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What the other trainer does where a key is not given."""

    prefix: str = ""
    taken: set[str] = field(default_factory=set)
    left: list[Left] = field(default_factory=list)
    check: list[str] = field(default_factory=list)

    def take(self, *names: str) -> Any:
        """The value of the first of these keys that is given, else of the first that has a default there, else None."""
        self.taken.update(names)
        for known in (self.values, self.defaults):
            for name in names:
                if known.get(name) is not None:
                    return known[name]
        return None

    def given(self, name: str) -> bool:
        """Whether the file says it."""
        return self.values.get(name) is not None

    def leave(self, name: str, why: str = NO_EQUIVALENT) -> None:
        """Note a setting that is given and cannot be carried over."""
        self.taken.add(name)
        if self.given(name):
            self.left.append(Left(self.prefix + name, self.values[name], why))

    def only(self, name: str, same: Any, why: str = NO_EQUIVALENT) -> None:
        """Note a setting unless it is one of the values `same`, with which it does nothing."""
        self.taken.add(name)
        if self.given(name) and self.values[name] not in (same if isinstance(same, tuple) else (same,)):
            self.leave(name, why)

    def close(self, needless: frozenset[str]) -> tuple[str, ...]:
        """Note all that was not asked for; returns those among them that mean nothing here."""
        rest = [name for name in self.values if name not in self.taken]
        for name in rest:
            if name not in needless:
                self.leave(name, NONE.get(name, NO_EQUIVALENT))
        return tuple(name for name in rest if name in needless)
