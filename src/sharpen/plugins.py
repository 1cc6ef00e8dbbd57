"""Load code by name: `pkg.mod:attr`."""

from __future__ import annotations

import importlib
from typing import Any

from sharpen.errors import ConfigError


def load(reference: str) -> Any:
    """The object that `pkg.mod:attr` names.

    Raises ConfigError when the module or the attribute does not exist.
    """
    module_name, colon, attribute = reference.partition(":")
    if not (colon and module_name and attribute):
        raise ConfigError("not a reference to code", value=reference, remedy="Write it as `package.module:name`")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"cannot load code: {error}",
            value=reference,
            remedy="Check the spelling, and that the folder of the module is on PYTHONPATH",
        ) from error
    return found
