"""Load code by name: `pkg.mod:attr`, or `folder/file.py:attr`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from sharpen.errors import ConfigError


def load(reference: str) -> Any:
    """The object that `pkg.mod:attr` or `folder/file.py:attr` names.

    Raises ConfigError when the module, the file or the attribute does not exist.
    """
    place, colon, attribute = reference.rpartition(":")
    if not (colon and place and attribute):
        raise ConfigError(
            "not a reference to code", value=reference, remedy="Write it as `package.module:name` or `file.py:name`"
        )
    try:
        found: Any = from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"cannot load code: {error}",
            value=reference,
            remedy="Check the spelling, and that the folder of the module is on PYTHONPATH",
        ) from error
    return found


def from_file(path: Path) -> ModuleType:
    """The module in a Python file, with its folder on the path as where it is run. Raises ImportError."""
    # Named so that it hides no other module.
    spec = importlib.util.spec_from_file_location(f"sharpen_file_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ImportError(f"there is no such Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module there
    sys.path.insert(0, str(path.parent.resolve()))
    spec.loader.exec_module(module)
    return module
