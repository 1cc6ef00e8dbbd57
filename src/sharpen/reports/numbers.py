"""Figures out of files, and figures as a reader wants them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

Unit = Literal["share", "number", "seconds"]
MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


class Span(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


def at(record: Any, *keys: str) -> Any:
    """What stands under the keys, or None where anything on the way is missing or of another shape."""
    for key in keys:
        if not isinstance(record, Mapping):
            return None
        record = record.get(key)
    return record


def finite(record: Any, *keys: str) -> float | None:
    """The finite number under the keys, or None."""
    value = at(record, *keys)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond any float
        return None


def span(record: Any, *keys: str) -> Span | None:
    """The interval under the keys, or None."""
    value = at(record, *keys)
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = finite({"": value[0]}, ""), finite({"": value[1]}, "")
    return None if low is None or high is None else Span(low, high)


def show(value: float | None, unit: Unit = "number") -> str:
    """A value in its unit: `43.2%`, `0.0312`, `1 min 20 s`."""
    if value is None:
        return MISSING
    if unit == "share":
        return f"{value * 100:.1f}%".replace("-", MINUS)
    if unit == "seconds":
        return duration(value)
    return plain(value)


def plain(value: float) -> str:
    """About three significant digits: `0.0312`, `12.4`, `18,204`, `2.1e-05`."""
    size = abs(value)
    if size >= 1000 or value == round(value):
        text = f"{value:,.0f}"
    elif size != 0 and size < 0.001:
        text = f"{value:.1e}"
    else:
        text = f"{value:.{3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0}f}"
    return text if size < 0.001 else text.replace("-", MINUS)


def points(value: float | None) -> str:
    """A change of a share in percentage points, with its sign."""
    if value is None:
        return MISSING
    text = f"{value * 100:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def duration(seconds: float) -> str:
    """`3.4 s`, `2 min 5 s`, `1 h 4 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def count(value: float | None) -> str:
    """`812`, `41.2 k`, `1.25 M`."""
    if value is None:
        return MISSING
    if value < 10_000:
        return f"{value:,.0f}"
    return f"{value / 1e3:,.1f} k" if value < 1e6 else f"{value / 1e6:,.2f} M"


def roughly(seconds: float) -> str:
    """A forecast: no tenths from 10 seconds on."""
    return duration(seconds) if seconds < 10 else duration(round(seconds)).replace(".0 s", " s")


def memory(value: float) -> str:
    """Bytes as `1.4 GB` or `310 MB`."""
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def moment(value: Any) -> datetime | None:
    """A time as seconds since 1970 or in ISO 8601, in UTC."""
    try:
        if isinstance(value, str):
            read = datetime.fromisoformat(value)
            return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
        number = finite({"": value}, "")
        return None if number is None else datetime.fromtimestamp(number, UTC)
    except (ValueError, OverflowError, OSError):
        return None
