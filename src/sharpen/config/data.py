"""Where rows come from: a JSONL file, rows given in Python, or a reasoning-gym generator."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from sharpen.config.base import Config


class JsonlData(Config):
    """A JSONL file: chat, prompt-completion or RFT rows, recognised by their keys."""

    type: Literal["jsonl"] = "jsonl"

    path: str
    """The file, relative to the recipe's folder."""

    limit: Annotated[int, Field(ge=1)] | None = None
    """Read only the first so many rows."""


class InlineData(Config):
    """Rows handed over in Python; the run directory keeps them as JSONL."""

    type: Literal["inline"] = "inline"

    rows: tuple[dict[str, Any], ...]
    """Rows of the same shapes as a JSONL file's."""


class ReasoningGymData(Config):
    """Problems of a reasoning-gym generator, by index range.

    Item i is drawn from `Random(i)`, so two sources are disjoint in *items* when their ranges
    are; the run checks disjoint *prompts* as well.
    """

    type: Literal["reasoning_gym"] = "reasoning_gym"

    generator: str
    """The dataset's name in reasoning-gym, such as `chain_sum`."""

    params: dict[str, Any] = Field(default_factory=dict)
    """The generator's own parameters."""

    start: Annotated[int, Field(ge=0)] = 0
    """Index of the first item."""

    count: Annotated[int, Field(ge=1)]
    """How many indices to draw (repeated prompts within the range are dropped)."""

    suffix: str = ""
    """Text appended to each question, such as the form in which to answer."""


def _kind(value: Any) -> str:
    """The tag of a data source; a plain path means JSONL."""
    if isinstance(value, dict):
        return str(value.get("type", "jsonl"))
    return str(getattr(value, "type", "jsonl"))


Data = Annotated[
    Annotated[JsonlData, Tag("jsonl")]
    | Annotated[InlineData, Tag("inline")]
    | Annotated[ReasoningGymData, Tag("reasoning_gym")],
    Discriminator(_kind),
]
"""Any source of rows."""
