"""Alpaca, ShareGPT, Vertex and Bedrock rows."""

from __future__ import annotations

import json
from typing import Any

from sharpen.data.formats.messages import message, messages, parsed, tools, turns
from sharpen.data.formats.parts import Parts
from sharpen.data.read import Record, Where
from sharpen.types import Message

_SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}


def alpaca_prompt(record: Record, where: Where, images: bool) -> Parts:
    """`{"instruction": ..., "input": ..., "system": ...}`: the input stands below the instruction."""
    for key in ("instruction", "input", "system"):
        if not isinstance(record.get(key) or "", str):
            raise where.error(f"{key} is not text", field=key, value=record[key], remedy="Give a text")
    asked = "\n\n".join(part for part in (record["instruction"], record.get("input")) if part)
    talk = _system(record, where) + turns(asked, "instruction", "user", where)
    return Parts(
        talk, first=len(talk), tools=tools(record.get("tools"), where), field="instruction", asked="instruction"
    )


def alpaca(record: Record, where: Where, images: bool) -> Parts:
    """An Alpaca prompt, and its `output` to imitate."""
    asked = alpaca_prompt(record, where, images)
    if not isinstance(record["output"], str):
        raise where.error("output is not text", field="output", value=record["output"], remedy="Give a text")
    said = turns(record["output"], "output", "assistant", where)
    return Parts(asked.messages + said, asked.first, asked.tools, field="output", asked="instruction")


def sharegpt(record: Record, where: Where, images: bool) -> Parts:
    """`{"conversations": [{"from": "human", "value": ...}, ...]}`; `role` and `content` are read as well."""
    listed = parsed(record["conversations"], "conversations", where)
    if not isinstance(listed, list) or not listed:
        remedy = 'Write [{"from": "human", "value": "..."}, ...]'
        raise where.error("not a list of turns", field="conversations", value=listed, remedy=remedy)
    talk = tuple(_said(turn, f"conversations.{index}", where, images) for index, turn in enumerate(listed))
    if talk[0]["role"] != "system":
        talk = _system(record, where) + talk
    return Parts(talk, tools=tools(record.get("tools"), where), field="conversations")


def vertex(record: Record, where: Where, images: bool) -> Parts:
    """Google's `{"systemInstruction": {"parts": ...}, "contents": [{"role": "user" | "model", "parts": ...}]}`."""
    listed = parsed(record["contents"], "contents", where)
    if not isinstance(listed, list) or not listed:
        remedy = 'Write [{"role": "user", "parts": [{"text": "..."}]}, ...]'
        raise where.error("not a list of contents", field="contents", value=listed, remedy=remedy)
    turns = [turn for index, one in enumerate(listed) for turn in _vertex_turn(one, f"contents.{index}", where, images)]
    if given := record.get("systemInstruction"):
        inner = given.get("parts") if isinstance(given, dict) else given
        turns.insert(0, message({"role": "system", "content": inner}, "systemInstruction", where))
    declared = _declared(parsed(record.get("tools"), "tools", where))
    return Parts(tuple(turns), tools=tools(declared, where), field="contents")


def bedrock(record: Record, where: Where, images: bool) -> Parts:
    """Amazon's `bedrock-conversation-2024`: `system` and contents are lists of `{"text": ...}`."""
    if record["schemaVersion"] != "bedrock-conversation-2024":
        raise where.error(
            "unknown schemaVersion",
            field="schemaVersion",
            value=record["schemaVersion"],
            remedy='Use "bedrock-conversation-2024"',
        )
    talk = messages(record["messages"], "messages", where, images)
    if given := record.get("system"):
        talk = (message({"role": "system", "content": given}, "system", where), *talk)
    return Parts(talk)


def _system(record: Record, where: Where) -> tuple[Message, ...]:
    return turns(record["system"], "system", "system", where) if record.get("system") else ()


def _said(turn: Any, field: str, where: Where, images: bool) -> Message:
    if not isinstance(turn, dict) or "from" not in turn:
        return message(turn, field, where, images)
    speaker = turn["from"]
    role = _SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        remedy = f"Use one of {', '.join(_SPEAKERS)}"
        raise where.error("unknown speaker", field=f"{field}.from", value=speaker, remedy=remedy)
    if speaker in ("function_call", "tool_call"):
        calls = parsed(turn.get("value"), f"{field}.value", where)
        calls = calls if isinstance(calls, list) else [calls]
        return message({"role": role, "tool_calls": [{"function": call} for call in calls]}, field, where)
    extra = {key: turn[key] for key in ("weight",) if key in turn}
    return message({"role": role, "content": turn.get("value"), **extra}, field, where, images)


def _vertex_turn(turn: Any, field: str, where: Where, images: bool) -> list[Message]:
    """A content is one message, or several: each function response is a tool's turn of its own."""
    inner = turn.get("parts") if isinstance(turn, dict) else None
    if not isinstance(inner, list) or not all(isinstance(part, dict) for part in inner):
        raise where.error("not a content", field=field, value=turn, remedy='Write {"role": ..., "parts": [...]}')
    answers = [part["functionResponse"] for part in inner if "functionResponse" in part]
    if answers:
        return [message({"role": "tool", "content": _json(answer)}, field, where) for answer in answers]
    role = turn.get("role", "user")
    role = "assistant" if role == "model" else role
    calls = [
        {"function": {"name": call.get("name"), "arguments": call.get("args")}}
        for part in inner
        if isinstance(call := part.get("functionCall"), dict)
    ]
    words = [part for part in inner if "functionCall" not in part]
    if not calls:
        return [message({"role": role, "content": words}, field, where, images)]
    return [message({"role": role, "content": words or None, "tool_calls": calls}, field, where, images)]


def _declared(given: Any) -> Any:
    """Google nests the functions in `functionDeclarations`; what is not so nested is left as it is."""
    if not isinstance(given, list):
        return given
    found: list[Any] = []
    for tool in given:
        nested = tool.get("functionDeclarations") if isinstance(tool, dict) else None
        found += nested if isinstance(nested, list) else [tool]
    return found


def _json(answer: Any) -> str:
    said = answer.get("response") if isinstance(answer, dict) else answer
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
