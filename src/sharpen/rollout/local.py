"""The built-in sampler: batched and cached, on the trainer's own weights, for any transformers causal LM."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from sharpen.data.order import generator
from sharpen.models import plain
from sharpen.models.adapters import fixed_scales
from sharpen.models.attention import Cache, Packed, Prefill, Span, layout
from sharpen.models.head import logits
from sharpen.models.packed import packed_weights
from sharpen.models.rows import Rows
from sharpen.rollout.base import Params, Request
from sharpen.rollout.draw import cut, draw
from sharpen.types import Segment, Support

SHRINK = 0.75
"""Finished rows leave the batch when at most this share of it still runs."""


class LocalSampler:
    """Samples with the model it is given; training the model is all it takes to update it."""

    def __init__(self, model: Any, stop: frozenset[int], max_rows: int = 128, prefill_tokens: int = 4096) -> None:
        """`stop` are the tokens that end a completion; `max_rows` completions run side by side."""
        self.model = model
        self.stop = stop
        self.max_rows = max_rows
        self.prefill_tokens = prefill_tokens
        self.version = 0

    async def sample(
        self, requests: Sequence[Request], params: Params, progress: Callable[[int], None] | None = None
    ) -> list[Segment]:
        """One segment a request, in order."""
        segments: list[Segment] = []
        made = 0

        def report(tokens: int) -> None:
            if progress:
                progress(made + tokens)

        with packed_weights(self.model), fixed_scales(self.model):
            for start in range(0, len(requests), self.max_rows):
                batch = _Batch(self, requests[start : start + self.max_rows], params)
                segments += batch.run(report)
                made = sum(segment.sampled for segment in segments)
        return segments


class _Batch:
    """Rows that decode together. R counts the rows still running."""

    def __init__(self, sampler: LocalSampler, requests: Sequence[Request], params: Params) -> None:
        self.sampler = sampler
        self.requests = requests
        self.params = params
        self.limits = [request.limit or params.max_tokens for request in requests]
        self.tokens: list[list[int]] = [[] for _ in requests]
        self.logprobs: list[list[float]] = [[] for _ in requests]
        self.supports: list[list[array[int]]] = [[] for _ in requests]
        self.plain = plain.how(sampler.model)
        self.head = torch.empty(0) if self.plain else sampler.model.lm_head.weight.float()
        self.uniforms = torch.stack(
            [torch.from_numpy(generator(request.key).random(params.max_tokens)) for request in requests]
        )

    @torch.no_grad()
    def run(self, report: Callable[[int], None]) -> list[Segment]:
        cache, scores = self._prefill()
        running = torch.arange(len(self.requests))
        positions = torch.tensor([len(request.prompt) for request in self.requests])
        made = 0
        for step in range(self.params.max_tokens):
            tokens, logprobs, left = self._draw(scores, self.uniforms[running, step])
            alive = self._record(running, tokens, logprobs, left)
            made += len(running)
            report(made)
            if step + 1 == self.params.max_tokens or not alive.any():
                break
            if alive.sum() <= SHRINK * len(running):
                kept = alive.nonzero()[:, 0]
                cache.keep(kept)
                running, tokens, positions = running[kept], tokens[kept], positions[kept]
            scores = self._decode(cache, tokens, positions)
            positions = positions + 1
        return [self._segment(row) for row in range(len(self.requests))]

    def _prefill(self) -> tuple[Cache | Rows, Tensor]:
        """Compute each distinct neighbouring prompt once; returns the cache and the first logits (R, V)."""
        if self.plain:
            prompts = [request.prompt for request in self.requests]
            rows = Rows(self.sampler.model, self.plain, prompts, self.sampler.prefill_tokens)
            return rows, rows.scores
        lengths = torch.tensor([len(request.prompt) for request in self.requests])
        column = int(lengths.max())
        layers: int = self.sampler.model.config.num_hidden_layers
        cache = Cache(layers, column - lengths, column, column + self.params.max_tokens)
        scores: list[Tensor] = []
        for part in self._prompt_parts():
            spans: list[Span] = []
            tokens: list[int] = []
            for prompt, _ in part:
                spans.append(Span(len(tokens), len(prompt)))
                tokens += prompt
            positions = torch.cat([torch.arange(span.length) for span in spans])
            with layout(Prefill(Packed(spans), cache, [rows for _, rows in part])):
                hidden = self._hidden(torch.tensor(tokens)[None], positions[None])[0]
            ends = torch.tensor([span.start + span.length - 1 for span in spans])
            copies = torch.tensor([last - first for _, (first, last) in part])
            scores.append(logits(hidden[ends], self.head).repeat_interleave(copies, 0))
        return cache, torch.cat(scores)

    def _prompt_parts(self) -> list[list[tuple[tuple[int, ...], tuple[int, int]]]]:
        """(prompt, its rows), split so that one forward pass holds about `prefill_tokens`."""
        parts: list[list[tuple[tuple[int, ...], tuple[int, int]]]] = [[]]
        used = row = 0
        for prompt, group in groupby(self.requests, key=lambda request: request.prompt):
            count = len(list(group))
            if parts[-1] and used + len(prompt) > self.sampler.prefill_tokens:
                parts.append([])
                used = 0
            parts[-1].append((prompt, (row, row + count)))
            used += len(prompt)
            row += count
        return parts

    def _decode(self, cache: Cache | Rows, tokens: Tensor, positions: Tensor) -> Tensor:
        if isinstance(cache, Rows):
            return cache.decode(tokens)
        with layout(cache):
            hidden = self._hidden(tokens[:, None], positions[:, None])[:, 0]
        cache.advance()
        return logits(hidden, self.head)

    def _hidden(self, tokens: Tensor, positions: Tensor) -> Tensor:
        base = self.sampler.model.base_model
        output: Tensor = base(input_ids=tokens, position_ids=positions, use_cache=False).last_hidden_state
        return output

    def _draw(self, scores: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, list[array[int]]]:
        """Tokens (R,), their log-probabilities (R,) and, where tokens were cut off, what was left of each row."""
        params = self.params
        if not params.cuts:
            return *draw(scores, params.temperature, uniform), []
        rest, left = cut(scores / params.temperature, params.top_k, params.top_p, params.min_p)
        return *draw(rest, 1.0, uniform), left

    def _record(self, running: Tensor, tokens: Tensor, logprobs: Tensor, left: list[array[int]]) -> Tensor:
        """Append to each row unless it has stopped; returns which rows (R,) go on."""
        alive = []
        for place, (row, token, logprob) in enumerate(
            zip(running.tolist(), tokens.tolist(), logprobs.tolist(), strict=True)
        ):
            made = self.tokens[row]
            stopped = len(made) == self.limits[row] or (bool(made) and made[-1] in self.sampler.stop)
            if not stopped:
                made.append(token)
                self.logprobs[row].append(logprob)
                self.supports[row] += left[place : place + 1]
            alive.append(not stopped and token not in self.sampler.stop and len(made) < self.limits[row])
        return torch.tensor(alive)

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
