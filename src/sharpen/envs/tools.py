"""`tools`: the model calls Python functions in the Hermes and Qwen form, and reads what they return.

    <tool_call>
    {"name": "calculator", "arguments": {"expression": "3 * 7"}}
    </tool_call>

A call that cannot be read, an unknown tool, wrong arguments and a ToolError are told to the model: they are data.
Any other exception in a tool is a fault of the environment.
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

from sharpen.completion import CallError, calls, parse_call
from sharpen.config.envs import TOOLSETS, Tools
from sharpen.envs.base import Step, ToolError
from sharpen.errors import ConfigError
from sharpen.plugins import load
from sharpen.types import Example, Message

Tool = Callable[..., Any]

JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}

ANNOUNCEMENT = """You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
"""Qwen 2.5's wording (its chat template), after Hermes 2 Pro."""


class ToolEnv:
    """Opens episodes in which the model may call tools; a turn without a call ends one."""

    def __init__(self, config: Tools) -> None:
        """Raises ConfigError where `use` names no tools."""
        self.config = config
        self.tools = toolset(config.use)

    async def open(self, example: Example) -> ToolEpisode:
        """The example's messages, with the tools described in the system message."""
        messages = tuple(example.messages)
        return ToolEpisode(self, announced(messages, self.tools) if self.config.announce else messages)


class ToolEpisode:
    """Answers each call of a turn; its state counts calls and mistakes."""

    def __init__(self, env: ToolEnv, messages: tuple[Message, ...]) -> None:
        self.messages = messages
        self._env = env
        self._calls = self._errors = 0

    async def step(self, message: Message) -> Step:
        """A tool message for each call."""
        answers = [await self._answer(text) for text in calls(message["content"])]
        state = {"calls": self._calls, "errors": self._errors}
        if not answers:
            return Step(done=True, state=state)
        return Step([self._message(name, text) for name, text in answers], state=state)

    async def close(self) -> None:
        """Nothing to close."""

    async def _answer(self, text: str) -> tuple[str, str]:
        """The name of the tool called and its answer."""
        self._calls += 1
        name = ""
        try:
            name, arguments = parse_call(text)
            return name, await run(self._env.tools, name, arguments)
        except (CallError, ToolError) as error:
            self._errors += 1
            return name, f"error: {error}"

    def _message(self, name: str, text: str) -> Message:
        limit = self._env.config.max_reply
        if len(text) > limit:
            text = f"{text[:limit]} … [{len(text) - limit} more characters]"
        if self._env.config.reply_role == "user":
            return {"role": "user", "content": f"<tool_response>\n{text}\n</tool_response>"}
        return {"role": "tool", "name": name, "content": text}


async def run(tools: Mapping[str, Tool], name: str, arguments: Mapping[str, Any]) -> str:
    """What the tool returns, as text. Raises ToolError for a mistake of the caller's."""
    if name not in tools:
        raise ToolError(f"there is no tool {name!r}; the tools are {', '.join(tools)}")
    tool = tools[name]
    try:
        inspect.signature(tool).bind(**arguments)
    except TypeError as error:
        raise ToolError(f"{name}: {error}") from None
    for key, value in arguments.items():
        hint = get_type_hints(tool).get(key, Any)
        if not _fits(value, hint):
            raise ToolError(f"{name}: {key} must be of {json.dumps(_json_type(hint))}")
    returned = tool(**arguments)
    if inspect.isawaitable(returned):
        returned = await returned
    return returned if isinstance(returned, str) else json.dumps(returned, ensure_ascii=False)


def toolset(use: str) -> dict[str, Tool]:
    """The functions that a reference names: one function, or a list of them. Raises ConfigError for anything else."""
    found = load(TOOLSETS.get(use, use))
    tools: Sequence[Any] = found if isinstance(found, list | tuple) else [found]
    if not tools or not all(callable(tool) and hasattr(tool, "__name__") for tool in tools):
        raise ConfigError(
            "not a toolset", path="env.use", value=use, remedy="Name a function, or a list of functions with names"
        )
    return {tool.__name__: tool for tool in tools}


def announced(messages: tuple[Message, ...], tools: Mapping[str, Tool]) -> tuple[Message, ...]:
    """The messages, with the tools described at the end of their system message."""
    text = ANNOUNCEMENT.format(
        tools="\n".join(json.dumps({"type": "function", "function": schema(tool)}) for tool in tools.values())
    )
    if messages and messages[0]["role"] == "system":
        return ({**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:])
    return ({"role": "system", "content": text}, *messages)


def schema(tool: Tool) -> dict[str, Any]:
    """A function as OpenAI's API describes it: name, docstring, and parameters by their annotations."""
    hints = get_type_hints(tool)
    parameters = inspect.signature(tool).parameters
    return {
        "name": tool.__name__,
        "description": inspect.getdoc(tool) or "",
        "parameters": {
            "type": "object",
            "properties": {name: _json_type(hints.get(name, Any)) for name in parameters},
            "required": [name for name, given in parameters.items() if given.default is inspect.Parameter.empty],
        },
    }


def _json_type(hint: Any) -> dict[str, Any]:
    names = list(dict.fromkeys(JSON_TYPES[base] for base in _bases(hint) if base in JSON_TYPES))
    return {"type": names[0]} if len(names) == 1 else {"type": names} if names else {}


def _bases(hint: Any) -> tuple[Any, ...]:
    """The plain types of an annotation: `list[int] | None` gives list and NoneType."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(base for part in get_args(hint) for base in _bases(part))
    return (get_origin(hint) or hint,)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of the annotated type; an annotation that is not JSON's lets everything pass."""
    bases = _bases(hint)
    if any(base not in JSON_TYPES and base is not type(None) for base in bases):
        return True
    if isinstance(value, bool):
        return bool in bases
    return isinstance(value, (*bases, int) if float in bases else bases)
