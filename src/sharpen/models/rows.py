"""Decoding on the slow path: rows on transformers' own cache, together where padding is safe, else one by one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from sharpen.models.plain import Plain, call, head

_CACHES = ("past_key_values", "cache_params", "state")
"""What transformers' models call their cache, in their outputs as in their arguments."""

Prompt = tuple[int, ...]


class Rows:
    """R rows that go on with their prompts; `scores` are the logits (R, vocabulary) of what comes first."""

    def __init__(self, model: Any, plain: Plain, prompts: Sequence[Prompt], prefill_tokens: int = 4096) -> None:
        """Equal neighbouring prompts are computed once; one forward pass holds about `prefill_tokens`."""
        self._parts: list[_Part] = []
        self._logits = head(model, plain)
        hidden: list[Tensor] = []
        groups = [(prompt, len(list(group))) for prompt, group in groupby(prompts)]
        for distinct in _split(groups, prefill_tokens if plain.cache == "batch" else 0):
            part = _Part(model, plain, [prompt for prompt, _ in distinct])
            copies = torch.tensor([count for _, count in distinct])
            hidden.append(part.prefill().repeat_interleave(copies, 0))
            if plain.cache == "batch":
                part.select(torch.arange(len(copies)).repeat_interleave(copies))
                self._parts.append(part)
            else:
                self._parts += [part, *(part.copy() for _ in range(distinct[0][1] - 1))]
        self.scores = self._logits(torch.cat(hidden))

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these, which are in order."""
        kept, first = [], 0
        for part in self._parts:
            own = rows[(rows >= first) & (rows < first + len(part.tokens))] - first
            first += len(part.tokens)
            if len(own) and len(own) < len(part.tokens):
                part.select(own)
            if len(own):
                kept.append(part)
        self._parts = kept

    def decode(self, tokens: Tensor) -> Tensor:
        """The logits (R, vocabulary) after one token (R,) more."""
        parts = tokens.split([len(part.tokens) for part in self._parts])
        return self._logits(torch.cat([part.decode(own) for part, own in zip(self._parts, parts, strict=True)]))


def _split(groups: Sequence[tuple[Prompt, int]], budget: int) -> Iterator[list[tuple[Prompt, int]]]:
    """Prompts that are padded to one length, of at most `budget` tokens, or a single one."""
    pending: list[tuple[Prompt, int]] = []
    for prompt, count in groups:
        longest = max(len(other) for other, _ in [*pending, (prompt, count)])
        if pending and longest * (len(pending) + 1) > budget:
            yield pending
            pending = []
        pending.append((prompt, count))
    if pending:
        yield pending


class _Part:
    """Rows of one cache, left-padded to one length."""

    def __init__(self, model: Any, plain: Plain, prompts: Sequence[Prompt]) -> None:
        self._model = model
        self._plain = plain
        columns = max(map(len, prompts))
        self.tokens = torch.tensor([[0] * (columns - len(prompt)) + list(prompt) for prompt in prompts])
        self._mask = torch.tensor([[0] * (columns - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        self._cache: dict[str, Any] = {}

    def prefill(self) -> Tensor:
        """The last layer's output (rows, width) after the prompts."""
        return self._forward(self.tokens)

    def decode(self, tokens: Tensor) -> Tensor:
        """The same after one token (rows,) more."""
        self.tokens = torch.cat([self.tokens, tokens[:, None]], 1)
        self._mask = torch.cat([self._mask, torch.ones_like(tokens)[:, None]], 1)
        return self._forward(tokens[:, None] if self._cache else self.tokens)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, some of them several times."""
        self.tokens, self._mask = self.tokens[rows], self._mask[rows]
        for cache in self._cache.values():
            cache.reorder_cache(rows)

    def copy(self) -> _Part:
        """The same once more, to go another way."""
        other = copy.copy(self)
        other._cache = copy.deepcopy(self._cache)
        return other

    def _forward(self, tokens: Tensor) -> Tensor:
        """The last layer's output after the newest of `tokens`, which the cache then holds."""
        cached = self._plain.cache != "none"
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        output = call(
            self._model,
            input_ids=tokens,
            attention_mask=self._mask if self._plain.cache == "batch" else None,
            position_ids=positions,
            use_cache=cached,
            **self._cache,
        )
        if cached:
            self._cache = {name: output[name] for name in _CACHES if output.get(name) is not None}
        hidden: Tensor = output.last_hidden_state[:, -1]
        return hidden
