"""Grade rollouts, with the journal in between: what cannot be repeated is written down before it is used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import blake2b

from sharpen.graders.base import completion_fault, finite, grader_fault
from sharpen.runs.store import Journal
from sharpen.stages.routing import Router
from sharpen.types import ENVIRONMENT_ERROR, Example, Fault, Grade, Group, Rollout

Key = tuple[int | str, ...]


async def judge(pairs: Sequence[tuple[Example, Rollout]], pool: Router) -> list[Grade]:
    """A grade for each rollout: its grader's, or where it has none the environment's reward.

    Where the environment failed there is none, and its fault stands in the grade.
    """
    graded = iter(
        await pool.grade_many(
            [(example, rollout.sample) for example, rollout in pairs if not rollout.fault and pool.grades(example)]
        )
    )
    return [
        Grade(None, explanation=rollout.fault.detail, fault=rollout.fault)
        if rollout.fault
        else next(graded)
        if pool.grades(example)
        else _own_reward(rollout)
        for example, rollout in pairs
    ]


def _own_reward(rollout: Rollout) -> Grade:
    if rollout.reward is None and rollout.sample.finish == "length":
        return completion_fault("cut_off", "the attempt was cut off before the environment gave a reward")
    if rollout.reward is None:
        return grader_fault(ENVIRONMENT_ERROR, "the environment gave no reward, and there is no grader")
    return finite(Grade(rollout.reward), ENVIRONMENT_ERROR)


async def grade(groups: Sequence[Group], pool: Router, journal: Journal, step: int) -> list[Group]:
    """The groups with their grades; those the journal knows are taken from it."""
    keys: list[Key] = [
        (step, place, sample, _digest(rollout))
        for place, group in enumerate(groups)
        for sample, rollout in enumerate(group.rollouts)
    ]
    attempts = [(group.example, rollout) for group in groups for rollout in group.rollouts]
    known = [journal.get(key) for key in keys]
    fresh = iter(await judge([pair for pair, entry in zip(attempts, known, strict=True) if entry is None], pool))
    grades = [next(fresh) if entry is None else _load(entry) for entry in known]
    journal.note(
        {
            key: asdict(made)
            for key, made, entry in zip(keys, grades, known, strict=True)
            if entry is None and not pool.repeatable(made)
        }
    )
    return with_grades(groups, grades)


def with_grades(groups: Sequence[Group], grades: Sequence[Grade]) -> list[Group]:
    """The groups with a grade for each of their rollouts, in order."""
    remaining = iter(grades)
    return [replace(group, grades=tuple(next(remaining) for _ in group.rollouts)) for group in groups]


def _digest(rollout: Rollout) -> str:
    """Of what is graded: where other versions sample otherwise, the grade of another answer must not be taken."""
    sample = rollout.sample
    graded = json.dumps([sample.messages, sample.env_state]) if sample.messages else sample.text + sample.reasoning
    return blake2b(graded.encode(), digest_size=8).hexdigest()


def _load(entry: dict[str, object]) -> Grade:
    fault = entry["fault"]
    return Grade(**{**entry, "fault": Fault(**fault) if isinstance(fault, dict) else None})  # type: ignore[arg-type]
