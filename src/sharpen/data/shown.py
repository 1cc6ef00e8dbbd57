"""Does a chat template show what a row has? Many templates silently leave out what they do not know."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sharpen.errors import DataError
from sharpen.types import Message, Tool

Template = Callable[[Sequence[Message], Sequence[Tool]], str]
"""The text of a conversation, by the model's own chat template."""

_KEYS = ("tool_calls", "reasoning_content")


def require_all_shown(
    template: Template, messages: Sequence[Message], tools: Sequence[Tool], trained: Collection[int], place: str
) -> None:
    """Raise DataError where the template renders the same text without the tools, a call, or trained reasoning.

    Reasoning before the last question may be left out: that is what templates of reasoning models do.
    """
    if tools and template(messages, tools) == template(messages, ()):
        raise DataError(
            "the chat template has no tool support: it renders the same text without the tools",
            file=place,
            field="tools",
            value=[tool.get("function", tool).get("name") for tool in tools],
            remedy="Use a model whose chat template takes tools, or write them into the system turn",
        )
    for index, turn in enumerate(messages):
        for key in _KEYS:
            if key not in turn or (key == "reasoning_content" and index not in trained):
                continue
            before, bare = messages[:index], {name: value for name, value in turn.items() if name != key}
            if template([*before, turn], tools) == template([*before, bare], tools):
                raise DataError(
                    f"the chat template leaves out {key}",
                    file=place,
                    field=f"messages[{index}].{key}",
                    value=turn[key],
                    remedy="Use a model whose chat template shows it, or write it into the content",
                )
