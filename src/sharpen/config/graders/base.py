"""What every grader has."""

from __future__ import annotations

import ast
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sharpen.config.base import Buildable, Config

LARGEST_SOURCE = 256_000
"""Bytes of a program, a grader's or a model's: OpenAI's limit."""

Place = Literal["jail", "process", "parent", "here"]
"""Where a grader runs. `jail`: our own code, in a jail; a crash or time-out is the completion's fault. `process`: the
operator's own code, with the operator's rights. `parent`: here, for it runs foreign code in jails of its own. `here`:
in this process, many at a time, for it asks a server or a model."""

Template = str
"""Text with `{{ item.field }}`, `{{ sample.output_text }}`; paths may be nested and indexed."""


def parsed(source: str) -> ast.Module:
    """The program's syntax. Raises ValueError when it is none, or too large."""
    if (size := len(source.encode(errors="surrogatepass"))) > LARGEST_SOURCE:
        raise ValueError(f"a program of more than {LARGEST_SOURCE:,} bytes (got {size:,})")
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"no Python program: {error.msg} in line {error.lineno}") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"no Python program: {error or type(error).__name__}") from error


class GraderConfig(Config):
    """What every grader has."""

    name: str = ""
    """The name under which scores are reported; the type's name when empty."""


class SingleGrader(GraderConfig, Buildable):
    """A grader that is one piece of code, built in worker processes."""

    time_limit: Annotated[float, Field(gt=0)] = 10.0
    """Seconds one grade may take before its worker is killed."""

    place: ClassVar[Place] = "jail"
    """Where it runs."""
