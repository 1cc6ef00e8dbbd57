"""Attempts at examples: a single answer each, or an episode in an environment, turn by turn.

All episodes advance together in the order of the attempts: one batch of the sampler a turn, random numbers counted
on the attempt's key and the turn. Sampled tokens are never rendered again: a turn's prompt is what the model has
seen and made so far, extended by the replies, unless the chat template rewrites earlier turns; then a new segment
opens with the conversation as the template now has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from sharpen.completion import Parted
from sharpen.data.order import Key
from sharpen.data.render import Renderer
from sharpen.envs.base import Step
from sharpen.envs.pool import Call
from sharpen.rollout.base import Params, Request, Sampler
from sharpen.rollout.thinking import Budgeted
from sharpen.types import Example, Fault, Message, Rollout, Sample, Segment, Support

Progress = Callable[[int], None]
"""Told how many tokens are made so far."""


class Attempt(NamedTuple):
    """What to try, and the key its random numbers are counted on."""

    example: Example
    key: Key


class Answers(Protocol):
    """Who answers for the environment: the pool, or a journal before it."""

    @property
    def max_turns(self) -> int:
        """The most turns the model has in one episode."""
        ...

    async def answer(self, calls: Sequence[Call]) -> list[Step | Fault]:
        """The answers, in the order of the calls."""
        ...


async def make(
    attempts: Sequence[Attempt],
    env: Answers | None,
    sampler: Sampler,
    renderer: Renderer,
    params: Params,
    progress: Progress | None = None,
    thinking_budget: int | None = None,
) -> list[Rollout]:
    """A rollout an attempt: in the environment, or without one a single answer.

    A turn has at most `thinking_budget` tokens of thoughts. Raises ConfigError for one where the model has none.
    """
    if thinking_budget:
        sampler = Budgeted(sampler, renderer, thinking_budget)
    if env is not None:
        return await play(attempts, env, sampler, renderer, params, progress)
    requests = [Request(renderer.example(attempt.example), attempt.key) for attempt in attempts]
    segments = await sampler.sample(requests, params, progress)
    return [Rollout((segment,), renderer.sample(segment)) for segment in segments]


async def play(
    attempts: Sequence[Attempt],
    env: Answers,
    sampler: Sampler,
    renderer: Renderer,
    params: Params,
    progress: Progress | None = None,
) -> list[Rollout]:
    """An episode an attempt, of at most `env.max_turns` turns, which share `params.max_tokens` sampled tokens.

    The environment hears of every turn, also of one that was cut off. Where it fails, the rollout says so in `fault`.
    """
    episodes = [_Episode(place, attempt, renderer, params.max_tokens) for place, attempt in enumerate(attempts)]
    await _ask(env, episodes)
    for turn in range(env.max_turns):
        live = [episode for episode in episodes if episode.live]
        if not live:
            break
        requests = [episode.request(turn) for episode in live]
        segments = await sampler.sample(requests, params, _after(episodes, progress))
        for episode, segment in zip(live, segments, strict=True):
            episode.hear(segment, last=turn + 1 == env.max_turns)
        await _ask(env, live)
    return [episode.rollout() for episode in episodes]


def _after(episodes: Sequence[_Episode], progress: Progress | None) -> Progress | None:
    """The progress of one turn, on top of what was made in those before."""
    if progress is None:
        return None
    told, before = progress, sum(episode.made for episode in episodes)
    return lambda made: told(before + made)


async def _ask(env: Answers, episodes: Sequence[_Episode]) -> None:
    for episode, answer in zip(episodes, await env.answer([e.call() for e in episodes]), strict=True):
        episode.take(answer)


@dataclass
class _Open:
    """The segment that grows: T tokens so far."""

    tokens: tuple[int, ...]
    mask: tuple[bool, ...]
    logprobs: tuple[float, ...]
    version: int = 0
    support: Support | None = None

    @classmethod
    def of(cls, prompt: tuple[int, ...]) -> _Open:
        return cls(prompt, (False,) * len(prompt), (0.0,) * len(prompt))

    def append(self, tokens: tuple[int, ...], mask: tuple[bool, ...], logprobs: tuple[float, ...]) -> None:
        """Tokens that follow."""
        self.tokens, self.mask, self.logprobs = self.tokens + tokens, self.mask + mask, self.logprobs + logprobs

    def made(self, segment: Segment) -> None:
        """The sampler's turn, which begins with the tokens here as its prompt."""
        known = len(self.tokens)
        assert segment.tokens[:known] == self.tokens
        self.append(segment.tokens[known:], segment.mask[known:], segment.logprobs[known:])
        self.version = segment.version
        if segment.support and self.support:
            self.support = self.support + segment.support
        else:
            self.support = segment.support

    def closed(self) -> Segment:
        return Segment(self.tokens, self.mask, self.logprobs, self.version, self.support)


