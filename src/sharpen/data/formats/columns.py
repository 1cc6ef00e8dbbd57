"""Rows with other column names: renaming, and guessing the mapping to add to a recipe."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from sharpen.data.formats.parts import Purpose
from sharpen.data.read import Record, Where

SYNONYMS = {
    "prompt": ("question", "query", "instruction", "input", "problem", "user", "human", "request", "task", "context"),
    "completion": ("answer", "response", "output", "solution", "reply", "assistant", "target", "summary", "label"),
    "chosen": ("preferred", "accepted", "winner", "better", "positive"),
    "rejected": ("dispreferred", "refused", "loser", "worse", "negative"),
    "messages": ("conversation", "chat", "dialog", "dialogue", "turns", "history"),
    "text": ("content", "document", "passage", "body"),
}
"""Words that other data sets use for our keys, the most usual first."""

_WANTED: dict[Purpose, tuple[tuple[str, ...], ...]] = {
    "sft": (("messages",), ("prompt", "completion"), ("text",)),
    "rft": (("messages",), ("prompt",)),
    "dpo": (("prompt", "chosen", "rejected"),),
}


def rename(record: Record, mapping: Mapping[str, str], where: Where) -> Record:
    """The record with `mapping` (our name to its name) applied. Raises DataError where a column is not there."""
    if not mapping:
        return record
    for ours, theirs in mapping.items():
        if theirs not in record:
            raise where.error(
                f"there is no column {theirs!r}, which `columns` maps to {ours!r}; the row has {sorted(record)}",
                field=theirs,
                remedy="Correct the mapping in the recipe",
            )
    kept = {key: value for key, value in record.items() if key not in mapping.values()}
    for ours, theirs in mapping.items():
        if ours in kept:
            raise where.error(
                f"the row has {ours!r} already, and `columns` maps {theirs!r} to it",
                field=ours,
                remedy=f"Map {ours!r} to another name as well, such as `old_{ours}: {ours}`",
            )
    return kept | {ours: record[theirs] for ours, theirs in mapping.items()}


def suggestion(record: Record, purpose: Purpose) -> str:
    """The line to add to the recipe, ready to paste, or nothing where no column's name says what it is."""
    for targets in _WANTED[purpose]:
        found: dict[str, str] = {}
        for target in targets:
            if (name := _column(target, record, found.values())) is not None:
                found[target] = name
        is_talk = targets != ("messages",) or isinstance(record.get(found.get("messages", "")), list | str)
        if len(found) == len(targets) and is_talk:
            pairs = ", ".join(f"{ours}: {theirs}" for ours, theirs in found.items() if ours != theirs)
            return f"Add `columns: {{{pairs}}}` to this data, if that is what the columns mean. " if pairs else ""
    return ""


def _column(target: str, record: Record, taken: Collection[str]) -> str | None:
    """The column that is called like the target: by name, by a synonym, by a word of its name."""
    free = [name for name in record if name not in taken and record[name] is not None]
    if target in free:
        return target
    for word in (target, *SYNONYMS[target]):
        for name in free:
            if name.casefold() == word:
                return name
    for word in (target, *SYNONYMS[target]):
        for name in free:
            if word in re.split(r"[^a-z]+", name.casefold()):
                return name
    return None
