"""Where rows come from: a file or a hub dataset, rows given in Python, or a reasoning-gym generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from sharpen.config.base import Config
from sharpen.config.graders import Grader


class Split(Config):
    """A source's rows in two parts that share no prompt: name the same split with either part in two places."""

    test: Annotated[float, Field(gt=0, lt=1)]
    """Share of the rows on the test side."""

    part: Literal["train", "test"] = "train"
    """Which side is read here."""

    group_by: str = ""
    """A field (`topic`, `meta.source`); rows with equal values of it stay on one side."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed parts the rows otherwise."""


def _jsonl_is_file(value: Any) -> Any:
    """`jsonl` is the type's name in recipes of version 0.1."""
    return "file" if value == "jsonl" else value


class FileData(Config):
    """A file or a hub dataset: JSONL, a JSON array, CSV, TSV or Parquet; rows are recognised by their keys."""

    type: Annotated[Literal["file"], BeforeValidator(_jsonl_is_file)] = "file"

    path: str
    """The file, relative to the recipe's folder, or a hub dataset `org/name[@revision][:config][/split]`."""

    limit: Annotated[int, Field(ge=1)] | None = None
    """Read only the first so many rows (before a split)."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Names of our fields to names in the rows, such as `{prompt: question, completion: answer}`."""

    split: Split | None = None
    """Read one side only of a split into train and test."""

    grader: Grader | None = None
    """Grades the completions to this source's prompts; the stage's or eval's own grader when not given."""


class InlineData(Config):
    """Rows handed over in Python; the run directory keeps them as JSONL."""

    type: Literal["inline"] = "inline"

    rows: tuple[dict[str, Any], ...]
    """Rows of the same shapes as a file's."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Names of our fields to names in the rows, such as `{prompt: question, completion: answer}`."""

    split: Split | None = None
    """Read one side only of a split into train and test."""

    grader: Grader | None = None
    """Grades the completions to this source's prompts; the stage's or eval's own grader when not given."""


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

    grader: Grader | None = None
    """Grades the completions to this source's prompts; the stage's or eval's own grader when not given."""


def _kind(value: Any) -> str:
    """The tag of a data source; a plain path means a file."""
    if isinstance(value, list | tuple):
        return MANY
    kind = value.get("type", "file") if isinstance(value, dict) else getattr(value, "type", "file")
    return str(_jsonl_is_file(kind))


def _not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("the list of sources is empty; name at least one")
    return value


MANY = "list"
"""The tag of several sources in a list."""

_FILE = Annotated[FileData, Tag("file")]
_INLINE = Annotated[InlineData, Tag("inline")]
_GYM = Annotated[ReasoningGymData, Tag("reasoning_gym")]

Source = Annotated[_FILE | _INLINE | _GYM, Discriminator(_kind)]
"""One source of rows."""

Data = Annotated[
    _FILE | _INLINE | _GYM | Annotated[tuple[Source, ...], AfterValidator(_not_empty), Tag(MANY)], Discriminator(_kind)
]
"""Any source of rows, or several, read one after the other."""


def sources(data: Data) -> Sequence[FileData | InlineData | ReasoningGymData]:
    """The sources of `data`, one or several."""
    return data if isinstance(data, tuple) else (data,)
