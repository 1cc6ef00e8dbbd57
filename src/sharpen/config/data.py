"""Where rows come from: a file or a hub dataset, rows given in Python, a reasoning-gym generator, or an earlier run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from sharpen.config.base import Config
from sharpen.config.graders import Grader

Weight = Annotated[float, Field(gt=0)] | None
"""What a source of a list counts."""


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

    weight: Weight = None
    """In a list: rows are drawn from the sources in proportion to their weights. Without weights they are all one."""


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

    weight: Weight = None
    """In a list: rows are drawn from the sources in proportion to their weights. Without weights they are all one."""


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

    weight: Weight = None
    """In a list: rows are drawn from the sources in proportion to their weights. Without weights they are all one."""


class PairsData(Config):
    """Pairs for a preference stage, made of the graded completions of an earlier run's RFT stage: of each group the
    best against the worst. A completion that was cut off is never the better one, and equal texts make no pair."""

    type: Literal["pairs"] = "pairs"

    grader: ClassVar[None] = None

    pairs_from: str
    """The earlier run's directory, relative to the recipe's folder."""

    stage: str = ""
    """The RFT stage whose completions are taken; may be left out where the run has but one."""

    per_group: Annotated[int, Field(ge=1)] = 1
    """Pairs of a group, at most: the best with the worst, the second best with the second worst, and so on."""

    min_gap: Annotated[float, Field(ge=0)] = 0.0
    """The scores of a pair differ by more than this."""

    split: Split | None = None
    """Read one side only of a split into train and test."""

    weight: Weight = None
    """In a list: rows are drawn from the sources in proportion to their weights. Without weights they are all one."""


def _kind(value: Any) -> str:
    """The tag of a data source; a plain path means a file."""
    if isinstance(value, list | tuple):
        return MANY
    if isinstance(value, dict) and "pairs_from" in value:
        return "pairs"
    kind = value.get("type", "file") if isinstance(value, dict) else getattr(value, "type", "file")
    return str(_jsonl_is_file(kind))


def _not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("the list of sources is empty; name at least one")
    return value


def _weighted(value: Any) -> Any:
    """Weights are for lists, and then for all of a list."""
    if not isinstance(value, tuple):
        if value.weight is not None:
            raise ValueError(
                f"a source that stands alone has a weight (got {value.weight:g}), which says how often it is drawn "
                "beside others. Leave the weight out, or name several sources in a list"
            )
        return value
    missing = [str(place) for place, source in enumerate(value) if source.weight is None]
    if missing and len(missing) < len(value):
        raise ValueError(
            f"some sources of the list have a weight, others have none (places, from 0: {', '.join(missing)}). "
            "Give each its weight, or none to any"
        )
    return value


def _unweighted(value: Any) -> Any:
    """Held-out rows are not drawn."""
    for source in sources(value):
        if source.weight is not None:
            raise ValueError(
                f"a source of held-out rows has a weight (got {source.weight:g}), but each of these rows is looked at "
                "once, none is drawn. Leave the weight out"
            )
    return value


MANY = "list"
"""The tag of several sources in a list."""

_FILE = Annotated[FileData, Tag("file")]
_INLINE = Annotated[InlineData, Tag("inline")]
_GYM = Annotated[ReasoningGymData, Tag("reasoning_gym")]
_PAIRS = Annotated[PairsData, Tag("pairs")]

Source = FileData | InlineData | ReasoningGymData | PairsData
"""One source of rows."""

_Source = Annotated[_FILE | _INLINE | _GYM | _PAIRS, Discriminator(_kind)]

Data = Annotated[
    _FILE | _INLINE | _GYM | _PAIRS | Annotated[tuple[_Source, ...], AfterValidator(_not_empty), Tag(MANY)],
    Discriminator(_kind),
    AfterValidator(_weighted),
]
"""Any source of rows, or several: read one after the other, or drawn in proportion to their weights."""

HeldOutData = Annotated[Data, AfterValidator(_unweighted)]
"""Any source of rows that are looked at, not trained on."""


class Replay(Config):
    """General rows among a stage's own, so that the model forgets less of what it could do before."""

    data: Data
    """The general rows, of the same shapes as the stage's own."""

    share: Annotated[float, Field(gt=0, lt=1)]
    """Share of every step's rows that are general ones: 0.1 is one in ten."""


def sources(data: Data) -> Sequence[Source]:
    """The sources of `data`, one or several."""
    return data if isinstance(data, tuple) else (data,)
