"""Templates: `{{ item.a.b[0].c }}` and `{{ sample.output_text }}`, as OpenAI's graders write them.

`sample.output_json` is the completion as JSON (all of it, or its last ```json block), `sample.output_tools` the calls
in it, `sample.choices` the message; a path into them that leads nowhere is the completion's fault.
`sample.reasoning_text` is what a reasoning model thought before its answer, empty where there is nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sharpen.completion import output_json, output_tools
from sharpen.graders.base import completion_fault, grader_fault
from sharpen.types import Example, Grade, Sample

PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
PATH = re.compile(r"[^.\[\]\s]+(?:\.[^.\[\]\s]+|\[\d+\])*")
STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


class InvalidVariable(Exception):
    """A placeholder names nothing that this example or sample has."""

    def grade(self) -> Grade:
        """No score: the recipe or the item is at fault."""
        return grader_fault("invalid_variable_error", str(self))


class Unreadable(InvalidVariable):
    """A placeholder names something that this completion should have had: JSON, a call, a field in them."""

    def grade(self) -> Grade:
        """The minimum: the completion is at fault."""
        return completion_fault("sample_parse_error", str(self), {"format": 0.0})


def seen(sample: Sample) -> dict[str, Any]:
    """What graders see of a sample, under OpenAI's names; `output_json` is None where the text is no JSON."""
    calls = output_tools(sample.text)
    message = {**sample.message(), "tool_calls": calls or None}
    return {
        "output_text": sample.text,
        "reasoning_text": sample.reasoning,
        "output_json": _json(sample.text),
        "output_tools": calls,
        "choices": [{"index": 0, "message": message, "finish_reason": sample.finish}],
        "finish": sample.finish,
        **sample.turns(),
    }


Show = Callable[[str, str], str]
"""How what a path names appears, given the path and its text."""


def render(template: str, example: Example, sample: Sample, show: Show = lambda path, text: text) -> str:
    """The template with its placeholders replaced; lists and objects appear as JSON.

    Raises InvalidVariable for an unknown or empty (null) variable.
    """

    def replaced(found: re.Match[str]) -> str:
        path = found[1].strip()
        return show(path, as_text(value(path, example, sample)))

    return PLACEHOLDER.sub(replaced, template)


def look_up(template: str, example: Example, sample: Sample) -> Any:
    """The value a template names when it is one placeholder and nothing else; else its text, as `render`."""
    alone = PLACEHOLDER.fullmatch(template.strip())
    if alone and "{{" not in alone[1]:
        return value(alone[1].strip(), example, sample)
    return render(template, example, sample)


def value(path: str, example: Example, sample: Sample) -> Any:
    """What a path such as `item.answer` names. Raises InvalidVariable."""
    if not PATH.fullmatch(path):
        raise InvalidVariable(f"{{{{ {path} }}}} is not a path such as item.answer or item.steps[0].text")
    found: Any = {"item": example.item, "sample": seen(sample)} if path.startswith("sample") else {"item": example.item}
    names: list[str] = []
    for index, key in STEP.findall(path):
        # Below one of the names that are read from the text, what is missing is missing in the completion.
        error = Unreadable if len(names) > 1 and names[0] == "sample" else InvalidVariable
        try:
            found = _element(found, int(index)) if index else _field(found, key)
        except (KeyError, IndexError) as missing:
            raise error(_unknown(path, key or f"[{index}]", found)) from missing
        names.append(key)
    if found is None:
        error = Unreadable if names[:2] == ["sample", "output_json"] else InvalidVariable
        what = "is null, or the completion is no JSON" if error is Unreadable else "is null"
        raise error(f"{{{{ {path} }}}} {what}")
    return found


def _json(text: str) -> Any:
    try:
        return output_json(text)
    except ValueError:
        return None


def _field(value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise KeyError(key)
    return value[key]


def _element(value: Any, index: int) -> Any:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise IndexError(index)
    return value[index]


def _unknown(path: str, step: str, within: Any) -> str:
    has = f"its fields are {sorted(map(str, within))}" if isinstance(within, Mapping) else f"it is {within!r:.80}"
    return f"{{{{ {path} }}}} names nothing: there is no {step}, {has}"


def as_text(value: Any) -> str:
    """How a value appears in a text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (Mapping, list, tuple)) else str(value)
