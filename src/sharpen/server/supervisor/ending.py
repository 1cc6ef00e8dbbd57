"""How a process has ended, by what its run directory and its log say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["finished", "stopped", "paused", "failed", "died"]
"""`paused`: the run itself saw that it cannot go on; `died`: it may be tried again."""

STOPPED = (130, -2, -15, 143)
"""Exit codes of a process that was asked to end."""
UNEXPECTED = "error: unexpected"
"""How the command line begins to tell of a bug."""
NO_SPACE = "the disk is full"

KEY = re.compile(r"\b(sk|skj|whsec|hf)[-_][\w.\-]{12,}")
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of a process, and in one sentence why."""

    kind: Kind
    cause: str = ""


def ending(life: Mapping[str, Any], code: int | None, words: Sequence[str]) -> Ending:
    """`life`: the last event of this process that says how it stands; `words`: the end of its log."""
    last, cause = str(life.get("event", "")), str(life.get("cause") or "")
    said = _complaint(words)
    if last == "finished":
        return Ending("finished")
    if last == "paused" or NO_SPACE in f"{cause} {said}":
        return Ending("paused", cause or said)
    if last == "interrupted" or (code in STOPPED and last != "failed"):
        return Ending("stopped", cause)
    if last == "failed" and not said.startswith(UNEXPECTED) and code in (2, None):
        return Ending("failed", cause)
    if code == 2 or (code is None and said and not said.startswith(UNEXPECTED) and not last):
        return Ending("failed", said.removeprefix("error: ") or "sharpen run refused the recipe")
    return Ending("died", cause or _how(code))


def error(cause: str, training: str, validation: str | None) -> dict[str, Any]:
    """The `error` of a job that failed: whose fault it was, by the file that its cause names."""
    code, param = "server_error", None
    if validation and validation in cause:
        code, param = "invalid_validation_file", "validation_file"
    elif training in cause:
        code, param = "invalid_training_file", "training_file"
    elif "not finite" in cause or "no longer finite" in cause:
        code, param = "training_diverged", "hyperparameters"
    elif "grader" in cause:
        code, param = "grader_error", "method.reinforcement.grader"
    return {"code": code, "message": cause, "param": param}


def clean(text: str, secrets: Iterable[str], names: Mapping[str, str]) -> str:
    """A text of the process without keys, and with `names` in place of the server's paths."""
    text = COLOURS.sub("", text)
    for secret in secrets:
        if len(secret) >= 8:
            text = text.replace(secret, "[key]")
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return KEY.sub("[key]", text)


def _complaint(words: Sequence[str]) -> str:
    """What the command line said last, from `error:` on; empty: nothing."""
    starts = [place for place, line in enumerate(words) if COLOURS.sub("", line).startswith("error:")]
    return " ".join(COLOURS.sub("", line) for line in words[starts[-1] :]) if starts else ""


def _how(code: int | None) -> str:
    if code is None:
        return "the process is gone"
    if code in (-9, 137):
        return "the process was killed (by signal 9, as where memory is short)"
    return f"the process was ended by signal {-code}" if code < 0 else f"the process ended with code {code}"
