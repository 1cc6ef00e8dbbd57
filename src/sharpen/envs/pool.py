"""Episodes in worker processes: no environment can hang or bring down the run.

An episode lives in one worker. Where that worker was killed (another episode's step took too long), the episode is
opened anew and its steps are repeated; should it then answer otherwise than before, that is a fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sharpen.config.envs import EnvConfig
from sharpen.envs.base import Env, Episode, InvalidStep, Step, checked, spoken
from sharpen.sandbox.workers import Closing, Outcome, WorkerPool, default_workers
from sharpen.types import ENVIRONMENT_ERROR, Example, Fault, Message


@dataclass(frozen=True, slots=True)
class Call:
    """One question to an episode: `message` is the model's turn, None opens it.

    `key` names the episode, `place` decides on its worker, `past` are the model's turns and the answers to them so
    far, the opening first. After a `last` call the episode is closed, also where it is not done.
    """

    key: tuple[int | str, ...]
    place: int
    example: Example
    message: Message | None = None
    past: tuple[tuple[Message | None, Step], ...] = ()
    last: bool = False


class EnvPool(Closing):
    """One environment, in `workers` processes (two, or one on a single core), started when first needed."""

    def __init__(self, config: EnvConfig, *, workers: int | None = None) -> None:
        self.config = config
        count = workers or default_workers()
        self._pools = [WorkerPool(_prepare, (config,), size=1) for _ in range(count)]  # of one, so episodes stay put

    @property
    def max_turns(self) -> int:
        """The most turns the model has in one episode."""
        return self.config.max_turns

    async def answer(self, calls: Sequence[Call]) -> list[Step | Fault]:
        """The environment's answers, in the order of the calls. Raises GraderError when it cannot be built."""
        places = [call.place % len(self._pools) for call in calls]
        shares = [[call for call, place in zip(calls, places, strict=True) if place == own] for own in self._indices]
        outcomes = await asyncio.gather(
            *(pool.map(share, self.config.time_limit) for pool, share in zip(self._pools, shares, strict=True))
        )
        remaining = [iter(outcome) for outcome in outcomes]
        return [_read(next(remaining[place])) for place in places]

    async def start(self) -> None:
        """Build the environment in every worker now. Raises GraderError when that fails."""
        await asyncio.gather(*(pool.start() for pool in self._pools))

    def close(self) -> None:
        """Kill the workers."""
        for pool in self._pools:
            pool.close()

    @property
    def _indices(self) -> range:
        return range(len(self._pools))


@dataclass
class Host:
    """In the worker: the environment and its open episodes."""

    env: Env
    episodes: dict[tuple[int | str, ...], Episode] = field(default_factory=dict)

    async def answer(self, call: Call) -> Step:
        """The checked answer to one call; an episode that fails is forgotten, and closed as far as it can be."""
        if call.message is None:
            return await self._open(call)
        episode = self.episodes.get(call.key) or await self._again(call)
        step = await self._step(call, episode, call.message)
        if call.last or step.done:
            del self.episodes[call.key]
            await episode.close()
        return step

    async def _open(self, call: Call) -> Step:
        episode = await self.env.open(call.example)
        opening = spoken(episode.messages)
        if not opening:
            raise InvalidStep("an episode must open with at least one message")
        self.episodes[call.key] = episode
        return Step(opening)

    async def _step(self, call: Call, episode: Episode, message: Message) -> Step:
        try:
            return checked(await episode.step(message))
        except BaseException:
            self.episodes.pop(call.key, None)
            with suppress(Exception):  # the first failure is the one to tell
                await episode.close()
            raise

    async def _again(self, call: Call) -> Episode:
        """Repeat an episode that was lost with its worker, or that a resumed run knows from its journal."""
        for message, answer in call.past:
            now = await self._open(call) if message is None else await self._step(call, self._own(call), message)
            if now != answer:
                raise InvalidStep(
                    "the episode was lost with its worker, and a repetition of its steps went otherwise: "
                    f"{now!r:.200} instead of {answer!r:.200}"
                )
        return self._own(call)

    def _own(self, call: Call) -> Episode:
        return self.episodes[call.key]


def _prepare(config: EnvConfig) -> Callable[[Call], Step]:
    """In the worker: the environment as a plain function. Its coroutines share one event loop."""
    host = Host(config.build())
    runner = asyncio.Runner()
    return lambda call: runner.run(host.answer(call))


def _read(outcome: Outcome) -> Step | Fault:
    return outcome.value if outcome.kind == "value" else Fault(ENVIRONMENT_ERROR, outcome.detail)
