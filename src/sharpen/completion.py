"""What a completion's text says beyond its words: JSON, and calls of tools."""

from __future__ import annotations

import json
import re
from typing import Any

FENCED = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)```", re.DOTALL)
CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, for NaN, Infinity and endless nesting too."""
    try:
        return json.loads(text.strip(), parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def output_json(text: str) -> Any:
    """The value of a completion that is JSON, or of its last ```json block. Raises ValueError where it is none."""
    blocks = FENCED.findall(text)
    return parse_json(blocks[-1] if blocks else text)


def refuse_constant(constant: str) -> Any:
    """Raises ValueError: NaN and Infinity are not JSON."""
    raise ValueError(f"{constant} is not JSON")


def calls(text: str) -> list[str]:
    """The texts of the calls in a turn, in the Hermes and Qwen form; a call only thought of is none."""
    return CALL.findall(text.rpartition("</think>")[2])


class CallError(ValueError):
    """A text is no call of a tool."""


def parse_call(text: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a call. Raises CallError with what is wrong, for the model to read."""
    try:
        call = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CallError(f"the call is not JSON: {error}") from None
    match call:
        case {"name": str() as name, "arguments": dict() as arguments}:
            return name, arguments
    raise CallError('a call must be {"name": "...", "arguments": {...}}')


def output_tools(text: str) -> list[dict[str, Any]]:
    """The calls in a turn that can be read, as OpenAI's API writes them; `arguments` is JSON text."""
    found = []
    for number, written in enumerate(calls(text)):
        try:
            name, arguments = parse_call(written)
        except CallError:
            continue
        function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
        found.append({"id": f"call_{number}", "type": "function", "function": function})
    return found
