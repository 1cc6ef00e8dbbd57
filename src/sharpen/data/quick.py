"""The quick way to a plain JSON object: for nearly every line, at a third of the time of the careful one."""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_BRACKETS = 100
"""A line with no more opening brackets is not nested deeper than rows may be."""

_STRANGE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
"""Escapes of NUL and of surrogates."""


def record(line: str) -> dict[str, Any] | None:
    """The object of a line that holds nothing strange; None where the careful way has to look, and to say why."""
    if line.count("{") + line.count("[") > MAX_BRACKETS or ("\\u" in line and _STRANGE.search(line)):
        return None
    try:
        value = _DECODER.decode(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a finite number")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite, parse_constant=_refuse)
