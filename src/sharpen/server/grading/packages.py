"""Which packages clients' programs may import: those of OpenAI's image and what they need, and the operator's list.

A program can read every file of what it imports, so a package of the operator's own is not for all to see.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import metadata

from packaging.requirements import Requirement

from sharpen.config.graders import parsed
from sharpen.graders.python import imported
from sharpen.sandbox import plan
from sharpen.server.errors import APIError, invalid

IMAGE = (
    "numpy",
    "scipy",
    "sympy",
    "pandas",
    "rapidfuzz",
    "scikit-learn",
    "rouge-score",
    "deepdiff",
    "jsonschema",
    "pydantic",
    "pyyaml",
    "nltk",
    "sqlparse",
)
"""The packages of OpenAI's image that are told of."""


def check_program(source: str, listed: tuple[str, ...], param: str) -> None:
    """Raises APIError where a program imports what it may not, or what is not installed."""
    try:
        modules = imported(parsed(source))
    except ValueError:
        return  # no program: our own model says so
    for module in modules:
        owners = plan.distributions().get(module.partition(".")[0])
        if not owners:
            raise invalid(
                f"{param}: the program imports {module!r:.120}, which is not installed here. "
                f"Installed are: {_installed()}.",
                param,
                "invalid_grader",
            )
        check(owners[:1], listed, param)


def check(distributions: Iterable[str], listed: tuple[str, ...], param: str) -> None:
    """Raises APIError where one of the distributions is not for clients."""
    allowed = _closure((*IMAGE, *listed))
    for name in distributions:
        if _normal(name) not in allowed:
            raise _refused(name, param)


def _refused(name: str, param: str) -> APIError:
    return invalid(
        f"{param}: the package {name!r:.120} is not one that clients' programs may read. They may import those of "
        f"OpenAI's image ({_installed()}) and what the operator lists under `packages:`.",
        param,
        "not_permitted",
    )


def _installed() -> str:
    return ", ".join(name for name in IMAGE if name in _closure(IMAGE))


@cache
def _closure(names: tuple[str, ...]) -> frozenset[str]:
    """The installed ones of these distributions, and of all that they require."""
    waiting, found = list(names), set[str]()
    while waiting:
        name = _normal(waiting.pop())
        if name in found:
            continue
        try:
            requires = metadata.distribution(name).requires or ()
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        needed = map(Requirement, requires)
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return frozenset(found)


def _normal(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
