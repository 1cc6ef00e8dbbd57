"""What is said of a number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meaning:
    """One number."""

    name: str
    """As the report writes it."""
    text: str
    """What it is, with its unit."""
    healthy: str
    """The healthy range, or that there is none."""
    remedy: str = ""
    """What to do outside of it."""
    source: str = ""
    """Where the range comes from."""
    metrics: tuple[str, ...] = ()
    """Its keys in metrics.jsonl; one that ends in `.*` stands for all below it."""


OURS = "our quickstart runs"
"""A source of ranges."""
