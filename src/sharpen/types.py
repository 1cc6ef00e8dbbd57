"""The nouns every floor shares. Plain frozen dataclasses; no torch, no pydantic."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

Message = dict[str, Any]
"""One chat message, `{"role": ..., "content": ...}`, as OpenAI's API writes it."""

Tool = dict[str, Any]
"""A tool the model may call, `{"type": "function", "function": {...}}`, as OpenAI's API writes it."""

Finish = Literal["stop", "length"]
"""Why a completion ended: an end-of-turn token, or a limit (`max_tokens`; in an environment also `max_turns`)."""


class Interval(NamedTuple):
    """A 95 % interval, both ends included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt, and the fields a grader may read (`item["answer"]`).

    `messages` keep content in parts (images) as the row has it. `place` is where the row stands
    (`file:line`), `grader` the key of its source's own grader, empty where the stage's grades.
    """

    id: str
    messages: tuple[Message, ...]
    item: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    grader: str = ""
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Labelled:
    """One conversation to imitate; `trained` holds the indices of the messages the loss covers.

    A row of plain text has `text` and no messages: all of it is trained, without a chat template.
    `desirable` is a KTO row's label, None for rows to imitate.
    """

    id: str
    messages: tuple[Message, ...]
    trained: tuple[int, ...]
    tools: tuple[Tool, ...] = ()
    text: str = ""
    desirable: bool | None = None
    place: str = field(default="", compare=False)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the first trained one."""
        return self.messages[: self.trained[0]] if self.trained else self.messages


@dataclass(frozen=True, slots=True)
class Preference:
    """One conversation and two continuations of it, of which `chosen` is the better."""

    id: str
    messages: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    place: str = field(default="", compare=False)

    def answered(self, answer: tuple[Message, ...], desirable: bool | None = None) -> Labelled:
        """One of the two continuations as a row whose assistant turns are trained."""
        talk = self.messages + answer
        spoken = tuple(i for i in range(len(self.messages), len(talk)) if talk[i]["role"] == "assistant")
        return Labelled(self.id, talk, spoken, self.tools, desirable=desirable, place=self.place)


@dataclass(frozen=True, slots=True)
class Support:
    """What could be drawn where top-k, top-p, min-p or a grammar left a part of the vocabulary, for N sampled tokens.

    The first `counts[0]` of `ids` (32-bit integers) are the first token's, the next `counts[1]` the second's. A grammar
    alone may leave nearly all: then both are empty, and `sets` has an entry a token, zlib's of a bit for each of the
    vocabulary (the lowest of a byte first). Tokens that could be the same share one object.
    """

    counts: tuple[int, ...]
    ids: array[int]
    sets: tuple[bytes, ...] = ()

    def __add__(self, other: Support) -> Support:
        """That of the tokens here and the other's after them."""
        return Support(self.counts + other.counts, self.ids + other.ids, self.sets + other.sets)


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens the policy saw and made.

    `mask[i]` is true where token i was sampled; `logprobs[i]` is its log-probability under the
    sampler at the sampling temperature (0 where not sampled), renormalised on `support`, which has
    an entry a sampled token; None: nothing was cut off. `version` is the policy's step.
    """

    tokens: tuple[int, ...]
    mask: tuple[bool, ...]
    logprobs: tuple[float, ...]
    version: int
    support: Support | None = None

    @property
    def sampled(self) -> int:
        """How many tokens the policy made."""
        return sum(self.mask)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a grader sees of an attempt: text, no tokens.

    `text` is the answer, `reasoning` what a reasoning model thought before it. Where the attempt was an episode in an
    environment, both are of the model's last turn, `messages` are all turns after the prompt, the environment's among
    them, and `env_state` is what the environment last said of itself.
    """

    text: str
    finish: Finish = "stop"
    messages: tuple[Message, ...] = ()
    env_state: Any = None
    reasoning: str = ""

    def message(self) -> Message:
        """The model's (last) turn, as chat templates and other libraries take it."""
        thoughts = {"reasoning_content": self.reasoning} if self.reasoning else {}
        return {"role": "assistant", "content": self.text, **thoughts}

    def turns(self) -> dict[str, Any]:
        """`messages` and `env_state`, as graders name them; empty where there was no environment."""
        return {"messages": list(self.messages), "env_state": self.env_state} if self.messages else {}


ENVIRONMENT_ERROR = "environment_error"
"""The kind of fault of an environment that raised, took too long, died, or returned no step."""


BUDGET_SPENT = "model_grader_budget_spent"
"""The kind of fault of grades that a judge's budget did not suffice for; a run pauses at the first."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something went wrong in an environment or while grading; `kind` is a name of OpenAI's grader-run errors."""

    kind: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One attempt at an example.

    It has several segments only where a chat template rewrites earlier turns. In an environment, `prompt` is what
    the model saw first, `reward` the sum of the rewards of its steps (None: it gave none), and `fault` says how the
    environment failed.
    """

    segments: tuple[Segment, ...]
    sample: Sample
    prompt: tuple[Message, ...] = ()
    reward: float | None = None
    fault: Fault | None = None

    @property
    def sampled(self) -> int:
        """How many tokens the policy made, over all segments."""
        return sum(segment.sampled for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Grade:
    """What a grader says of a sample.

    `score` is a finite float, or None when the *grader* failed (then `fault` says why, and the
    rollout is left out). A fault of the *completion* (unparsable, too slow to check) keeps the
    minimum score and names its cause in `fault`. `metrics` are extra numbers, such as
    `{"format": 1.0}` where the answer stood in the form asked for.
    """

    score: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    explanation: str = ""
    fault: Fault | None = None

    @property
    def valid(self) -> bool:
        """Whether there is a score to learn from."""
        return self.score is not None


@dataclass(frozen=True, slots=True)
class Group:
    """The attempts at one prompt, and what the grader said of each."""

    example: Example
    rollouts: tuple[Rollout, ...]
    grades: tuple[Grade, ...] = ()


@dataclass(frozen=True, slots=True)
class Sequence:
    """One row for the trainer: T tokens, of which those with `mask` are trained.

    `shared` counts the leading tokens that equal those of the other sequences of `atom`, so that
    a packer may compute them once; packing never splits an atom. Neighbours of one atom with the
    same `attempt` are one rollout's segments; None: a sequence by itself. `advantages` and the logprobs
    have one number a token (0 where `mask` is false); empty when the loss does not use them.
    `support` has an entry a trained token; the model's distribution is renormalised on it.
    """

    tokens: tuple[int, ...]
    mask: tuple[bool, ...]
    atom: str
    shared: int = 0
    advantages: tuple[float, ...] = ()
    rollout_logprobs: tuple[float, ...] = ()
    old_logprobs: tuple[float, ...] = ()
    ref_logprobs: tuple[float, ...] = ()
    attempt: int | None = None
    support: Support | None = None

    @property
    def trained(self) -> int:
        """How many tokens the loss covers."""
        return sum(self.mask)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on disk, after `step` optimiser steps, with their ancestor."""

    path: Path
    step: int
    parent: Path | None = None
