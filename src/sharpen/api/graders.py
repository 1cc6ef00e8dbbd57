"""Python functions and objects as graders: how a recipe names them, and what is wrong with them at first sight."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import cloudpickle  # type: ignore[import-untyped]
from pydantic import ValidationError

from sharpen.config.base import Config
from sharpen.config.graders import GraderConfig
from sharpen.config.load import explain
from sharpen.errors import ConfigError
from sharpen.types import Example, Sample

C = TypeVar("C", bound=Config)

GraderFunction = Callable[[dict[str, Any], dict[str, Any]], Any]
"""`fn(sample, item)`: `sample["output_text"]` is the completion, `item` has the row's other fields. It returns a
number, or a dict of numbers of which `"score"` teaches; it may be async."""


class GraderObject(Protocol):
    """An object with `grade`, plain or async, which sees the whole example and returns a Grade, a number or a dict."""

    def grade(self, example: Example, sample: Sample, /) -> Any:
        """What it says of the sample."""
        ...


Grader = GraderFunction | GraderObject | GraderConfig | Mapping[str, Any] | str
"""A function or an object; or what a recipe takes: a grader's config, also as a mapping, or its type (`"math"`)."""


@dataclass(frozen=True)
class Graded(Generic[C]):
    """A stage or an eval, together with the function or object that grades it."""

    config: C
    grader: GraderFunction | GraderObject


def graded(model: type[C], values: dict[str, Any], grader: Grader | None) -> C | Graded[C]:
    """The config with its grader. Raises ConfigError."""
    if isinstance(grader, str):
        grader = {"type": grader}
    if grader is None or isinstance(grader, Config | Mapping) or not _grades(grader):
        return checked(model, {**values, "grader": grader})
    _check(grader)
    return Graded(checked(model, {**values, "grader": {"type": "plugin", "use": name_of(grader)}}), grader)


def checked(model: type[C], values: dict[str, Any]) -> C:
    """The config that the values describe. Raises ConfigError, in the recipe's words."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explain(error, model) from error


def name_of(grader: Any) -> str:
    """`module:function`, as a recipe names code; `module:Class()` for an object, which no recipe can import."""
    if inspect.ismethod(grader):
        return f"{name_of(grader.__self__)}.{grader.__name__}"
    if hasattr(grader, "__qualname__"):
        return f"{grader.__module__}:{grader.__qualname__}"
    return f"{type(grader).__module__}:{type(grader).__qualname__}()"


def _grades(grader: Any) -> bool:
    return callable(grader) or callable(getattr(grader, "grade", None))


def _check(grader: GraderFunction | GraderObject) -> None:
    """Raise ConfigError for what could grade nothing."""
    name = name_of(grader).partition(":")[2]
    if isinstance(grader, type):
        raise ConfigError("a class is no grader", path="grader", value=name, remedy=f"Give an object of it: {name}()")
    call, arguments = (grader, "sample, item") if callable(grader) else (grader.grade, "example, sample")
    try:
        inspect.signature(call).bind(None, None)
    except TypeError as error:
        raise ConfigError(
            f"{name} cannot be called with ({arguments}): {error}",
            path="grader",
            remedy="A function written for TRL goes into a module: {'type': 'trl', 'use': 'module:function'}"
            if "completions" in inspect.signature(call).parameters
            else f"Write def {name}({arguments})",
        ) from error
    except ValueError:  # a function in C tells nothing of its arguments
        pass
    try:
        cloudpickle.dumps(grader)
    except Exception as error:
        raise ConfigError(
            f"{name} cannot be sent to the processes in which graders run: {error}",
            path="grader",
            remedy="Open files and connections, and make locks, inside the function",
        ) from error
