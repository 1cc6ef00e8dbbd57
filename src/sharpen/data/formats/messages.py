"""Messages as rows have them to messages as chat templates take them: roles, content, tool calls, order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sharpen.data.read import Where, check
from sharpen.errors import DataError
from sharpen.types import Message, Tool

ROLES = ("system", "user", "assistant", "tool")

_SAME = {"developer": "system"}  # OpenAI's newer name of the role
_OF_ROLE = {
    "system": {"name"},
    "user": {"name"},
    "assistant": {"name", "tool_calls", "reasoning_content", "weight"},
    "tool": {"name", "tool_call_id"},
}
_LIST = 'Write [{"role": "user", "content": "..."}, ...]'


def turns(value: Any, field: str, role: str, where: Where, images: bool = False) -> tuple[Message, ...]:
    """Text is one turn of `role`; a list is read as messages."""
    if isinstance(value, str):
        return ({"role": role, "content": content(value, role, field, where)},)
    return messages(value, field, where, images)


def messages(value: Any, field: str, where: Where, images: bool = False) -> tuple[Message, ...]:
    """A list of messages, or such a list as JSON text (as CSV and Parquet files hold it).

    With `images`, content in parts is kept as it is; without, it raises DataError. Text parts are joined.
    """
    value = parsed(value, field, where)
    if not isinstance(value, list) or not value:
        raise where.error("not a list of messages", field=field, value=value, remedy=_LIST)
    return tuple(message(turn, f"{field}.{index}", where, images) for index, turn in enumerate(value))


def message(turn: Any, field: str, where: Where, images: bool = False) -> Message:
    """One message; `weight` is left in it for the reader to take out."""
    if not isinstance(turn, dict):
        raise where.error("not a message", field=field, value=turn, remedy='Write {"role": ..., "content": ...}')
    role = turn.get("role")
    role = _SAME.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise where.error("unknown role", field=f"{field}.role", value=role, remedy=f"Use one of {', '.join(ROLES)}")
    said = turn.get("content")
    if len(turn) == 2 and isinstance(said, str) and said.strip():  # nearly every turn: nothing more to look at
        return {"role": role, "content": said}
    made: Message = {"role": role, "content": ""}
    for key, value in turn.items():
        if key in ("role", "content") or value is None:
            continue
        if key not in _OF_ROLE[role]:
            raise where.error(
                f"{role} messages with {key!r} cannot be trained on",
                field=f"{field}.{key}",
                value=value,
                remedy=f"Besides a role and a content they may have {', '.join(sorted(_OF_ROLE[role]))}",
            )
        made[key] = _extra(key, value, f"{field}.{key}", where)
    if not (turn.get("content") in (None, "") and made.get("tool_calls")):  # a call needs no words
        made["content"] = content(turn.get("content"), role, f"{field}.content", where, images)
    return made


def content(value: Any, role: str, field: str, where: Where, images: bool = False) -> Any:
    """The text of a turn; text parts are joined. Parts with images stay a list where `images` allows them."""
    if value is None:
        raise where.error("the message has no content", field=field, remedy="Give it a text")
    if isinstance(value, list):
        value = _parts(value, field, where, images)
        if not isinstance(value, str):
            return value
    if not isinstance(value, str):
        raise where.error("content is not text", field=field, value=value, remedy="Give a text")
    if role not in ("system", "tool") and not value.strip():  # a tool may have nothing to say
        raise where.error(f"empty {role} turn", field=field, value=value, remedy="Give it a text, or remove the row")
    return value


def tools(value: Any, where: Where, field: str = "tools") -> tuple[Tool, ...]:
    """The tools of a row, as a list or as JSON text; none where there are none."""
    value = parsed(value, field, where)
    if not value:
        return ()
    if not isinstance(value, list):
        raise where.error("not a list of tools", field=field, value=value, remedy=_TOOL)
    return tuple(_tool(tool, f"{field}.{index}", where) for index, tool in enumerate(value))


def check_order(turns: tuple[Message, ...], first: int, fields: tuple[str, str], where: Where) -> None:
    """At most one system turn, at the start; then user and assistant in turns, tools after a call.

    `fields` are where the turns before number `first` came from, and where the others did, for errors.
    """
    start = 1 if turns and turns[0]["role"] == "system" else 0
    wanted: tuple[str, ...] = ("user",)
    for index in range(start, len(turns)):
        role = turns[index]["role"]
        if role not in wanted:
            raise where.error(
                f"roles out of order: turn {index} should be {' or '.join(wanted)}",
                field=fields[index >= first],
                value=[turn["role"] for turn in turns],
                remedy="After an optional system turn, user and assistant alternate; join neighbours."
                " A tool's turn follows an assistant's `tool_calls`",
            )
        if role == "assistant":
            wanted = ("tool",) if turns[index].get("tool_calls") else ("user",)
        else:
            wanted = ("assistant",) if role == "user" else ("tool", "assistant")


def bare(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages without `weight`, which is no template's business."""
    if not any("weight" in turn for turn in turns):
        return turns
    return tuple({key: value for key, value in turn.items() if key != "weight"} for turn in turns)


