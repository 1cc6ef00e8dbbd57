"""What a completion's text says beyond its words: thoughts, JSON, and calls of tools."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

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


@dataclass(frozen=True, slots=True)
class Thinking:
    """How a reasoning model marks its thoughts.

    `opening` and `closing` find the marks with what surrounds them, `header` what stands before an answer without
    thoughts; a prompt that ends in `begins` has opened them, one that ends in `ends` has closed them. `ends` also is
    the mark that is waited for under a budget, and `enough` what closes thoughts that went over it.
    """

    opening: re.Pattern[str]
    closing: re.Pattern[str]
    header: re.Pattern[str]
    begins: str
    ends: str
    enough: str


TAGS = Thinking(
    opening=re.compile(r"\s*<think>\s*"),
    closing=re.compile(r"</think>\s*"),
    header=re.compile(r""),
    begins="<think>",
    ends="</think>",
    # Qwen3's own words (arXiv:2505.09388, section 4.3).
    enough="\n\nConsidering the limited time by the user, I have to give the solution based on the thinking directly "
    "now.\n</think>\n\n",
)
"""Qwen3, DeepSeek-R1, SmolLM3, GLM and most others: `<think>...</think>`, before the answer."""

CHANNELS = Thinking(
    opening=re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>analysis<\|message\|>"),
    closing=re.compile(r"<\|end\|>(?:<\|start\|>assistant)?(?:<\|channel\|>final<\|message\|>)?"),
    header=re.compile(r"(?:<\|channel\|>final<\|message\|>)?"),
    begins="<|channel|>analysis<|message|>",
    ends="<|end|>",
    enough="<|end|><|start|>assistant<|channel|>final<|message|>",
)
"""OpenAI's harmony format (gpt-oss): messages in the channels `analysis` and `final`."""


class Parted(NamedTuple):
    """A completion in four pieces, which joined are its text: `before` and `between` are marks and the space around."""

    before: str = ""
    reasoning: str = ""
    between: str = ""
    answer: str = ""
    unfinished: bool = False
    """It ends before its thoughts do."""


def thinking(template: str, tokens: Collection[str]) -> Thinking | None:
    """How a model with this chat template and these added tokens marks its thoughts; None: it marks none."""
    if CHANNELS.begins in template:
        return CHANNELS
    return TAGS if TAGS.ends in template or TAGS.ends in tokens else None


def part(text: str, marks: Thinking | None, opened: bool = False) -> Parted:
    """The thoughts that a completion begins with, and its answer; `opened`: the prompt has opened the thoughts.

    The first closing mark ends them, unless others follow it at once. Marks that come later belong to the answer.
    """
    if marks is None:
        return Parted(answer=text)
    begin = marks.opening.match(text)
    if not begin and not opened:
        header = marks.header.match(text)
        start = header.end() if header else 0
        return Parted(text[:start], answer=text[start:])
    start = begin.end() if begin else len(text) - len(text.lstrip())
    end = marks.closing.search(text, start)
    while end and (again := marks.opening.match(text, end.end())):
        end = marks.closing.search(text, again.end())
    if not end:
        return Parted(text[:start], text[start:], unfinished=True)
    last = start + len(text[start : end.start()].rstrip())
    return Parted(text[:start], text[start:last], text[last : end.end()], text[end.end() :])
