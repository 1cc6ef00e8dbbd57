"""A grader's version: a hash of what decides its scores."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sharpen.config.graders import Multi, SingleGrader, parts
from sharpen.config.graders.remote import HOW_ASKED, Remote

MODULES = ("use", "parser")
"""Fields that name code as `package.module:attribute` or `file.py:attribute`, also of parts and functions."""

FILES = ("file",)
"""Fields that name a file of code."""


def version(config: SingleGrader | Multi) -> str:
    """12 hex digits of BLAKE2b over the config, every default written out, and over the code that it names.

    That code is the file it names, or that of the module, where it lies on the path; what is imported there is not
    looked at. The code of our own types belongs to the version of sharpen. How a server is asked (budget, retries,
    limits) is left out: it decides no score.
    """
    values = config.model_dump(mode="json", exclude=_how_asked(config))
    digest = blake2b(digest_size=6)
    digest.update(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
    for file in _named(values):
        digest.update(b"\0" + file.read_bytes())
    return digest.hexdigest()


def _how_asked(config: SingleGrader | Multi) -> Any:
    """The fields of judges and endpoints that change none of their answers, as pydantic's `exclude` has them."""
    asked = {name: set(HOW_ASKED) for name, part in parts(config).items() if isinstance(part, Remote)}
    return {"graders": asked} if isinstance(config, Multi) else next(iter(asked.values()), None)


def _named(values: Any) -> Iterator[Path]:
    """The files of code that are named anywhere in a config, in the order of its keys."""
    if isinstance(values, list):
        for value in values:
            yield from _named(value)
    if isinstance(values, Mapping):
        for key in sorted(values):
            value = values[key]
            if key in MODULES and isinstance(value, str) and (file := _file(value.rpartition(":")[0])):
                yield file
            elif key in FILES and isinstance(value, str) and Path(value).is_file():
                yield Path(value)
            else:
                yield from _named(value)


def _file(module: str) -> Path | None:
    """Where a module's source lies, found without importing it or its package."""
    if not module or module.endswith(".py"):
        return Path(module) if module and Path(module).is_file() else None
    inner = Path(*module.split("."))
    for entry in sys.path:
        for path in (Path(entry) / inner / "__init__.py", Path(entry) / inner.parent / f"{inner.name}.py"):
            if path.is_file():
                return path
    return None
