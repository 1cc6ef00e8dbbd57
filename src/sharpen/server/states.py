"""How jobs may go from state to state: the one place that says so."""

from __future__ import annotations

from typing import Literal, get_args

Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
"""As OpenAI's API has them."""

FINAL: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})

NEXT: dict[Status, frozenset[Status]] = {
    "validating_files": frozenset({"queued", "paused", "failed", "cancelled"}),
    "queued": frozenset({"running", "paused", "failed", "cancelled"}),
    "running": frozenset({"queued", "paused", "succeeded", "failed", "cancelled"}),  # queued: it starts anew
    "paused": frozenset({"queued", "failed", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}

assert set(NEXT) == set(get_args(Status))


def may(before: Status, after: Status) -> bool:
    """Whether a job may go from one state to another."""
    return after in NEXT[before]
