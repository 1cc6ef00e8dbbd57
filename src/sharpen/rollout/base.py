"""What samples: tokens in, tokens out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sharpen.data.order import Key
from sharpen.rollout.grammar import Grammar
from sharpen.types import Segment

Seen = Callable[[int, int], None]
"""Told each token as it is made: the place of its request in the list, and the token. It may raise, to stop."""


class Pause(NamedTuple):
    """A completion ends once it has `after` tokens, unless the token `unless` is among them."""

    after: int
    unless: int


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to make. Neighbouring requests with the same prompt share its computation.

    `limit` is the most tokens it may have, where that is less than `Params.max_tokens`.
    """

    prompt: tuple[int, ...]
    key: Key
    limit: int | None = None
    pause: Pause | None = None

    def pauses(self, made: Sequence[int]) -> bool:
        """Whether its completion ends after these tokens, because of its pause."""
        return self.pause is not None and len(made) == self.pause.after and self.pause.unless not in made


@dataclass(frozen=True, slots=True)
class Params:
    """How to draw; the fields mean what they do in config.stages.Sampling.

    Temperature 0 is greedy; log-probabilities are then those at temperature 1, of the whole vocabulary or what the
    grammar leaves of it. The grammar comes before top-k, top-p and min-p.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    grammar: Grammar | None = None

    @property
    def cuts(self) -> bool:
        """Whether unlikely tokens are cut off."""
        return self.temperature > 0 and (self.top_k is not None or self.top_p < 1 or self.min_p > 0)


class Sampler(Protocol):
    """Completes prompts with the policy's present weights.

    Requests come as one list because batches form in logical order: a row's bits may depend on its
    neighbours, so the order of the list, never the time of arrival, decides.
    """

    async def sample(
        self, requests: Sequence[Request], params: Params, progress: Callable[[int], None] | None = None
    ) -> list[Segment]:
        """One segment a request, in order; with its support where `params` cut tokens off or have a grammar.

        `progress` is told the number of tokens made so far.
        """
        ...
