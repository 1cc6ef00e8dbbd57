"""What a chat request asks a model for, and what comes back, piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Ask:
    """A chat request as workers take it: checked, with everything that is not asked for left at its default."""

    messages: list[dict[str, Any]]
    """As chat templates take them."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    n: int = 1
    max_tokens: int | None = None
    """None: as many as the model's context holds."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    logprobs: int | None = None
    """How many of the likeliest tokens to tell at each place; None: no log-probabilities."""

    response_format: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Started:
    """The request is taken: its prompt fits."""

    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Said:
    """What one of the n choices says further; with `finish` it is over."""

    choice: int
    delta: dict[str, Any]
    logprobs: list[dict[str, Any]] | None
    finish: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """All choices are over."""

    usage: dict[str, Any]


Piece = Started | Said | Done
