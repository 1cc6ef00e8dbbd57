"""`rubric`: reward functions written for verifiers, each handed by name what its signature asks for.

As in `Rubric.score_rollout` of verifiers (verifiers/legacy/rubrics/rubric.py at a60a606): with `**kwargs` a function is
handed everything. Where verifiers counts an exception as 0, here it is a fault of the grader.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from sharpen.config.graders.adapters import Rubric
from sharpen.errors import ConfigError
from sharpen.graders.base import finite, grader_fault
from sharpen.graders.foreign import number, said, text_of
from sharpen.graders.plugin import FAULT
from sharpen.plugins import load
from sharpen.sandbox.worker import describe
from sharpen.types import Example, Grade, Message, Sample

OF_A_GROUP = frozenset({"prompts", "completions", "answers", "states", "tasks", "infos"})
"""Parameters by which verifiers knows a function that compares the attempts of a group."""
NO_FIELDS = frozenset({"prompt", "answer", "info", "example_id"})
"""Fields of a row that are handed over otherwise than under their own names."""


class Parser:
    """The plain one of verifiers: an answer is the text of the last assistant turn."""

    def parse(self, text: str) -> str:
        """The text."""
        return text

    def parse_answer(self, completion: list[Message] | str) -> str | None:
        """The text of the last assistant turn; None where there is no such turn."""
        if isinstance(completion, str):
            return self.parse(completion)
        turns = self.get_assistant_messages(completion)
        return self.parse(text_of(turns[-1:])) if turns else None

    def get_assistant_messages(self, completion: list[Message]) -> list[Message]:
        """The assistant's turns."""
        return [message for message in completion if message.get("role") == "assistant"]


class RubricGrader:
    """The weighted sum of the functions' values; each value, whatever its weight, is in `metrics`."""

    def __init__(self, config: Rubric) -> None:
        """Raises ConfigError where a function cannot be loaded or called so, or two have one name."""
        found = load(config.parser) if config.parser else Parser
        self._parser = found() if isinstance(found, type) else found
        self._functions: dict[str, tuple[Callable[..., Any], float]] = {}
        for part in config.functions:
            function = load(part.use)
            name = str(getattr(function, "__name__", part.use))
            if name in self._functions:
                raise ConfigError("two functions of the rubric have one name", value=name, remedy="Rename one of them")
            if group := OF_A_GROUP & _parameters(function).keys():
                raise ConfigError(
                    f"this function compares the attempts of a group ({', '.join(sorted(group))}), and a rubric's are "
                    "called for one attempt at a time",
                    value=part.use,
                    remedy="Write it for one attempt; a `trl` function sees the whole batch",
                )
            self._functions[name] = function, part.weight

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Call every function, in order; they share `state`."""
        try:
            objects = self._objects(example, sample)
        except ValueError as error:
            return grader_fault("invalid_variable_error", f"`info` is a text, but no JSON: {error}")
        values: dict[str, float] = {}
        for name, (function, _) in self._functions.items():
            missing = [wanted for wanted in _needed(function) if wanted not in objects]
            if missing:
                has = sorted(map(str, example.item))
                why = f"{name} asks for {', '.join(missing)}, which the item does not have; its fields are {has}"
                return grader_fault("invalid_variable_error", why)
            try:
                returned = function(**_asked(function, objects))
                if inspect.isawaitable(returned):
                    returned = await returned
                values[name] = number(returned, "its value")
            except (Exception, SystemExit) as error:
                return grader_fault(FAULT, f"{name}: {describe(error)}")
        score = sum(weight * values[name] for name, (_, weight) in self._functions.items())
        terms = " + ".join(f"{weight:g} × {name} {values[name]:g}" for name, (_, weight) in self._functions.items())
        return finite(Grade(score, values, terms), FAULT)

    def _objects(self, example: Example, sample: Sample) -> dict[str, Any]:
        """What functions may ask for, by name. Raises ValueError."""
        item = dict(example.item)
        info = item.get("info", {})
        shared = {
            "prompt": [dict(message) for message in example.messages],
            "completion": said(sample),
            "info": json.loads(info) if isinstance(info, str) else info,  # as data sets keep it that know no objects
            "task": item.get("task"),
        }
        if "answer" in item:
            shared["answer"] = item["answer"]
        own = {name: value for name, value in item.items() if name not in NO_FIELDS}
        return {**own, **shared, "state": shared.copy(), "parser": self._parser}


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:  # built in
        raise ConfigError(f"a rubric's function must have a signature: {error}", value=repr(function)) from error


def _needed(function: Callable[..., Any]) -> list[str]:
    """The parameters that a function cannot be called without."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    each = _parameters(function).values()
    return [one.name for one in each if one.default is one.empty and one.kind not in variable]


def _asked(function: Callable[..., Any], objects: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the objects that a function's signature names, or all where it takes any."""
    parameters = _parameters(function)
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return dict(objects)
    return {name: value for name, value in objects.items() if name in parameters}
