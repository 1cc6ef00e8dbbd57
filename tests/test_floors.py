"""The house stands as docs/architecture.md draws it: imports go down, none go round, and the door is light."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src/sharpen"


def floors() -> dict[str, int]:
    """Each package's or module's floor, as the drawing in docs/architecture.md says; `__init__` is the top."""
    drawing = (ROOT / "docs/architecture.md").read_text("utf-8").split("```")[1]
    found: dict[str, int] = {}
    floor = -1
    for line in drawing.splitlines()[2:]:
        digit, names = re.match(r"(\d?)(.*)", line).groups()  # type: ignore[union-attr]
        floor = int(digit or floor)
        for name in re.findall(r"(?<![\w.])(\w+)(?:/|\.py\b)", names):
            found.setdefault(name, floor)
    return found


FLOOR = floors()


def modules() -> dict[str, Path]:
    """Dotted name of every module to its file."""
    names = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = ("sharpen", *path.relative_to(SRC).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def package_of(module: str) -> str:
    """The entry in the drawing that a module belongs to: `sharpen.data.pack` to `data`."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(tree: ast.AST) -> set[str]:
    """The modules of ours that the code imports, in functions and for type checking too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are written in full"
            base = node.module or ""
            names = [alias.name for alias in node.names if not alias.name.startswith("__")]  # __version__ is no module
            found |= {module if (module := f"{base}.{name}") in MODULES else base for name in names}
    return {name for name in found if name in MODULES}


def test_every_package_has_a_floor() -> None:
    without = {package_of(module) for module in MODULES} - FLOOR.keys()
    assert not without, f"draw {without} in docs/architecture.md"


def test_imports_go_down() -> None:
    for module, path in MODULES.items():
        package = package_of(module)
        others = {package_of(name) for name in imports(ast.parse(path.read_text("utf-8")))} - {package}
        wrong = {name for name in others if FLOOR[name] >= FLOOR[package]}
        assert not wrong, f"{path}, on floor {FLOOR[package]}, imports {wrong}"


def test_no_import_goes_round() -> None:
    graph = {name: imports(ast.parse(path.read_text("utf-8"))) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_help_imports_neither_torch_nor_pydantic() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['sharpen', '--help']\n"
        "try: runpy.run_module('sharpen.cli.main', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'pydantic', 'transformers', 'numpy'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    paths = os.pathsep.join([str(SRC.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
