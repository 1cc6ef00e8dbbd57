"""The index of errors, read from the code that raises them, so that none is missing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from sharpen import errors
from sharpen.errors import SharpenError

SRC = Path(__file__).resolve().parent.parent / "src/sharpen"
NAMES = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, SharpenError)}


def index() -> str:
    """A part for each kind of error: what is said (`…` stands for what differs), and what to do."""
    found: dict[str, set[tuple[str, str]]] = {name: set() for name in NAMES}
    for path in sorted(SRC.rglob("*.py")):
        for name, fact, remedy in _raised(ast.parse(path.read_text("utf-8")), path.is_relative_to(SRC / "config")):
            found[name].add((fact, remedy))
    parts = []
    for name, rows in found.items():
        if rows:
            about = (NAMES[name].__doc__ or "").splitlines()[0]
            lines = [f"| {fact} | {remedy} |" for fact, remedy in sorted(rows)]
            parts.append("\n".join([f"## {name}", "", about, "", "| it says | what to do |", "|---|---|", *lines]))
    return "\n\n".join(parts)


def _raised(tree: ast.AST, checks: bool) -> Iterator[tuple[str, str, str]]:
    """Kind, fact and remedy of every error that the code makes with words of its own.

    Where it `checks` a recipe, its ValueErrors reach the user as ConfigErrors.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            kind = "ConfigError" if checks and node.func.id == "ValueError" else node.func.id
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            for fact in _texts(node.args[0]) if kind in NAMES else ():
                yield kind, _cell(fact), _cell(" · ".join(_texts(given.get("remedy"))))


def _texts(node: ast.AST | None) -> list[str]:
    """The texts that an expression may be; none where it is only a name."""
    match node:
        case ast.Constant(value=str() as text) if text:
            return [text]
        case ast.JoinedStr():
            parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
            text = "".join(parts)
            return [text] if text.strip("… ") else []
        case ast.IfExp():
            return [*_texts(node.body), *_texts(node.orelse)]
        case ast.BinOp(op=ast.Add()):
            return ["".join([(_texts(side) or ["…"])[0] for side in (node.left, node.right)])]
    return []


def _cell(text: str) -> str:
    """The text within a table: on one line, and nothing in it is markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
