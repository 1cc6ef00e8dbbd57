"""The result file of a job: the steps as a table, in OpenAI's columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from sharpen.server.supervisor.said import Record, reinforced, taught

TAUGHT = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}
"""Columns, and the fields of an event that they have."""

PAIRS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_reward_accuracy",
    "valid_loss": "valid_loss",
    "valid_accuracy": "valid_mean_reward_accuracy",
    "train_reward_margin": "train_mean_reward_margin",
}

REINFORCED = {
    "step": "step",
    "train_loss": "train_loss",
    "train_mean_reward": "train_mean_reward",
    "full_valid_mean_reward": "full_valid_mean_reward",
    "completion_tokens_mean": "completion_tokens_mean",
}


def table(lines: Iterable[Record], method: str) -> str:
    """The CSV of a job's steps; what was not measured is empty."""
    columns = {"reinforcement": REINFORCED, "dpo": PAIRS}.get(method, TAUGHT)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for line in lines:
        data = reinforced(line) if method == "reinforcement" else taught(line)
        writer.writerow([_shown(data.get(name)) for name in columns.values()])
    return out.getvalue()


def trained_tokens(lines: Iterable[Record]) -> int:
    """Tokens that the steps learned from."""
    counts = ((line.get("tokens") or {}).get("trained") for line in lines)
    return sum(count for count in counts if isinstance(count, int))


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
