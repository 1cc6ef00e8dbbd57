"""Rows become nouns: whatever their shape, recognised by their keys (`shapes.SHAPES` is the table)."""

from __future__ import annotations

from sharpen.data.formats.messages import bare, check_order
from sharpen.data.formats.parts import Parts, Purpose
from sharpen.data.formats.shapes import EXPECTED, recognise
from sharpen.data.read import Record, Where
from sharpen.errors import DataError
from sharpen.types import Example, Labelled, Message, Preference


def labelled(record: Record, where: Where) -> Labelled:
    """A row to imitate: every assistant turn of a conversation, the completion of a prompt, or plain text.

    Turns of `weight: 0` are not trained. Raises DataError with the shape expected and the keys seen.
    """
    shape = recognise(record, "sft", where)
    return _labelled(shape.convert(record, where, False), record, where)


def example(record: Record, where: Where) -> Example:
    """A prompt for RFT or evaluation; the fields beside it become `item`.

    Content in parts (images) is kept as it is. Raises DataError with the shape expected and the keys seen.
    """
    shape = recognise(record, "rft", where)
    parts = shape.convert(record, where, True)
    check_order(parts.messages, parts.first, (parts.asked, parts.field), where)
    if parts.messages[-1]["role"] == "assistant":
        raise where.error(
            "the prompt ends with an assistant turn, as rows for SFT do",
            field=f"{parts.field}.{len(parts.messages) - 1}.role",
            value="assistant",
            remedy=EXPECTED["rft"],
        )
    item = {name: value for name, value in record.items() if name not in shape.reads}
    return Example(row_id(record, where), bare(parts.messages), item, parts.tools, place=place(where))


def preference(record: Record, where: Where) -> Preference | Labelled:
    """Two answers of which one is better, or (KTO) one answer that is `desirable` or not.

    Raises DataError with the shape expected and the keys seen.
    """
    parts = recognise(record, "dpo", where).convert(record, where, False)
    if not parts.chosen:
        return _labelled(parts, record, where)
    for answer, key in ((parts.chosen, "chosen"), (parts.rejected, "rejected")):
        if not answer:
            raise where.error(f"nothing is left of {key} after the prompt", field=key, remedy="Give both an answer")
        check_order(parts.messages + answer, parts.first, (parts.asked, key), where)
        _ends_with_assistant(answer, key, where)
    row = (bare(parts.messages), bare(parts.chosen), bare(parts.rejected), parts.tools)
    return Preference(row_id(record, where), *row, place=place(where))


def prompts(record: Record, where: Where, purpose: Purpose) -> tuple[tuple[Message, ...], ...]:
    """The prompts of a row, the same whatever it is read for: what stands before each answer, the longest last.

    Plain text counts as a prompt. Raises DataError where the row has no shape, as reading it for `purpose` would.
    """
    for reading in _READINGS:
        try:
            parts = recognise(record, reading, where).convert(record, where, True)
        except DataError:
            continue
        if parts.text:
            return (({"role": "user", "content": parts.text},),)
        talk = parts.messages
        answers = [index for index in range(max(parts.first, 1), len(talk)) if talk[index]["role"] == "assistant"]
        ends = answers if answers and talk[-1]["role"] == "assistant" else [*answers, len(talk)]
        return tuple(talk[:end] for end in ends)
    recognise(record, purpose, where).convert(record, where, True)
    raise AssertionError("a row that has this shape was found to have none")


_READINGS: tuple[Purpose, ...] = ("sft", "dpo", "rft")


def row_id(record: Record, where: Where) -> str:
    """The row's own id, or its file's name and line."""
    own = record.get("id")
    return str(own) if isinstance(own, str | int) and not isinstance(own, bool) and own != "" else where.id


def place(where: Where) -> str:
    """`file:line`, for faults that show only when a row is used."""
    return f"{where.file}:{where.line}"


def _labelled(parts: Parts, record: Record, where: Where) -> Labelled:
    if parts.text:
        return Labelled(row_id(record, where), (), (), text=parts.text, place=place(where))
    talk = parts.messages
    check_order(talk, parts.first, (parts.asked, parts.field), where)
    _ends_with_assistant(talk, parts.field, where)
    spoken = [index for index in range(parts.first, len(talk)) if talk[index]["role"] == "assistant"]
    trained = tuple(index for index in spoken if talk[index].get("weight", 1) == 1)
    if not trained:
        raise where.error(
            "nothing to imitate: every assistant turn has weight 0",
            field=parts.field,
            remedy="Give one of them weight 1, or remove the row",
        )
    return Labelled(
        row_id(record, where), bare(talk), trained, parts.tools, desirable=parts.desirable, place=place(where)
    )


def _ends_with_assistant(talk: tuple[Message, ...], field: str, where: Where) -> None:
    if talk[-1]["role"] != "assistant":
        raise where.error(
            "nothing to imitate: the conversation does not end with an assistant turn",
            field=field,
            value=talk[-1]["role"],
            remedy=EXPECTED["sft"],
        )
