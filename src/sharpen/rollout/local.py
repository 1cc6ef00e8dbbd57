"""The built-in sampler: batched and cached, on the trainer's own weights, for any transformers causal LM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.models import plain
from sharpen.models.adapters import fixed_scales
from sharpen.models.cache import Cache
from sharpen.models.head import Head
from sharpen.models.packed import packed_weights
from sharpen.rollout.base import Params, Request, Seen
from sharpen.rollout.draw import cut, draw
from sharpen.rollout.plain import run_plain
from sharpen.rollout.running import Left, Running
from sharpen.rollout.steps import Begun, close, forward
from sharpen.types import Segment


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
        self,
        requests: Sequence[Request],
        params: Params,
        progress: Callable[[int], None] | None = None,
        seen: Seen | None = None,
    ) -> list[Segment]:
        """One segment a request, in order."""
        if not requests:
            return []
        report = progress or (lambda made: None)
        running = Running(requests, params, self.stop, seen)
        if how := plain.how(self.model):
            run_plain(self.model, how, running, self.max_rows, self.prefill_tokens, report)
        else:
            with packed_weights(self.model), fixed_scales(self.model):
                _Run(self, running).run(report)
        return running.segments(self.version)


class _Run:
    """Requests on their way: those waiting enter in order as others finish, and all rows advance at every step.

    Row i of the N running is slot i of the cache.
    """

    def __init__(self, sampler: LocalSampler, running: Running) -> None:
        self.sampler = sampler
        self.running = running
        self.head = Head(sampler.model.lm_head.weight)
        requests = running.requests
        self.slots = min(sampler.max_rows, len(requests))
        most = max(len(request.prompt) + limit for request, limit in zip(requests, running.limits, strict=True))
        self.cache = Cache(sampler.model.config.num_hidden_layers, self.slots, most)
        self.waiting = 0  # the first request that has not begun

    @torch.no_grad()
    def run(self, report: Callable[[int], None]) -> None:
        made = 0
        free: list[int] = []
        while True:
            begun = self._admit(free)
            close(self.cache, self.running.request, free)
            if not self.running.request:
                break
            found = forward(self.sampler.model, self.cache, begun, self.running.newest())
            free = self.running.record(*self._draw(found, self.running.uniform()))
            made += len(self.running.request)
            report(made)

    def _admit(self, free: list[int]) -> Begun:
        """Give waiting requests free slots, in order; returns each distinct prompt with the slots that continue it."""
        running = self.running
        begun: Begun = []
        taken = 0
        while self.waiting < len(running.requests) and (free or len(running.request) < self.slots):
            prompt = running.requests[self.waiting].prompt
            if not begun or begun[-1][0] != prompt:
                if begun and taken + len(prompt) > self.sampler.prefill_tokens:
                    break
                begun.append((prompt, []))
                taken += len(prompt)
            if free:
                slot = free.pop(0)
                running.request[slot] = self.waiting
            else:
                slot = len(running.request)
                running.request.append(self.waiting)
            begun[-1][1].append(slot)
            running.begin(self.waiting)
            self.waiting += 1
        return begun

    def _draw(self, found: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Left]:
        """From hidden states (N, W): tokens (N,), their log-probabilities (N,) and what was left of each row."""
        params, allowed = self.running.params, self.running.allowed()
        restrict = allowed.only if allowed else None
        scores, peak = self.head.shifted(found, params.temperature or 1.0, restrict=restrict)
        left: Left = allowed.sets(self.running.sets) if allowed and not params.cuts else []
        if params.cuts:
            scores, left = cut(scores, params.top_k, params.top_p, params.min_p)
        tokens, logprobs = draw(scores, 1.0 if params.temperature else 0.0, uniform)
        exact = self.head.exact(found, tokens) / (params.temperature or 1.0) - peak[:, 0]
        return tokens, logprobs + exact - scores.gather(-1, tokens[:, None])[:, 0], left
