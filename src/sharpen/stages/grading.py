"""Grade rollouts, with the journal in between: what cannot be repeated is written down before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import blake2b

from sharpen.graders.pool import GraderPool
from sharpen.runs.store import Journal
from sharpen.stages.routing import Router
from sharpen.types import Fault, Grade, Group, Rollout

Key = tuple[int | str, ...]


async def grade(groups: Sequence[Group], pool: GraderPool | Router, journal: Journal, step: int) -> list[Group]:
    """The groups with their grades; those the journal knows are taken from it."""
    keys: list[Key] = [
        (step, place, sample, _digest(rollout))
        for place, group in enumerate(groups)
        for sample, rollout in enumerate(group.rollouts)
    ]
    attempts = [(group.example, rollout.sample) for group in groups for rollout in group.rollouts]
    known = [journal.get(key) for key in keys]
    fresh = iter(await pool.grade_many([pair for pair, entry in zip(attempts, known, strict=True) if entry is None]))
    grades = [next(fresh) if entry is None else _load(entry) for entry in known]
    journal.note(
        {
            key: asdict(made)
            for key, made, entry in zip(keys, grades, known, strict=True)
            if entry is None and not pool.repeatable(made)
        }
    )
    remaining = iter(grades)
    return [replace(group, grades=tuple(next(remaining) for _ in group.rollouts)) for group in groups]


def _digest(rollout: Rollout) -> str:
    """Of the text: where other versions sample otherwise, the grade of another answer must not be taken."""
    return blake2b(rollout.sample.text.encode(), digest_size=8).hexdigest()


def _load(entry: dict[str, object]) -> Grade:
    fault = entry["fault"]
    return Grade(**{**entry, "fault": Fault(**fault) if isinstance(fault, dict) else None})  # type: ignore[arg-type]
