"""Templates: `{{ item.a.b[0].c }}` and `{{ sample.output_text }}`, as OpenAI's graders write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.types import Example, Sample

PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
PATH = re.compile(r"[^.\[\]\s]+(?:\.[^.\[\]\s]+|\[\d+\])*")
STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
NOT_YET = {"output_json", "output_tools", "choices"}


class InvalidVariable(Exception):
    """A placeholder names nothing that this example or sample has."""


def render(template: str, example: Example, sample: Sample) -> str:
    """The template with its placeholders replaced; lists and objects appear as JSON.

    Raises InvalidVariable for an unknown or empty (null) variable.
    """
    variables = {"item": example.item, "sample": {"output_text": sample.text, **sample.turns()}}
    return PLACEHOLDER.sub(lambda found: _text(_look_up(found[1].strip(), variables)), template)


def look_up(template: str, example: Example, sample: Sample) -> Any:
    """The value a template names when it is one placeholder and nothing else; else its text, as `render`."""
    alone = PLACEHOLDER.fullmatch(template.strip())
    if alone and "{{" not in alone[1]:
        return _look_up(alone[1].strip(), {"item": example.item, "sample": {"output_text": sample.text}})
    return render(template, example, sample)


def _look_up(path: str, variables: Mapping[str, Any]) -> Any:
    if not PATH.fullmatch(path):
        raise InvalidVariable(f"{{{{ {path} }}}} is not a path such as item.answer or item.steps[0].text")
    found: Any = variables
    for index, key in STEP.findall(path):
        try:
            found = _element(found, int(index)) if index else _field(found, key)
        except (KeyError, IndexError) as error:
            raise InvalidVariable(_unknown(path, key or f"[{index}]", found)) from error
    if found is None:
        raise InvalidVariable(f"{{{{ {path} }}}} is null")
    return found


def _field(value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise KeyError(key)
    return value[key]


def _element(value: Any, index: int) -> Any:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise IndexError(index)
    return value[index]


def _unknown(path: str, step: str, within: Any) -> str:
    if path.startswith("sample.") and step in NOT_YET:
        return f"{{{{ {path} }}}} is not available yet: a sample has only output_text"
    has = f"its fields are {sorted(map(str, within))}" if isinstance(within, Mapping) else f"it is {within!r:.80}"
    return f"{{{{ {path} }}}} names nothing: there is no {step}, {has}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (Mapping, list, tuple)) else str(value)
