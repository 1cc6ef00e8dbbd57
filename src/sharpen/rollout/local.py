"""The built-in sampler: batched and cached, on the trainer's own weights, for any transformers causal LM."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.data.order import generator
from sharpen.models.adapters import fixed_scales
from sharpen.models.attention import Span, layout
from sharpen.models.cache import Cache, Step
from sharpen.models.fused import hidden
from sharpen.models.head import Head
from sharpen.models.packed import packed_weights
from sharpen.rollout.base import Params, Request
from sharpen.rollout.draw import cut, draw
from sharpen.types import Segment, Support


class LocalSampler:
    """Samples with the model it is given; training the model is all it takes to update it."""

    def __init__(self, model: Any, stop: frozenset[int], max_rows: int = 128, prefill_tokens: int = 4096) -> None:
        """`stop` are the tokens that end a completion; `max_rows` completions run side by side.

        A step takes in about `prefill_tokens` of new prompts at most.
        """
        self.model = model
        self.stop = stop
        self.max_rows = max_rows
        self.prefill_tokens = prefill_tokens
        self.version = 0

    async def sample(
        self, requests: Sequence[Request], params: Params, progress: Callable[[int], None] | None = None
    ) -> list[Segment]:
        """One segment a request, in order."""
        if not requests:
            return []
        with packed_weights(self.model), fixed_scales(self.model):
            return _Run(self, requests, params).run(progress or (lambda made: None))


class _Run:
    """Requests on their way: those waiting enter in order as others finish, and all rows advance at every step.

    Row i of the N running is slot i of the cache; `request[i]` is whose it is.
    """

    def __init__(self, sampler: LocalSampler, requests: Sequence[Request], params: Params) -> None:
        self.sampler = sampler
        self.requests = requests
        self.params = params
        self.limits = [request.limit or params.max_tokens for request in requests]
        self.tokens: list[list[int]] = [[] for _ in requests]
        self.logprobs: list[list[float]] = [[] for _ in requests]
        self.supports: list[list[array[int]]] = [[] for _ in requests]
        self.uniforms: dict[int, list[float]] = {}
        self.head = Head(sampler.model.lm_head.weight)
        self.slots = min(sampler.max_rows, len(requests))
        most = max(len(request.prompt) + limit for request, limit in zip(requests, self.limits, strict=True))
        self.cache = Cache(sampler.model.config.num_hidden_layers, self.slots, most)
        self.request: list[int] = []
        self.waiting = 0  # the first request that has not begun

    @torch.no_grad()
    def run(self, report: Callable[[int], None]) -> list[Segment]:
        made = 0
        free: list[int] = []
        while True:
            begun = self._admit(free)
            self._close(free)
            if not self.request:
                break
            free = self._record(*self._draw(self._forward(begun), self._uniform()))
            made += len(self.request)
            report(made)
        return [self._segment(row) for row in range(len(self.requests))]

    def _admit(self, free: list[int]) -> list[tuple[tuple[int, ...], list[int]]]:
        """Give waiting requests free slots, in order; returns each distinct prompt with the slots that continue it."""
        begun: list[tuple[tuple[int, ...], list[int]]] = []
        taken = 0
        while self.waiting < len(self.requests) and (free or len(self.request) < self.slots):
            prompt = self.requests[self.waiting].prompt
            if not begun or begun[-1][0] != prompt:
                if begun and taken + len(prompt) > self.sampler.prefill_tokens:
                    break
                begun.append((prompt, []))
                taken += len(prompt)
            if free:
                slot = free.pop(0)
                self.request[slot] = self.waiting
            else:
                slot = len(self.request)
                self.request.append(self.waiting)
            begun[-1][1].append(slot)
            drawn = generator(self.requests[self.waiting].key).random(self.params.max_tokens)
            self.uniforms[self.waiting] = drawn.tolist()
            self.waiting += 1
        return begun

    def _close(self, free: list[int]) -> None:
        """Fill slots that stay free with the last rows, so that those in use are the first."""
        for slot in sorted(free, reverse=True):
            last = len(self.request) - 1
            if slot != last:
                self.cache.move(last, slot)
                self.request[slot] = self.request[last]
            self.request.pop()

    def _forward(self, begun: list[tuple[tuple[int, ...], list[int]]]) -> Tensor:
        """The hidden state (N, W) of each row's newest token: of a row that begins, its prompt's last."""
        tokens: list[int] = []
        positions: list[int] = []
        prompts: list[tuple[Span, list[int]]] = []
        for prompt, slots in begun:
            before = len(prompt) - 1
            if before:
                prompts.append((Span(len(tokens), before), slots))
                tokens += prompt[:-1]
                positions += range(before)
            else:
                self.cache.lengths[slots] = 0
        step = Step(self.cache, len(self.request), prompts)
        newest = [(self.tokens[which] or self.requests[which].prompt)[-1] for which in self.request]
        places = torch.cat([torch.tensor(positions, dtype=torch.long), step.places])
        with layout(step):
            found = hidden(self.sampler.model, torch.tensor(tokens + newest), places)
        step.done()
        return found[len(tokens) :]

    def _uniform(self) -> Tensor:
        """The number (N,) that each row draws its next token with."""
        return torch.tensor(
            [self.uniforms[which][len(self.tokens[which])] for which in self.request], dtype=torch.float64
        )

    def _draw(self, found: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, list[array[int]]]:
        """From hidden states (N, W): tokens (N,), their log-probabilities (N,) and, where tokens were cut off, what
        was left of each row."""
        params = self.params
        scores, peak = self.head.shifted(found, params.temperature or 1.0)
        left: list[array[int]] = []
        if params.cuts:
            scores, left = cut(scores, params.top_k, params.top_p, params.min_p)
        tokens, logprobs = draw(scores, 1.0 if params.temperature else 0.0, uniform)
        exact = self.head.exact(found, tokens) / (params.temperature or 1.0) - peak[:, 0]
        return tokens, logprobs + exact - scores.gather(-1, tokens[:, None])[:, 0], left

    def _record(self, tokens: Tensor, logprobs: Tensor, left: list[array[int]]) -> list[int]:
        """Append to each row what it has drawn; returns the slots of rows that are complete."""
        complete = []
        for slot, (which, token, logprob) in enumerate(
            zip(self.request, tokens.tolist(), logprobs.tolist(), strict=True)
        ):
            made = self.tokens[which]
            made.append(token)
            self.logprobs[which].append(logprob)
            self.supports[which] += left[slot : slot + 1]
            if token in self.sampler.stop or len(made) == self.limits[which]:
                complete.append(slot)
                del self.uniforms[which]
        return complete

    def _segment(self, row: int) -> Segment:
        prompt, made = self.requests[row].prompt, self.tokens[row]
        return Segment(
            tokens=(*prompt, *made),
            mask=(False,) * len(prompt) + (True,) * len(made),
            logprobs=(0.0,) * len(prompt) + tuple(self.logprobs[row]),
            version=self.sampler.version,
            support=self._support(row) if self.params.cuts else None,
        )

    def _support(self, row: int) -> Support:
        ids = array("i")
        for left in self.supports[row]:
            ids += left
        return Support(tuple(map(len, self.supports[row])), ids)
