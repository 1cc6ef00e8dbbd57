"""Messages and tools of a chat request, from OpenAI's form to that of chat templates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sharpen.server.errors import APIError, invalid

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
FIELDS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "refusal"})
IGNORED = frozenset({"audio", "annotations", "function_call"})
"""Of an assistant's earlier message, as OpenAI's answers have them; they must say nothing."""


def messages(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As chat templates take them. Raises APIError 400."""
    if not given:
        raise invalid("messages: an empty list says nothing; give at least one message", "messages")
    return [_message(message, f"messages[{place}]") for place, message in enumerate(given)]


def tools(given: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The same for tools; OpenAI's labels that templates do not know are left. Raises APIError 400."""
    for place, tool in enumerate(given or ()):
        param = f"tools[{place}]"
        if tool.get("type") != "function":
            raise invalid(f"{param}.type: only 'function' is known here (got {tool.get('type')!r:.80})", param)
        function = tool.get("function")
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise invalid(f"{param}.function.name: a tool needs a name", f"{param}.function.name")
        if not isinstance(function.get("parameters") or {}, Mapping):
            raise invalid(f"{param}.function.parameters: not a JSON Schema", f"{param}.function.parameters")
    return list(given or ())


def _message(message: Mapping[str, Any], param: str) -> dict[str, Any]:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise invalid(f"{param}.role: one of {', '.join(ROLES)} (got {role!r:.80})", f"{param}.role")
    for name, value in message.items():
        if value is not None and name not in FIELDS and not (name in IGNORED and not value):
            raise invalid(f"{param}.{name}: not known here", f"{param}.{name}", "unknown_parameter")
    made: dict[str, Any] = {"role": ROLES[role], "content": _content(message, role, param)}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := message.get(name)) is not None:
            made[name] = _text(value, f"{param}.{name}")
    if calls := message.get("tool_calls"):
        if role != "assistant" or not isinstance(calls, list):
            raise invalid(f"{param}.tool_calls: a list, in assistant messages alone", f"{param}.tool_calls")
        made["tool_calls"] = [_call(call, f"{param}.tool_calls[{place}]") for place, call in enumerate(calls)]
    return made


def _content(message: Mapping[str, Any], role: str, param: str) -> str:
    content = message.get("content")
    if content is None:
        if role == "assistant":
            return str(message.get("refusal") or "")
        raise invalid(f"{param}.content: {role} messages need a text", f"{param}.content", "missing_required_parameter")
    if isinstance(content, list):
        return "".join(_part(part, f"{param}.content[{place}]") for place, part in enumerate(content))
    return _text(content, f"{param}.content")


def _part(part: Any, param: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return _text(part.get("text"), f"{param}.text")
    if kind == "refusal":
        return _text(part.get("refusal"), f"{param}.refusal")
    raise invalid(
        f"{param}: models here read text alone, and no images, audio or files (got a part of type {kind!r:.80})",
        param,
        "unsupported_content",
    )


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise invalid(f"{param}: not a text (got {value!r:.80})", param)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise invalid(f"{param}: half of a surrogate pair is no text ({error.reason})", param) from None
    return value


def _call(call: Any, param: str) -> dict[str, Any]:
    """With its arguments as an object, which templates write as they like."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise invalid(f"{param}: not a call of a function", param)
    made = {"name": function["name"], "arguments": _arguments(function.get("arguments"), f"{param}.function.arguments")}
    return {"id": str(call.get("id") or ""), "type": "function", "function": made}


def _arguments(given: Any, param: str) -> dict[str, Any]:
    try:
        found = json.loads(given) if isinstance(given, str) and given.strip() else given or {}
    except (ValueError, RecursionError):
        raise _no_object(given, param) from None
    if not isinstance(found, dict):
        raise _no_object(given, param)
    return found


def _no_object(given: Any, param: str) -> APIError:
    return invalid(f"{param}: not the JSON text of an object (got {given!r:.80})", param)
