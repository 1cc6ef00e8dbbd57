"""Go's text/template as far as Ollama's TEMPLATEs of ours need it, to know what Ollama will write.

Text, trimmed by `{{-` and `-}}`; `if`, `else if`, `else`, `range` (with index and element), `end`; fields, variables
and their assignment; text, numbers, and the functions below. What is beyond raises ValueError instead of being guessed.
Semantics: https://pkg.go.dev/text/template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_ACTION = re.compile(r"\{\{(- )?((?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|(?!\}\}).)*?)( -)?\}\}", re.DOTALL)
_COMMENT = re.compile(r"\s*/\*.*\*/\s*", re.DOTALL)
_WORD = re.compile(
    r"""\s*(?:(?P<text>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+)|(?P<sign>:=|=|[(),])"""
    r"""|(?P<field>\$?\w*(?:\.\w+)+|\$\w*|\.)|(?P<name>\w+))""",
)
_SPACE = " \t\r\n"


def render(template: str, data: Mapping[str, Any]) -> str:
    """What Go makes of the template and the data. Raises ValueError for what is not in our part of the language."""
    parts = _split(template)
    nodes, end = _block(parts, 0)
    if end != len(parts):
        raise ValueError(f"an action without a beginning: {parts[end].text}")
    return "".join(_run(nodes, data, [{"$": data}]))


class _Part(NamedTuple):
    """A piece of text, or what stands in an action."""

    action: bool
    text: str


@dataclass(slots=True)
class _Branch:
    """`if` or `range`, with what follows where it is empty."""

    kind: str
    head: str
    then: list[Any] = field(default_factory=list)
    otherwise: list[Any] = field(default_factory=list)


def _split(template: str) -> list[_Part]:
    parts: list[_Part] = []
    place, trim = 0, False
    for found in _ACTION.finditer(template):
        text = template[place : found.start()]
        text = text.lstrip(_SPACE) if trim else text
        parts.append(_Part(False, text.rstrip(_SPACE) if found[1] else text))
        if not _COMMENT.fullmatch(found[2]):
            parts.append(_Part(True, found[2].strip()))
        place, trim = found.end(), bool(found[3])
    rest = template[place:]
    parts.append(_Part(False, rest.lstrip(_SPACE) if trim else rest))
    if any("{{" in part.text for part in parts if not part.action):
        raise ValueError("an action that does not end")
    return parts


def _block(parts: Sequence[_Part], place: int) -> tuple[list[Any], int]:
    """The nodes up to the `else` or `end` that closes them, and where that stands."""
    nodes: list[Any] = []
    while place < len(parts):
        part = parts[place]
        kind = part.text.split(None, 1)[0] if part.action and part.text else ""
        if kind in ("else", "end"):
            break
        if kind in ("if", "range"):
            node, place = _branch(parts, place, part.text)
            nodes.append(node)
        else:
            nodes.append(part)
            place += 1
    return nodes, place


def _branch(parts: Sequence[_Part], place: int, text: str) -> tuple[_Branch, int]:
    kind, _, head = text.partition(" ")
    node = _Branch(kind, head)
    node.then, place = _block(parts, place + 1)
    if place < len(parts) and parts[place].text.startswith("else"):
        after = parts[place].text.removeprefix("else").strip()
        if after:  # `else if` needs no `end` of its own
            inner, place = _branch(parts, place, after)
            node.otherwise = [inner]
            return node, place
        node.otherwise, place = _block(parts, place + 1)
    if place >= len(parts) or parts[place].text != "end":
        raise ValueError(f"no end of: {text}")
    return node, place + 1


def _run(nodes: Sequence[Any], dot: Any, scopes: list[dict[str, Any]]) -> list[str]:
    """What the nodes write, where `.` is `dot`; the variables of inner scopes come last."""
    out: list[str] = []
    for node in nodes:
        if isinstance(node, _Branch):
            out += _choose(node, dot, scopes)
        elif not node.action:
            out.append(node.text)
        else:
            value = _statement(node.text, dot, scopes)
            out.append("" if value is None else _written(value))
    return out


def _choose(node: _Branch, dot: Any, scopes: list[dict[str, Any]]) -> list[str]:
    if node.kind == "if":
        chosen = node.then if _true(_value(node.head, dot, scopes)) else node.otherwise
        return _run(chosen, dot, [*scopes, {}])
    names, _, listed = node.head.rpartition(":=")
    items = _value(listed, dot, scopes)
    if not items:
        return _run(node.otherwise, dot, [*scopes, {}])
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    out: list[str] = []
    for place, item in enumerate(items):
        given = [place, item][-len(wanted) :] if wanted else []  # one name is the element's
        out += _run(node.then, item, [*scopes, dict(zip(wanted, given, strict=True))])
    return out


def _statement(text: str, dot: Any, scopes: list[dict[str, Any]]) -> Any:
    """The value to write; None for a declaration or an assignment, which write nothing."""
    found = re.fullmatch(r"(\$\w+)\s*(:?=)\s*(.*)", text, re.DOTALL)
    if not found:
        return _value(text, dot, scopes)
    value = _value(found[3], dot, scopes)
    home = scopes[-1] if found[2] == ":=" else next((s for s in reversed(scopes) if found[1] in s), None)
    if home is None:
        raise ValueError(f"an undefined variable: {found[1]}")
    home[found[1]] = value
    return None


def _value(text: str, dot: Any, scopes: list[dict[str, Any]]) -> Any:
    words, place = [], 0
    while text[place:].strip():
        found = _WORD.match(text, place)
        if not found or found.end() == place:
            raise ValueError(f"not in our part of Go's templates: {text}")
        words.append((found.lastgroup or "", found.group(found.lastgroup or "")))
        place = found.end()
    value, rest = _command(words, dot, scopes)
    if rest:
        raise ValueError(f"not in our part of Go's templates: {text}")
    return value


_Words = list[tuple[str, str]]


def _command(words: _Words, dot: Any, scopes: list[dict[str, Any]]) -> tuple[Any, _Words]:
    """A function with its arguments, or one value, and the words after it."""
    if not words:
        raise ValueError("an empty action")
    kind, text = words[0]
    if kind != "name" or text in ("true", "false"):
        return _operand(words, dot, scopes)
    if text not in FUNCTIONS:
        raise ValueError(f"an unknown function: {text}")
    values, rest = [], words[1:]
    while rest and rest[0][1] != ")":
        value, rest = _operand(rest, dot, scopes)
        values.append(value)
    return FUNCTIONS[text](*values), rest


def _operand(words: _Words, dot: Any, scopes: list[dict[str, Any]]) -> tuple[Any, _Words]:
    (kind, text), rest = words[0], words[1:]
    if text == "(":
        value, rest = _command(rest, dot, scopes)
        if not rest or rest[0][1] != ")":
            raise ValueError("a bracket that does not close")
        rest = rest[1:]
        if rest and rest[0][0] == "field" and re.fullmatch(r"(\.\w+)+", rest[0][1]):  # (index .Messages 0).Role
            return _field(value, rest[0][1]), rest[1:]
        return value, rest
    if kind == "text":
        return text[1:-1] if text[0] == "`" else json.loads(text), rest
    if kind == "number":
        return int(text), rest
    if kind == "field":
        name, dotted, path = text.partition(".")
        if not name:
            return _field(dot, dotted + path), rest
        home = next((scope for scope in reversed(scopes) if name in scope), None)
        if home is None:
            raise ValueError(f"an undefined variable: {name}")
        return _field(home[name], dotted + path), rest
    if text in ("true", "false"):
        return text == "true", rest
    raise ValueError(f"not a value: {text}")


def _field(value: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        if not isinstance(value, Mapping) or name not in value:
            raise ValueError(f"no field {name}")
        value = value[name]
    return value


def _true(value: Any) -> bool:
    """Go's truth: not false, 0, or empty."""
    return bool(value)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value)
    raise ValueError(f"not a value to write: {type(value).__name__}")


def _and(*values: Any) -> Any:
    return next((value for value in values if not _true(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if _true(value)), values[-1])


FUNCTIONS: dict[str, Any] = {
    "and": _and,
    "or": _or,
    "not": lambda value: not _true(value),
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "len": len,
    "slice": lambda items, *ends: items[slice(*ends) if len(ends) == 2 else slice(ends[0], None)],
    "index": lambda items, place: items[place],
}
"""Those of Go that our templates and Ollama's own use."""
