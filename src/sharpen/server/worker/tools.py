"""Tools for models whose chat template has no place for them: a system message describes them, as Qwen2.5's does."""

from __future__ import annotations

import json
from typing import Any

from sharpen.data.render import Renderer
from sharpen.envs.tools import ANNOUNCEMENT
from sharpen.errors import DataError

Line = dict[str, Any]

PROBE = "sharpen_looks_for_this"
WORDS = f"# Tools\n\n{ANNOUNCEMENT}"
"""The template of Qwen2.5-Instruct, which is Hermes' form."""


def shows_tools(renderer: Renderer) -> bool:
    """Whether the chat template itself writes tools."""
    tool = {"type": "function", "function": {"name": PROBE, "description": "", "parameters": {"type": "object"}}}
    try:
        prompt = renderer.prompt([{"role": "user", "content": "?"}], [tool])
    except DataError:
        return False
    return PROBE in str(renderer.tokenizer.decode(prompt))


def in_words(messages: list[Line], tools: list[Line]) -> list[Line]:
    """The messages with tools, calls and their results as text."""
    said = [_message(message) for message in messages]
    if not tools:
        return said
    written = WORDS.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    if said[0]["role"] == "system":
        return [{**said[0], "content": f"{said[0]['content']}\n\n{written}"}, *said[1:]]
    return [{"role": "system", "content": written}, *said]


def _message(message: Line) -> Line:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    calls = message.get("tool_calls") or ()
    texts = [message["content"], *(_call(call) for call in calls)]
    kept = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**kept, "content": "\n".join(text for text in texts if text)}


def _call(call: Line) -> str:
    function = call["function"]
    written = json.dumps({"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False)
    return f"<tool_call>\n{written}\n</tool_call>"
