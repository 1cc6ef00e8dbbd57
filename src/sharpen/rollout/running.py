"""Completions under way: what has been drawn for whom, whatever computes it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sharpen.data.order import generator
from sharpen.rollout.base import Params, Request, Seen
from sharpen.rollout.grammar import Allowed, advance
from sharpen.types import Segment, Support

Left: TypeAlias = "list[array[int]] | list[bytes]"
"""What each row's token is drawn from: after a cut its tokens, else the grammar's set; empty where there is neither."""


class Running:
    """Requests and what has been made of them; row i of those that run side by side is for request `request[i]`."""

    def __init__(
        self, requests: Sequence[Request], params: Params, stop: frozenset[int], seen: Seen | None = None
    ) -> None:
        self.requests = requests
        self.params = params
        self.stop = stop
        self.seen = seen
        self.limits = [request.limit or params.max_tokens for request in requests]
        self.tokens: list[list[int]] = [[] for _ in requests]
        self.logprobs: list[list[float]] = [[] for _ in requests]
        self.supports: list[list[Any]] = [[] for _ in requests]
        self.sets: dict[bytes, bytes] = {}  # the grammar's, so that equal ones are one object
        self.uniforms: dict[int, list[float]] = {}
        self.matchers: dict[int, Any] = {}
        self.request: list[int] = []

    def begin(self, which: int) -> None:
        """Draw the numbers that a request's tokens are drawn with, and set its grammar to the start."""
        self.uniforms[which] = generator(self.requests[which].key).random(self.params.max_tokens).tolist()
        if self.params.grammar:
            self.matchers[which] = self.params.grammar.begin()

    def uniform(self) -> Tensor:
        """The number (N,) that each row draws its next token with."""
        return torch.tensor(
            [self.uniforms[which][len(self.tokens[which])] for which in self.request], dtype=torch.float64
        )

    def allowed(self) -> Allowed | None:
        """What each row may draw next; None: anything."""
        grammar = self.params.grammar
        return Allowed(grammar, [self.matchers[which] for which in self.request]) if grammar else None

    def newest(self) -> list[int]:
        """Each row's newest token: of one that begins, its prompt's last."""
        return [(self.tokens[which] or self.requests[which].prompt)[-1] for which in self.request]

    def record(self, tokens: Tensor, logprobs: Tensor, left: Left) -> list[int]:
        """Append to each row what it has drawn; returns the slots of rows that are complete."""
        complete = []
        for slot, (which, token, logprob) in enumerate(
            zip(self.request, tokens.tolist(), logprobs.tolist(), strict=True)
        ):
            made = self.tokens[which]
            made.append(token)
            self.logprobs[which].append(logprob)
            self.supports[which] += left[slot : slot + 1]
            if token in self.stop or len(made) == self.limits[which] or self.requests[which].pauses(made):
                complete.append(slot)
                del self.uniforms[which]
                self.matchers.pop(which, None)
            elif self.params.grammar:
                advance(self.matchers[which], token)
            if self.seen:
                self.seen(which, token)
        return complete

    def segments(self, version: int) -> list[Segment]:
        """One a request, in order."""
        return [self._segment(row, version) for row in range(len(self.requests))]

    def _segment(self, row: int, version: int) -> Segment:
        prompt, made = self.requests[row].prompt, self.tokens[row]
        return Segment(
            tokens=(*prompt, *made),
            mask=(False,) * len(prompt) + (True,) * len(made),
            logprobs=(0.0,) * len(prompt) + tuple(self.logprobs[row]),
            version=version,
            support=self._support(row),
        )

    def _support(self, row: int) -> Support | None:
        if not self.params.cuts:
            return Support((), array("i"), tuple(self.supports[row])) if self.params.grammar else None
        ids = array("i")
        for left in self.supports[row]:
            ids += left
        return Support(tuple(map(len, self.supports[row])), ids)
