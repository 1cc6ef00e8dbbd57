"""The trial before an RFT stage, as names and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sharpen.reports.numbers import at, finite, memory, plain, roughly, show

Record = Mapping[str, Any]
SHARES = (
    ("learnable", "groups with different rewards"),
    ("always right", "groups all right"),
    ("always wrong", "groups all wrong"),
    ("alike", "groups of equal scores between"),
)


def rows(figures: Record) -> list[tuple[str, str]]:
    """Name and value of each figure of a `probed` event."""
    found = [("tried", f"{_plain(figures, 'prompts')} prompts × {_plain(figures, 'group_size')} completions")]
    if reward := figures.get("reward"):
        found.append(("reward", f"{_plain(reward, 'mean')} on average, variance {_plain(reward, 'variance')}"))
    for name, what in SHARES:
        share = figures.get(name.replace(" ", "_"))
        low, high = (100 * bound for bound in at(share, "ci95") or (0.0, 0.0))
        found.append((name, f"{_percent(share, 'share')} [{low:.1f}, {high:.1f}] of {what}"))
    if figures.get("in_form") is not None:
        found.append(("in form", f"{_percent(figures, 'in_form')} of completions"))
    again, faults = figures.get("graded_again"), figures.get("faults")
    second = f"{_plain(again, 'changed')} of {_plain(again, 'n')} graded otherwise the second time"
    each = finite(figures, "grade_seconds") or 0.0
    found.append(("grader", f"fails on {_percent(faults, 'share')}; {second}; {1000 * each:.1f} ms a completion"))
    cut = f"{_percent(figures, 'truncated_share')} cut off at {_plain(figures, 'max_tokens')}"
    found.append(("completions", f"{finite(figures, 'tokens') or 0.0:.1f} tokens on average, {cut}"))
    wrong = figures.get("mask")
    found.append(("loss mask", "; ".join(wrong) if wrong else "covers the completions and nothing of the prompts"))
    if gap := figures.get("logprob_gap"):
        apart = f"{finite(gap, 'mean') or 0.0:.4f} nats on average, {finite(gap, 'max') or 0.0:.4f} at most"
        found.append(("sampler, trainer", f"differ by {apart}"))
    ahead = figures.get("forecast")
    step, total = finite(ahead, "step_seconds") or 0.0, finite(ahead, "seconds") or 0.0
    found.append(("a step", f"about {roughly(step)}; {_plain(ahead, 'steps')} steps about {roughly(total)}"))
    found.append(("memory", f"about {memory(finite(ahead, 'memory_bytes') or 0)}"))
    return found


def _percent(record: Any, name: str) -> str:
    return show(finite(record, name), "share")


def _plain(record: Any, name: str) -> str:
    value = finite(record, name)
    return plain(value) if value is not None else "?"
