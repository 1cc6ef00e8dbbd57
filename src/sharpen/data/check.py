"""Look a training file over before it is trained on: every fault with its place, and what a stage would make of it.

The file is read once, as a stream; of each row only hashes and counts are kept.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sharpen.data import files, formats, overlap, private
from sharpen.data.duplicates import Duplicates, Found
from sharpen.data.formats.messages import require_text
from sharpen.data.formats.parts import Purpose
from sharpen.data.read import Record, Where
from sharpen.data.render import Renderer, too_long
from sharpen.errors import DataError
from sharpen.types import Example, Labelled, Message, Preference

SHOWN_FAULTS = 50
SHOWN_PLACES = 5
"""Places listed of each kind of finding."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What a row is refused for, and where; `value` as Python writes it, shortened."""

    file: str
    line: int | None
    field: str
    fact: str
    value: str | None
    remedy: str

    @classmethod
    def of(cls, error: DataError, where: Where | None) -> Fault:
        """An error's fault, at `where` if the error does not know its line."""
        placed = where if where is not None and error.line is None else error
        value = None if error.seen is None else private.masked(error.seen)
        return cls(placed.file, placed.line, error.field, error.fact, value, error.remedy)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a rendered row that the loss covers, or does not."""

    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as the model reads it."""

    line: int
    spans: tuple[Span, ...]


@dataclass
class Lengths:
    """How long the rows are in tokens, and how much of them the loss covers."""

    counts: Counter[int] = field(default_factory=Counter)
    trained: int = 0

    @property
    def total(self) -> int:
        """Tokens of all rows."""
        return sum(length * rows for length, rows in self.counts.items())

    def quantile(self, share: float) -> int:
        """The least length that at least `share` of the rows do not exceed (0 without rows)."""
        needed = share * self.counts.total()
        reached = 0
        for length in sorted(self.counts):
            reached += self.counts[length]
            if reached >= needed:
                return length
        return 0

    def histogram(self, bins: int = 24) -> list[int]:
        """Rows in each of `bins` equal ranges from the least length to the greatest."""
        low, high = self.quantile(0), self.quantile(1)
        width = (high - low + 1) / bins
        found = [0] * bins
        for length, rows in self.counts.items():
            found[int((length - low) / width)] += rows
        return found


class Place(NamedTuple):
    """Where something was found: a line, and for private things the field and the masked value."""

    line: int
    field: str = ""
    masked: str = ""


@dataclass
class Findings:
    """How often something was found, and the first SHOWN_PLACES."""

    count: int = 0
    places: list[Place] = field(default_factory=list)

    def note(self, place: Place) -> None:
        """Count one more."""
        self.count += 1
        if len(self.places) < SHOWN_PLACES:
            self.places.append(place)


@dataclass
class Report:
    """What a look at a file has found."""

    file: str
    purpose: Purpose
    rows: int = 0
    faulty: int = 0
    faults: list[Fault] = field(default_factory=list)
    """The first SHOWN_FAULTS."""

    lengths: Lengths | None = None
    """None without a model."""

    duplicates: Found = field(default_factory=lambda: Found([], []))
    overlap: dict[str, Findings] = field(default_factory=dict)
    """The rows whose prompt another file has too, by that file."""

    private: dict[str, Findings] = field(default_factory=dict)
    """Likely personal data and secrets, by their kind."""

    rendered: Rendered | None = None
    """The first good row in which nothing private was found."""


def check(
    path: Path,
    purpose: Purpose,
    *,
    renderer: Renderer | None = None,
    max_length: int | None = None,
    against: Sequence[Path] = (),
) -> Report:
    """Read a file as a stage of kind `purpose` would, to its end.

    With a renderer, rows are rendered too, and refused where they are longer than `max_length` tokens.
    Raises DataError when a file cannot be read, or a file of `against` has a faulty row.
    """
    others = {str(other): prompts(other) for other in against}
    walk = _Walk(Report(str(path), purpose), _READERS[purpose], renderer, max_length, others)
    for where, found in files.records(path):
        walk.row(where, found)
    walk.report.duplicates = walk.seen.found()
    return walk.report


def prompts(path: Path) -> set[bytes]:
    """The prompt keys (`overlap.key`) of a file of any shape. Raises DataError at the first faulty row."""
    found: set[bytes] = set()
    for where, record in files.rows(path):
        for talk in formats.prompts(record, where, "rft"):
            require_text(talk, formats.place(where))
            found.add(overlap.key(talk))
    return found


