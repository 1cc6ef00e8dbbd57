"""Rollouts that wait for their step: with a fixed lag, the policy that sampled is older than the one that learns."""

from __future__ import annotations

from array import array
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sharpen.stages.report import thoughts
from sharpen.types import Example, Group, Rollout, Sample, Segment, Support

Prompts = Callable[[int], list[Example]]
"""The examples of a step, always the same."""


class Waiting:
    """The groups sampled ahead, by the step that will learn from them: `max_lag` steps' worth between steps."""

    def __init__(self, max_lag: int, steps: int, prompts: Prompts, state: Sequence[dict[str, Any]] = ()) -> None:
        """`state` is what `state` gave, of the run that this one goes on with."""
        self._max_lag = max_lag
        self._steps = steps
        self._prompts = prompts
        self._groups = {
            saved["step"]: _Loading(saved.get("sets", ())).groups(prompts(saved["step"]), saved["groups"])
            for saved in state
        }

    async def take(self, step: int, sample: Callable[[list[Example], int], Awaitable[list[Group]]]) -> list[Group]:
        """The groups of `step`, after sampling with the present policy what must not wait for a later one."""
        for ahead in range(step, min(step + self._max_lag + 1, self._steps)):
            if ahead not in self._groups:
                self._groups[ahead] = await sample(self._prompts(ahead), ahead)
        return self._groups.pop(step)

    def state(self) -> list[dict[str, Any]]:
        """What waits, for JSON; without the examples, which the step number gives."""
        return [_Saving().step(step, groups) for step, groups in self._groups.items()]


class _Saving:
    """Writes a step's groups; each set of a grammar stands once, however many tokens it is of."""

    def __init__(self) -> None:
        self._sets: dict[bytes, int] = {}

    def step(self, step: int, groups: Sequence[Group]) -> dict[str, Any]:
        written = [[self._rollout(rollout) for rollout in group.rollouts] for group in groups]
        return {"step": step, "groups": written, "sets": [b64encode(own).decode() for own in self._sets]}

    def _rollout(self, rollout: Rollout) -> dict[str, Any]:
        """Without what environments add: their episodes do not wait."""
        sample = {"text": rollout.sample.text, "finish": rollout.sample.finish, **thoughts(rollout)}
        return {"sample": sample, "segments": [self._segment(segment) for segment in rollout.segments]}

    def _segment(self, segment: Segment) -> dict[str, Any]:
        return {
            "tokens": segment.tokens,
            "mask": "".join("1" if sampled else "0" for sampled in segment.mask),
            "logprobs": segment.logprobs,
            "version": segment.version,
            "support": segment.support and self._support(segment.support),
        }

    def _support(self, support: Support) -> dict[str, Any]:
        sets = [self._sets.setdefault(own, len(self._sets)) for own in support.sets]
        return {"counts": support.counts, "ids": b64encode(support.ids.tobytes()).decode(), "sets": sets}


class _Loading:
    """Reads what `_Saving` wrote, with the step's sets."""

    def __init__(self, sets: Sequence[str]) -> None:
        self._sets = [b64decode(own) for own in sets]

    def groups(self, examples: Sequence[Example], saved: Sequence[Sequence[dict[str, Any]]]) -> list[Group]:
        return [
            Group(example, tuple(self._rollout(rollout) for rollout in rollouts))
            for example, rollouts in zip(examples, saved, strict=True)
        ]

    def _rollout(self, saved: dict[str, Any]) -> Rollout:
        return Rollout(tuple(self._segment(segment) for segment in saved["segments"]), Sample(**saved["sample"]))

    def _segment(self, saved: dict[str, Any]) -> Segment:
        return Segment(
            tuple(saved["tokens"]),
            tuple(mark == "1" for mark in saved["mask"]),
            tuple(saved["logprobs"]),
            saved["version"],
            saved["support"] and self._support(saved["support"]),
        )

    def _support(self, saved: dict[str, Any]) -> Support:
        sets = tuple(self._sets[index] for index in saved.get("sets", ()))
        return Support(tuple(saved["counts"]), array("i", b64decode(saved["ids"])), sets)
