"""The table of dataset shapes: which keys tell a shape, what it is for, and what converts it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from sharpen.data.formats import columns, openai, others
from sharpen.data.formats.parts import Converter, Purpose
from sharpen.data.read import Record, Where
from sharpen.errors import DataError


class Shape(NamedTuple):
    """A way to write rows; `keys` tell it from the others, `reads` are the ones that become the prompt."""

    name: str
    keys: frozenset[str]
    purposes: frozenset[Purpose]
    convert: Converter
    reads: frozenset[str] = frozenset()


def _shape(name: str, keys: str, purposes: str, convert: Converter, reads: str = "") -> Shape:
    words: Any = purposes.split()
    return Shape(name, frozenset(keys.split()), frozenset(words), convert, frozenset((reads or keys).split()))


SHAPES = (
    _shape("Bedrock", "schemaVersion messages", "sft rft", others.bedrock, "schemaVersion messages system"),
    _shape("Vertex", "contents", "sft rft", others.vertex, "contents systemInstruction tools"),
    _shape("ShareGPT", "conversations", "sft rft", others.sharegpt, "conversations system tools"),
    _shape("OpenAI preference", "input preferred_output non_preferred_output", "dpo", openai.openai_preference),
    _shape("preference", "prompt chosen rejected", "dpo", openai.preference),
    _shape("implicit preference", "chosen rejected", "dpo", openai.implicit_preference),
    _shape("KTO", "prompt completion label", "dpo", openai.kto),
    _shape("prompt-completion", "prompt completion", "sft", openai.prompt_completion),
    _shape("chat", "messages", "sft rft", openai.chat, "messages tools"),
    _shape("Alpaca", "instruction output", "sft", others.alpaca),
    _shape("prompt", "prompt", "rft", openai.prompt, "prompt tools"),
    _shape("Alpaca prompt", "instruction", "rft", others.alpaca_prompt, "instruction input system tools"),
    _shape("text", "text", "sft", openai.text),
)

EXPECTED: dict[Purpose, str] = {
    "sft": 'SFT reads {"messages": [...]} ending with an assistant turn, or {"prompt": ..., "completion": ...}'
    " (text or messages); docs/data.md has the other shapes",
    "rft": 'RFT reads {"messages": [...]} ending with a user turn, or {"prompt": text or messages};'
    " its other fields are what the grader reads",
    "dpo": 'preference rows are {"prompt": ..., "chosen": ..., "rejected": ...} or'
    ' {"prompt": ..., "completion": ..., "label": true}',
}


def recognise(record: Record, purpose: Purpose, where: Where) -> Shape:
    """The shape of a row, by its keys. Raises DataError with the mapping to add where there is none."""
    names = frozenset(key for key, value in record.items() if value is not None)
    has_label = "label" in names and isinstance(record["label"], bool | str) and record["label"] in openai.LABELS
    fits, own = _fitting(names, purpose, has_label)
    if len(own) == 1:
        return own[0]
    if own:
        raise where.error(
            f"a row of several shapes ({', '.join(shape.name for shape in own)}); its keys are {sorted(record)}",
            remedy=f"Keep the keys of one. {EXPECTED[purpose]}",
        )
    if fits:
        raise _of_another_purpose(fits[0], record, purpose, where)
    for shape in _fitting(frozenset(record), purpose, has_label)[1]:
        null = min(shape.keys - names)
        raise where.error(f"{null} is null", field=null, remedy="Give it a value, or remove the row")
    raise where.error(
        f"not a row of this kind; its keys are {sorted(record)}",
        remedy=columns.suggestion(record, purpose) + EXPECTED[purpose],
    )


@lru_cache(maxsize=256)  # the rows of a file have few sets of keys
def _fitting(names: frozenset[str], purpose: Purpose, has_label: bool) -> tuple[list[Shape], list[Shape]]:
    """The shapes whose keys are all there, and those among them that serve the purpose."""
    of_purpose = {"rft"} if purpose == "rft" else {"sft", "dpo"}
    known = (shape for shape in SHAPES if shape.purposes & of_purpose and (has_label or shape.name != "KTO"))
    fits = _most_telling(shape for shape in known if shape.keys <= names)
    return fits, [shape for shape in fits if purpose in shape.purposes]


def _most_telling(found: Iterable[Shape]) -> list[Shape]:
    """Without shapes whose keys another has too, and more; `text` counts only where nothing else does."""
    fits = list(found)
    fits = [shape for shape in fits if not any(shape.keys < other.keys for other in fits)]
    return [shape for shape in fits if shape.name != "text"] or fits


def _of_another_purpose(shape: Shape, record: Record, purpose: Purpose, where: Where) -> DataError:
    if purpose == "dpo":
        return where.error(
            f"{shape.name} rows say nothing of better and worse; its keys are {sorted(record)}",
            remedy=columns.suggestion(record, purpose) + EXPECTED["dpo"],
        )
    more = ""
    if shape.name == "KTO":
        more = " with `loss: kto`"
        remedy = "To imitate the good completions, keep the rows whose label is true, without `label`"
    elif shape.name == "preference":
        remedy = "To imitate the chosen answers, add `columns: {completion: chosen}` to this data"
    else:
        remedy = f"To imitate the good answers, write them as chat rows. {EXPECTED['sft']}"
    return where.error(
        f"{shape.name} rows (keys {', '.join(sorted(shape.keys))}), which are for a dpo stage, not {purpose}",
        remedy=f"Make the stage `type: dpo`{more}. {remedy}",
    )