class _Episode:
    """One attempt on its way."""

    def __init__(self, place: int, attempt: Attempt, renderer: Renderer, max_tokens: int) -> None:
        self.attempt = attempt
        self.live = True
        self.made = 0
        self._place = place
        self._renderer = renderer
        self._max_tokens = max_tokens
        self._past: tuple[tuple[Message | None, Step], ...] = ()
        self._turn: Message | None = None  # the model's, not yet answered
        self._last = False
        self._said: tuple[Message, ...] = ()
        self._opening = 0  # how many messages the model saw first
        self._closed: list[Segment] = []
        self._open = _Open.of(())
        self._sample = Sample("")
        self._written = Parted()
        self._fault: Fault | None = None

    def request(self, turn: int) -> Request:
        return Request(self._open.tokens, (*self.attempt.key, turn), self._max_tokens - self.made)

    def call(self) -> Call:
        key = (*self.attempt.key, self._place)  # one that no other episode of the batch has
        return Call(key, self._place, self.attempt.example, self._turn, self._past, self._last)

    def hear(self, segment: Segment, *, last: bool) -> None:
        """The model has spoken."""
        self._open.made(segment)
        self.made += segment.sampled
        self._sample, self._written = self._renderer.sample(segment), self._renderer.parted(segment)
        self._turn = self._sample.message()
        self._last = last or self._sample.finish == "length" or self.made >= self._max_tokens

    def take(self, answer: Step | Fault) -> None:
        """The environment has answered."""
        if isinstance(answer, Fault):
            self._fault, self.live = answer, False
            return
        turn, said = self._turn, self._said
        self._past = (*self._past, (turn, answer))
        self._said = (*said, *([turn] if turn else ()), *answer.messages)
        if turn is None:
            self._opening = len(self._said)
            self._open = _Open.of(self._renderer.example(replace(self.attempt.example, messages=self._said)))
            return
        self.live = not (answer.done or self._last)
        if not self.live:
            return
        tools = self.attempt.example.tools
        extended = self._renderer.extend(self._open.tokens, said, turn, answer.messages, tools, self._written)
        if extended is None:
            self._closed.append(self._open.closed())
            self._open = _Open.of(self._renderer.prompt(self._said, tools))
        else:
            new = extended[len(self._open.tokens) :]
            self._open.append(new, (False,) * len(new), (0.0,) * len(new))

    def rollout(self) -> Rollout:
        """What became of it. Where the environment failed before the model spoke, there is no segment."""
        segments = (*self._closed, self._open.closed()) if any(self._open.mask) else tuple(self._closed)
        answers = [step for _, step in self._past[1:]]
        rewards = [step.reward for step in answers if step.reward is not None]
        unanswered = (self._turn,) if self._fault and self._turn else ()
        done = bool(answers) and answers[-1].done
        sample = Sample(
            self._sample.text,
            "stop" if done and self._sample.finish == "stop" else "length",
            (*self._said[self._opening :], *unanswered),
            answers[-1].state if answers else None,
            self._sample.reasoning,
        )
        return Rollout(segments, sample, self._said[: self._opening], sum(rewards) if rewards else None, self._fault)
