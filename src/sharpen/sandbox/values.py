"""Plain typed data between a jail and us, as JSON: what it is comes out exactly, and it can be nothing else.

None, bool, int, float, str, bytes, complex, list, tuple, set, frozenset and dict keep their types; whatever is derived
from one of them becomes it (an IntEnum an int, a Counter a dict), and numpy's scalars and arrays become numbers and
lists. Decoded values are of the built-in types alone, so comparing them runs no foreign code.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

DEEPEST = 100
"""Levels of nesting; a value that refers to itself has more."""

CONTAINERS = 500_000
"""Brackets in a value: an empty list takes 100 times as much memory as it has characters."""

COLLISIONS = 1000
"""Keys of one hash that a set or dict may have: integers can be chosen to collide."""

WHOLE = 1 << 53
"""Integers from here on are written in hexadecimal: other readers of JSON would round them."""

BUILD: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
}


def dumps(value: object) -> bytes:
    """The value as JSON. Raises TypeError or ValueError for what is not plain, or too deep."""
    return ENCODER.encode(_encode(value, DEEPEST)).encode()


def loads(text: bytes) -> Any:
    """The value that `dumps` wrote. Raises ValueError for anything else; it may come from an enemy."""
    try:
        if text.count(b"[") > CONTAINERS:
            raise ValueError(f"more than {CONTAINERS:,} lists in it")
        return _decode(DECODER.decode(text.decode()), DEEPEST)
    except (TypeError, KeyError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"no plain value: {error}") from error


def _encode(value: Any, depth: int) -> Any:
    if value is None or value is True or value is False or type(value) is str:
        return value
    if not depth:
        raise ValueError(f"nested more than {DEEPEST} levels deep")
    if isinstance(value, int):
        number = int(value)
        return number if abs(number) < WHOLE else ["int", hex(number)]
    if isinstance(value, float):
        exact = float(value)
        return exact if math.isfinite(exact) else ["float", repr(exact)]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, complex):
        return ["complex", repr(value.real), repr(value.imag)]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", bytes(value).hex()]
    if isinstance(value, dict):
        return ["dict", [[_encode(key, depth - 1), _encode(inner, depth - 1)] for key, inner in dict.items(value)]]
    for kind in (list, tuple, frozenset, set):
        if isinstance(value, kind):
            inner = kind.__iter__(value)  # type: ignore[arg-type]
            return [kind.__name__, [_encode(part, depth - 1) for part in inner]]
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # numpy
        return _encode(value.tolist(), depth)
    raise TypeError(f"no plain data: {type(value).__module__}.{type(value).__qualname__}")


def _decode(value: Any, depth: int) -> Any:
    if not isinstance(value, list):
        return value
    if not depth:
        raise ValueError(f"nested more than {DEEPEST} levels deep")
    match value:
        case ["int", str(digits)]:
            return int(digits, 16)
        case ["float", "nan" | "inf" | "-inf" as name]:
            return float(name)
        case ["complex", str(real), str(imaginary)]:
            return complex(float(real), float(imaginary))
        case ["bytes", str(digits)]:
            return bytes.fromhex(digits)
        case [str(kind), list(parts)] if kind in BUILD:
            if kind == "dict":
                pairs = [(_decode(key, depth - 1), _decode(part, depth - 1)) for key, part in parts]
                _spread([key for key, _ in pairs])
                return dict(pairs)
            inner = [_decode(part, depth - 1) for part in parts]
            return BUILD[kind](inner if kind in ("list", "tuple") else _spread(inner))
    raise ValueError(f"no plain value: {value!r:.80}")


def _spread(keys: list[Any]) -> list[Any]:
    """The keys, unless so many of them have one hash that building a table of them would take for ever."""
    if len(keys) > COLLISIONS and max(Counter(map(hash, keys)).values()) > COLLISIONS:
        raise ValueError(f"no plain value: more than {COLLISIONS} keys with one hash")
    return keys


def _refuse(name: object) -> Any:
    raise ValueError(f"no plain value: {name!r:.80}")


DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_refuse)
ENCODER = json.JSONEncoder(separators=(",", ":"))
