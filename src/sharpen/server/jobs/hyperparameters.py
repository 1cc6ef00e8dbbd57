"""What "auto" stands for: numbers from the row count alone, so that a client can foresee them.

| hyperparameter | supervised | dpo | reinforcement |
|---|---|---|---|
| `batch_size` | rows / 8, as a power of two from 1 to 16 | the same | rows / 4, as a power of two from 1 to 16 |
| `n_epochs` | 3 below 1,000 rows, 2 below 10,000, else 1 | 2 below 500 rows, else 1 | about 32 steps, 1 to 10 |
| `learning_rate_multiplier` | 1: the house's rate for method and model (`train/rate.py`) | 1 | 1 |
| `beta` | | 0.1 | |
| `compute_multiplier` | | | 1: eight completions a prompt |
| `eval_interval` | | | an eighth of the steps |
| `eval_samples` | | | the validation rows, 64 at most |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sharpen.server.jobs.body import Method

MOST_ROWS = 16
"""Rows of a step that "auto" takes at most: the batch on which the house's learning rates were measured."""

STEPS = 32
"""Rounds of sampling that "auto" aims at."""

LOOKS = 8
"""Looks at the validation rows of a reinforcement job."""

Resolved = dict[str, Any]

OLD_PLACE = ("batch_size", "learning_rate_multiplier", "n_epochs")
"""What stands in a job's own `hyperparameters` too, as OpenAI's API had it first."""


def resolved(method: Method, asked: Mapping[str, Any], rows: int, validation_rows: int | None = None) -> Resolved:
    """All hyperparameters of a method as numbers: what was asked for, and "auto" by the number of rows."""
    found: Resolved = {}
    for name, rule in RULES[method].items():
        said = asked.get(name, "auto")
        found[name] = rule(found, rows, validation_rows) if said == "auto" else said
    return found


def settled(method: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that have a job's hyperparameters, as numbers; before its files are checked, as asked."""
    kind: Method = method["type"]
    asked = method[kind]["hyperparameters"]
    numbers: Resolved = resolved(kind, asked, known["rows"], known["validation_rows"]) if known else asked
    return {
        "method": {"type": kind, kind: {**method[kind], "hyperparameters": numbers}},
        "hyperparameters": {name: numbers[name] for name in OLD_PLACE if name in numbers},
    }


def steps_of(hyperparameters: Mapping[str, Any], rows: int) -> int:
    """Optimiser steps of a job."""
    return max(1, math.ceil(rows * int(hyperparameters["n_epochs"]) / batch_of(hyperparameters, rows)))


def batch_of(hyperparameters: Mapping[str, Any], rows: int) -> int:
    """Rows of a step: a file with fewer than `batch_size` is a step an epoch, none holds two epochs' rows."""
    return max(1, min(int(hyperparameters["batch_size"]), rows))


def _power(value: float) -> int:
    """The largest power of two that is not above a value, from 1 to MOST_ROWS."""
    return 1 << math.floor(math.log2(min(max(value, 1.0), MOST_ROWS)))


def _supervised_epochs(found: Resolved, rows: int, _: int | None) -> int:
    return 3 if rows < 1_000 else 2 if rows < 10_000 else 1


def _reinforcement_epochs(found: Resolved, rows: int, _: int | None) -> int:
    return min(max(round(STEPS * int(found["batch_size"]) / max(rows, 1)), 1), 10)


Rule = Callable[[Resolved, int, int | None], Any]

RULES: dict[Method, dict[str, Rule]] = {
    "supervised": {
        "batch_size": lambda found, rows, _: _power(rows / 8),
        "n_epochs": _supervised_epochs,
        "learning_rate_multiplier": lambda found, rows, _: 1.0,
    },
    "dpo": {
        "batch_size": lambda found, rows, _: _power(rows / 8),
        "n_epochs": lambda found, rows, _: 2 if rows < 500 else 1,
        "learning_rate_multiplier": lambda found, rows, _: 1.0,
        "beta": lambda found, rows, _: 0.1,
    },
    "reinforcement": {
        "batch_size": lambda found, rows, _: _power(rows / 4),
        "n_epochs": _reinforcement_epochs,
        "learning_rate_multiplier": lambda found, rows, _: 1.0,
        "compute_multiplier": lambda found, rows, _: 1.0,
        "eval_interval": lambda found, rows, _: max(1, steps_of(found, rows) // LOOKS),
        "eval_samples": lambda found, rows, held_out: max(1, min(held_out or 1, 64)),
        "reasoning_effort": lambda found, rows, _: "default",
    },
}
"""In this order: a rule may look at what stands before it."""
