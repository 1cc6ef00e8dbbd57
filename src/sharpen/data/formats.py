"""Rows become nouns: chat, prompt-completion and RFT rows, recognised by their keys.

chat               {"messages": [..., assistant]}; SFT trains every assistant turn
prompt-completion  {"prompt": ..., "completion": ...}, text or messages; SFT trains the completion
RFT                {"messages": [..., user]} or {"prompt": ...}; the other fields are the item
"""

from __future__ import annotations

from typing import Any

from sharpen.data.read import Record, Where
from sharpen.errors import DataError
from sharpen.types import Example, Labelled, Message

ROLES = ("system", "user", "assistant")

_SFT_SHAPE = (
    'SFT reads {"messages": [...]} ending with an assistant turn, or {"prompt": ..., "completion": ...}'
    " (text or messages)"
)
_RFT_SHAPE = (
    'RFT reads {"messages": [...]} ending with a user turn, or {"prompt": text or messages};'
    " its other fields are what the grader reads"
)


def labelled(record: Record, where: Where) -> Labelled:
    """A row to imitate: a chat row, or a prompt with its completion.

    Raises DataError with the shape expected and the keys seen.
    """
    _refuse_tools(record, where)
    match ("messages" in record, "prompt" in record, "completion" in record):
        case (True, False, False):
            messages = _messages(record["messages"], "messages", where)
            first = 0
        case (False, True, True):
            prompt = _turns(record["prompt"], "prompt", "user", where)
            messages = prompt + _turns(record["completion"], "completion", "assistant", where)
            first = len(prompt)
            if messages[first]["role"] != "assistant":
                raise where.error(
                    "a completion must begin with an assistant turn",
                    field="completion.0.role",
                    value=messages[first]["role"],
                    remedy="Move what comes before it to the prompt",
                )
        case _:
            raise _unknown_shape(record, where, _SFT_SHAPE)
    _check_order(messages, where)
    if messages[-1]["role"] != "assistant":
        raise where.error(
            "nothing to imitate: the conversation does not end with an assistant turn",
            field="completion" if first else "messages",
            value=messages[-1]["role"],
            remedy=_SFT_SHAPE,
        )
    trained = tuple(index for index in range(first, len(messages)) if messages[index]["role"] == "assistant")
    return Labelled(id=_id(record, where), messages=messages, trained=trained)


def example(record: Record, where: Where) -> Example:
    """A prompt for RFT or evaluation; the fields beside it become `item`.

    Raises DataError with the shape expected and the keys seen.
    """
    _refuse_tools(record, where)
    match ("messages" in record, "prompt" in record):
        case (True, False):
            key = "messages"
            messages = _messages(record[key], key, where)
        case (False, True):
            key = "prompt"
            messages = _turns(record[key], key, "user", where)
        case _:
            raise _unknown_shape(record, where, _RFT_SHAPE)
    _check_order(messages, where)
    if messages[-1]["role"] == "assistant":
        raise where.error(
            "the prompt ends with an assistant turn, as rows for SFT do",
            field=f"{key}.{len(messages) - 1}.role",
            value="assistant",
            remedy=_RFT_SHAPE,
        )
    item = {name: value for name, value in record.items() if name != key}
    return Example(id=_id(record, where), messages=messages, item=item)


def _id(record: Record, where: Where) -> str:
    own = record.get("id")
    return str(own) if isinstance(own, str | int) and not isinstance(own, bool) and own != "" else where.id


def _turns(value: Any, field: str, role: str, where: Where) -> tuple[Message, ...]:
    """Text is one turn of `role`; a list is read as messages."""
    if isinstance(value, str):
        return ({"role": role, "content": _content(value, role, field, where)},)
    return _messages(value, field, where)


def _messages(value: Any, field: str, where: Where) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise where.error(
            "not a list of messages",
            field=field,
            value=value,
            remedy='Write [{"role": "user", "content": "..."}, ...]',
        )
    return tuple(_message(turn, f"{field}.{index}", where) for index, turn in enumerate(value))


def _message(turn: Any, field: str, where: Where) -> Message:
    if not isinstance(turn, dict):
        raise where.error("not a message", field=field, value=turn, remedy='Write {"role": ..., "content": ...}')
    extra = [key for key, value in turn.items() if key not in ("role", "content") and value is not None]
    if extra:
        raise where.error(
            f"messages with {extra[0]!r} cannot be trained on",
            field=f"{field}.{extra[0]}",
            value=turn[extra[0]],
            remedy="Messages have a role and a content; remove the key",
        )
    role = turn.get("role")
    if role not in ROLES:
        raise where.error("unknown role", field=f"{field}.role", value=role, remedy=f"Use one of {', '.join(ROLES)}")
    return {"role": role, "content": _content(turn.get("content"), role, f"{field}.content", where)}


def _content(value: Any, role: str, field: str, where: Where) -> str:
    if value is None:
        raise where.error("the message has no content", field=field, remedy="Give it a text")
    if isinstance(value, list):
        raise where.error(
            "content in parts (images, audio) cannot be trained on",
            field=field,
            value=value,
            remedy="Give one text",
        )
    if not isinstance(value, str):
        raise where.error("content is not text", field=field, value=value, remedy="Give a text")
    if role != "system" and not value.strip():
        raise where.error(f"empty {role} turn", field=field, value=value, remedy="Give it a text, or remove the row")
    return value


def _check_order(messages: tuple[Message, ...], where: Where) -> None:
    """At most one system turn, at the start; then user and assistant in turns."""
    roles = [message["role"] for message in messages]
    spoken = roles[1:] if roles[0] == "system" else roles
    wanted = ["user", "assistant"] * len(spoken)
    for index, (role, want) in enumerate(zip(spoken, wanted, strict=False), start=len(roles) - len(spoken)):
        if role != want:
            raise where.error(
                f"roles out of order: turn {index} should be {want}",
                value=roles,
                remedy="After an optional system turn, user and assistant alternate; join neighbours",
            )


def _refuse_tools(record: Record, where: Where) -> None:
    if record.get("tools"):
        raise where.error(
            "rows with tools cannot be trained on",
            field="tools",
            value=record["tools"],
            remedy="Remove the key",
        )


def _unknown_shape(record: Record, where: Where, expected: str) -> DataError:
    return where.error(f"not a row of this kind; its keys are {sorted(record)}", remedy=expected)
