"""Held-out prompts must not occur in training data; a score on them would measure memory.

Prompts are compared by a hash of their normalised text: the conversation without system turns,
in Unicode form NFKC, without case, with white space collapsed.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import Generic, NamedTuple, TypeVar

from sharpen.data.formats.messages import require_text
from sharpen.errors import OverlapError
from sharpen.types import Example, Labelled, Message, Preference

Row = TypeVar("Row", bound=Example | Labelled | Preference)

Train = Mapping[str, AbstractSet[bytes]]
"""The prompt keys of each training source, by its name (`stages.sft`)."""


class HeldOut(NamedTuple, Generic[Row]):
    """The rows that may be used, and how many were dropped because training saw their prompt."""

    rows: list[Row]
    dropped: int


def normalise(text: str) -> str:
    """The text as compared: NFKC, casefolded, white space collapsed."""
    if text.isascii():  # most text, at a tenth of the time
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())  # casefolding may undo the form


def key(messages: Sequence[Message]) -> bytes:
    """16 bytes that stand for a prompt; equal where the normalised conversations are."""
    turns = (f"{turn['role']}\x1f{_said(turn)}" for turn in messages if turn["role"] != "system")
    return blake2b("\x1e".join(turns).encode(), digest_size=16).digest()


def keys(row: Example | Labelled | Preference) -> frozenset[bytes]:
    """The keys of every prompt of a row: of each trained turn, and of a generator's bare question.

    The bare question is compared too, so that the same problem with another suffix is found. Plain text
    counts as a prompt that is equal to it. Raises DataError for content in parts.
    """
    if isinstance(row, Preference):
        return keys(row.answered(row.chosen)) | keys(row.answered(row.rejected))
    require_text(row.messages, row.place or row.id)
    if isinstance(row, Labelled):
        if row.text:
            return frozenset({key([{"role": "user", "content": row.text}])})
        return frozenset(key(row.messages[:index]) for index in row.trained)
    found = {key(row.messages)}
    if "generator" in row.item and isinstance(row.item.get("question"), str):
        found.add(key([{"role": "user", "content": row.item["question"]}]))
    return frozenset(found)


def held_out(rows: Iterable[Row], train: Train, *, may_drop: bool, name: str) -> HeldOut[Row]:
    """The rows of held-out source `name` whose prompts occur in no training source.

    Generated problems may be dropped; rows that someone chose may not (`may_drop=False`).
    Raises OverlapError when rows overlap and may not be dropped, or when none would be left.
    """
    kept: list[Row] = []
    seen_in: Counter[str] = Counter()
    dropped: list[Row] = []
    for row in rows:
        found = keys(row)
        sources = [source for source, known in train.items() if not found.isdisjoint(known)]
        seen_in.update(sources)
        (dropped if sources else kept).append(row)
    if dropped and not (may_drop and kept):
        total = len(kept) + len(dropped)
        raise OverlapError(_fact(name, total, seen_in), value=_text(dropped[0]), remedy=_REMEDY)
    return HeldOut(kept, len(dropped))


def check(train: Train, held_out_rows: Mapping[str, Iterable[Example | Labelled | Preference]]) -> None:
    """Raise one OverlapError naming every held-out source whose prompts occur in training data."""
    faults: list[OverlapError] = []
    for name, rows in held_out_rows.items():
        try:
            held_out(rows, train, may_drop=False, name=name)
        except OverlapError as error:
            faults.append(error)
    if faults:
        raise OverlapError("; ".join(fault.fact for fault in faults), value=faults[0].value, remedy=_REMEDY)


_REMEDY = "Remove these rows from one side, or choose index ranges that do not meet"


def _fact(name: str, total: int, seen_in: Counter[str]) -> str:
    places = ", ".join(f"{count} in {source}" for source, count in seen_in.items())
    return f"of {total} held-out prompts of {name}, training data holds {places}"


def _said(turn: Message) -> str:
    calls = turn.get("tool_calls")
    return normalise(turn["content"]) + (json.dumps(calls, sort_keys=True) if calls else "")


def _text(row: Example | Labelled | Preference) -> str:
    if isinstance(row, Labelled) and row.text:
        return row.text
    prompt = row.prompt if isinstance(row, Labelled) else row.messages
    return "\n".join(turn["content"] for turn in prompt if turn["role"] != "system")