class _Walk:
    """The state of one pass over a file."""

    def __init__(
        self,
        report: Report,
        reader: Callable[[Record, Where], Labelled | Example | Preference],
        renderer: Renderer | None,
        max_length: int | None,
        others: Mapping[str, set[bytes]],
    ) -> None:
        self.report = report
        self.seen = Duplicates()
        self._reader = reader
        self._renderer = renderer
        self._max_length = max_length
        self._others = others
        report.overlap = {name: Findings() for name in others}
        report.lengths = Lengths() if renderer else None

    def row(self, where: Where, found: Record | DataError) -> None:
        """Look at one row; a fault of it is noted."""
        self.report.rows += 1
        try:
            if isinstance(found, DataError):
                raise found
            clean = self._scan(found, where)
            row = self._reader(found, where)
            self._compare(row, where)
            self._render(row, where, show=clean)
        except DataError as error:
            self.report.faulty += 1
            if len(self.report.faults) < SHOWN_FAULTS:
                unplaced = None if error is found else where  # an empty file has no line
                self.report.faults.append(Fault.of(error, unplaced))

    def _scan(self, record: Record, where: Where) -> bool:
        """Note what is private in the row; whether nothing is."""
        clean = True
        for kind, place, masked in private.scan(record):
            clean = False
            self.report.private.setdefault(kind, Findings()).note(Place(where.line, place, masked))
        return clean

    def _compare(self, row: Labelled | Example | Preference, where: Where) -> None:
        keys = _prompt_keys(row)  # refuses images, so before the text is taken
        self.seen.add(where.line, _text(row))
        for name, known in self._others.items():
            if not known.isdisjoint(keys):
                self.report.overlap[name].note(Place(where.line))

    def _render(self, row: Labelled | Example | Preference, where: Where, *, show: bool) -> None:
        if self._renderer is None or self.report.lengths is None:
            return
        sequences = [_tokens(part, self._renderer) for part in _parts(row)]
        for tokens, mask in sequences:
            self.report.lengths.counts[len(tokens)] += 1
            self.report.lengths.trained += sum(mask)
        longest = max(len(tokens) for tokens, _ in sequences)
        if self._max_length is not None and longest > self._max_length:
            raise too_long(where.file, longest, self._max_length)
        if show and self.report.rendered is None:
            self.report.rendered = Rendered(where.line, _spans(*sequences[0], self._renderer))


_READERS: Mapping[Purpose, Callable[[Record, Where], Labelled | Example | Preference]] = {
    "sft": formats.labelled,
    "dpo": formats.preference,
    "rft": formats.example,
}
"""What makes rows of each kind of stage out of records."""


def _parts(row: Labelled | Example | Preference) -> Sequence[Labelled | Example]:
    """What is rendered of a row: a preference has two answers."""
    if not isinstance(row, Preference):
        return (row,)
    return tuple(_answered(row, answer) for answer in (row.chosen, row.rejected))


def _answered(row: Preference, answer: tuple[Message, ...]) -> Labelled:
    first = len(row.messages)
    trained = tuple(first + index for index, turn in enumerate(answer) if turn["role"] == "assistant")
    return Labelled(row.id, row.messages + answer, trained, row.tools, place=row.place)


def _tokens(part: Labelled | Example, renderer: Renderer) -> tuple[Sequence[int], Sequence[bool]]:
    if isinstance(part, Example):
        prompt = renderer.example(part)
        return prompt, (False,) * len(prompt)
    row = renderer.labelled(part, sys.maxsize)
    return row.tokens, row.mask


def _spans(tokens: Sequence[int], mask: Sequence[bool], renderer: Renderer) -> tuple[Span, ...]:
    """Neighbouring tokens of one kind, as text."""
    spans = []
    start = 0
    for end in range(1, len(tokens) + 1):
        if end == len(tokens) or mask[end] != mask[start]:
            text = renderer.tokenizer.decode(list(tokens[start:end]), skip_special_tokens=False)
            spans.append(Span(str(text), mask[start]))
            start = end
    return tuple(spans)


def _prompt_keys(row: Labelled | Example | Preference) -> Iterable[bytes]:
    return (overlap.key(row.messages),) if isinstance(row, Preference) else overlap.keys(row)


def _text(row: Labelled | Example | Preference) -> str:
    """What duplicates are found by: all turns but the system's, with their calls."""
    return "\n".join(_said(part) for part in _parts(row))


def _said(part: Labelled | Example) -> str:
    if isinstance(part, Labelled) and part.text:
        return part.text
    turns = [turn for turn in part.messages if turn["role"] != "system"]
    calls = [json.dumps(turn["tool_calls"], sort_keys=True) if "tool_calls" in turn else "" for turn in turns]
    return "\n".join(f"{turn['role']} {turn['content']}{call}" for turn, call in zip(turns, calls, strict=True))