def require_text(turns: Sequence[Message], place: str) -> None:
    """Raise DataError for content in parts: it is kept in an Example, but no model here can see it."""
    for index, turn in enumerate(turns):
        if not isinstance(turn["content"], str):
            raise DataError(
                "content in parts (images, audio) cannot be trained on or answered: no vision model is supported",
                file=place,
                field=f"messages[{index}].content",
                value=turn["content"],
                remedy="Give one text, or remove the row",
            )


def parsed(value: Any, field: str, where: Where) -> Any:
    """The value of JSON text that begins like a list or an object; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise where.error(f"not JSON: {error}", field=field, value=value, remedy="Mend the JSON text") from error
    check({field: found}, where)  # NaN, lone surrogates, depth: as in the row itself
    return found


def _parts(value: list[Any], field: str, where: Where, images: bool) -> str | list[Any]:
    texts = [part["text"] for part in value if _is_text(part)]
    if texts and len(texts) == len(value):
        return "".join(texts)
    if images and value and all(isinstance(part, dict) for part in value):
        return value
    raise where.error(
        "content in parts (images, audio) cannot be trained on", field=field, value=value, remedy="Give one text"
    )


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)


def _extra(key: str, value: Any, field: str, where: Where) -> Any:
    match key:
        case "tool_calls":
            return _calls(value, field, where)
        case "weight" if isinstance(value, bool) or value not in (0, 1):
            raise where.error("a weight is 0 or 1", field=field, value=value, remedy="Use 0 to leave the turn out")
        case "name" | "tool_call_id" | "reasoning_content" if not isinstance(value, str):
            raise where.error(f"{key} is not text", field=field, value=value, remedy="Give a text")
    return value


def _calls(value: Any, field: str, where: Where) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise where.error("not a list of tool calls", field=field, value=value, remedy=_CALL)
    return [_call(call, f"{field}.{index}", where) for index, call in enumerate(value)]


def _call(call: Any, field: str, where: Where) -> dict[str, Any]:
    """A call with its arguments as an object: the form that chat templates take."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise where.error("not a tool call", field=field, value=call, remedy=_CALL)
    arguments = parsed(function.get("arguments") or {}, f"{field}.function.arguments", where)
    if not isinstance(arguments, dict):
        raise where.error(
            "a call's arguments are not an object",
            field=f"{field}.function.arguments",
            value=arguments,
            remedy='Write an object, or its JSON text, such as "{\\"city\\": \\"Rome\\"}"',
        )
    made = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return made if call.get("id") is None else {"id": call["id"], **made}


def _tool(tool: Any, field: str, where: Where) -> Tool:
    """A tool in OpenAI's form; the bare function, as many data sets write it, is wrapped."""
    if isinstance(tool, dict) and isinstance(tool.get("name"), str) and "function" not in tool:
        tool = {"type": "function", "function": tool}
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise where.error("not a tool", field=field, value=tool, remedy=_TOOL)
    return dict(tool)


_CALL = 'Write [{"type": "function", "function": {"name": "...", "arguments": {...}}}]'
_TOOL = 'Write [{"type": "function", "function": {"name": "...", "parameters": {...}}}]'
