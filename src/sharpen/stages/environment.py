"""An environment at work in a stage: its worker processes, and the journal of what cannot be repeated."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from hashlib import blake2b
from typing import Any

from sharpen.config.envs import EnvConfig
from sharpen.envs.base import Step
from sharpen.envs.pool import Call, EnvPool
from sharpen.runs.store import Journal
from sharpen.types import Fault


def environment(config: EnvConfig | None) -> AbstractContextManager[EnvPool | None]:
    """The environment's workers, killed at the end of the block; None where there is no environment."""
    return EnvPool(config) if config else nullcontext()


class Recalled:
    """An environment whose answers are noted in a journal, and taken from there by a run that was resumed.

    Keys begin with (seed, stage, step). An episode is noted whole, once it is over: what was not noted has left no
    trace, so it may go otherwise the second time.
    """

    def __init__(self, pool: EnvPool, journal: Journal) -> None:
        self._pool = pool
        self._journal = journal
        self._made: dict[tuple[int | str, ...], list[dict[str, Any]]] = defaultdict(list)
        self._fresh: set[tuple[int | str, ...]] = set()

    @property
    def max_turns(self) -> int:
        """The most turns the model has in one episode."""
        return self._pool.max_turns

    async def answer(self, calls: Sequence[Call]) -> list[Step | Fault]:
        """The answers, in the order of the calls; those that the journal knows are taken from it."""
        known = [self._known(call) for call in calls]
        asked = [call for call, answer in zip(calls, known, strict=True) if answer is None]
        fresh = iter(await self._pool.answer(asked))
        answers = [next(fresh) if answer is None else answer for answer in known]
        for call, answer in zip(calls, answers, strict=True):
            self._made[call.key[2:]].append({"said": _digest(call), **_entry(answer)})
        self._fresh |= {
            call.key[2:] for call, answer in zip(calls, answers, strict=True) if call in asked and self._rolls(answer)
        }
        return answers

    def note(self) -> None:
        """Write down the episodes that are over, all at once."""
        self._journal.note({key: {"answers": turns} for key, turns in self._made.items() if key in self._fresh})
        self._made.clear()
        self._fresh.clear()

    def forget(self, step: int) -> None:
        """Drop the episodes of a step that is to be done anew."""
        self._journal.forget(step)

    def _rolls(self, answer: Step | Fault) -> bool:
        """Whether the answer might be another the next time."""
        return not self._pool.config.repeatable or isinstance(answer, Fault)

    def _known(self, call: Call) -> Step | Fault | None:
        entry = self._journal.get(call.key[2:])
        turns = entry["answers"][len(call.past) :] if entry else []
        return _answer(turns[0]) if turns and turns[0]["said"] == _digest(call) else None


def _digest(call: Call) -> str:
    """Of all that was said: where other versions sample otherwise, an answer to something else must not be taken."""
    said = [call.example.messages, *(message for message, _ in call.past), call.message]
    return blake2b(json.dumps(said).encode(), digest_size=8).hexdigest()


def _entry(answer: Step | Fault) -> dict[str, Any]:
    if isinstance(answer, Fault):
        return {"fault": {"kind": answer.kind, "detail": answer.detail}}
    return {"step": answer._asdict()}


def _answer(entry: dict[str, Any]) -> Step | Fault:
    if "fault" in entry:
        return Fault(**entry["fault"])
    step = entry["step"]
    return Step(tuple(step["messages"]), step["done"], step["reward"], step["state"])
