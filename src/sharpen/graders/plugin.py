"""`plugin`: the operator's own Python function, `fn(sample: dict, item: dict) -> float | dict`."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from sharpen.config.graders import Plugin
from sharpen.graders.base import finite, grader_fault
from sharpen.graders.template import seen
from sharpen.plugins import load
from sharpen.sandbox.run import printable
from sharpen.types import Example, Grade, Sample

MOST = 100
"""Entries of a returned dict."""
FAULT = "python_grader_runtime_error"


class PluginGrader:
    """Calls a function, plain or async, and takes its number (or its dict with "score") for the score.

    An object with `grade` is handed the example and the sample themselves, and may return a Grade. Whatever else
    happens is a fault of the grader: an exception, or a return that is no finite number.
    """

    def __init__(self, config: Plugin, function: Callable[..., Any] | None = None) -> None:
        self._function = load(config.use) if function is None else function

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Call the function with what graders see of the sample, and the item's fields."""
        try:
            returned = self._call(example, sample)
            if inspect.isawaitable(returned):
                returned = await returned
        except (Exception, SystemExit) as error:
            return grader_fault(FAULT, self._describe(error))
        try:
            made = finite(returned if isinstance(returned, Grade) else read_return(returned), FAULT)
        except (TypeError, ValueError, OverflowError) as error:
            made = grader_fault(FAULT, str(error))
        if made.fault is None or made.valid or isinstance(returned, Grade):
            return made
        name = getattr(self._function, "__name__", type(self._function).__name__)
        return grader_fault(FAULT, f'{name}: {made.fault.detail}. Return a finite number, or a dict with "score"')

    def _call(self, example: Example, sample: Sample) -> Any:
        if callable(self._function):
            return self._function(seen(sample), dict(example.item))
        return self._function.grade(example, sample)

    def _describe(self, error: BaseException) -> str:
        """Type, message, and the last line of the function's own file that ran."""
        summary = traceback.format_exception_only(error)[-1].strip()
        frames = traceback.extract_tb(error.__traceback__)[1:]
        code = getattr(inspect.unwrap(self._function), "__code__", None)
        own = [frame for frame in frames if code and frame.filename == code.co_filename] or frames
        return f"{summary} ({own[-1].filename}:{own[-1].lineno})" if own else summary


def read_return(returned: object) -> Grade:
    """The grade that a function's number, or dict with "score", is. Raises TypeError, ValueError or OverflowError."""
    if not isinstance(returned, Mapping):
        return Grade(_number(returned, "the function's return"))
    if "score" not in returned:
        raise ValueError(f'the returned dict has no "score", only {sorted(map(str, returned))}')
    if len(returned) > MOST:
        raise ValueError(f"the returned dict has more than {MOST} entries: {len(returned):,}")
    numbers = {
        printable(str(name)): _number(value, f"{name!r} in the returned dict") for name, value in returned.items()
    }
    return Grade(numbers.pop("score"), numbers)


def _number(value: Any, what: str) -> float:
    """A Python, numpy or torch scalar as a float."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, (bool, int, float)):
        raise TypeError(f"{what} is no number: {value!r:.200}")
    return float(value)
