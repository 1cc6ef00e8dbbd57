"""What computes the steps of serving's batch: on our attention, or on the slow path."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from sharpen.data.order import Key
from sharpen.models.cache import Cache
from sharpen.models.head import Head, Restrict
from sharpen.models.plain import Plain
from sharpen.models.rows import Rows
from sharpen.rollout.base import Params
from sharpen.rollout.generate import token_bytes
from sharpen.rollout.steps import Begun, close, forward

ROOM = 64
"""Tokens that a row must still have room for when it enters; beyond, the youngest row goes back and waits."""
UNBOUNDED = 1 << 17
"""The context of a model that names none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One completion to make. `logprobs`: how many of the likeliest tokens to tell at each place, None: nothing."""

    id: int
    prompt: tuple[int, ...]
    key: Key
    params: Params
    logprobs: int | None = None


@dataclass(eq=False, slots=True)
class Row:
    """A request under way."""

    asked: Asked
    numbers: Any
    matcher: Any = None
    tokens: list[int] = field(default_factory=list)
    order: int = 0
    """When it entered the batch."""
    over: bool = False

    @property
    def text(self) -> tuple[int, ...]:
        """All its tokens, the prompt's too."""
        return (*self.asked.prompt, *self.tokens)

    @property
    def length(self) -> int:
        """How many those are."""
        return len(self.asked.prompt) + len(self.tokens)


Scores = tuple[Tensor, Callable[[Tensor], Tensor]]
"""Logits (N, V) at temperature 1, less about the largest of each row; and what tells those (N,) of tokens exactly."""


class Engine(Protocol):
    """What computes the batch's steps."""

    def turn(self, rows: list[Row], waiting: deque[Row]) -> None:
        """Take rows that are over out of the batch, and those in that there is room for."""
        ...

    def scores(self, rows: Sequence[Row], hottest: float, restrict: Restrict | None) -> Scores:
        """What comes next in each row, exact for all that may be drawn at the temperature `hottest`."""
        ...


class Cached:
    """On our attention: rows enter and leave at every step. Row i is slot i of the cache."""

    def __init__(self, model: Any, max_rows: int, prefill_tokens: int, memory: int) -> None:
        """`memory`: bytes that keys and values may take."""
        config = model.config.get_text_config()
        self.model = model
        self.head = Head(model.lm_head.weight)
        self.max_rows, self.prefill_tokens = max_rows, prefill_tokens
        self.tokens = memory // token_bytes(config)
        """Rows times the longest row's tokens, at most."""
        self.most = getattr(config, "max_position_embeddings", None) or UNBOUNDED
        self.cache: Cache | None = None
        self.begun: Begun = []
        self.entered = 0

    def turn(self, rows: list[Row], waiting: deque[Row]) -> None:
        while len(rows) > 1 and self._taken(rows, 1) > self.tokens:
            youngest = max((row for row in rows if not row.over), key=lambda row: row.order, default=None)
            if youngest is None:
                break
            place = rows.index(youngest)
            waiting.appendleft(youngest)
            rows[place] = Row(youngest.asked, None, over=True)
        free = [place for place, row in enumerate(rows) if row.over]
        if len(free) == len(rows):  # memory goes back where nothing is kept
            rows.clear()
            free, self.cache = [], None
        self.begun = self._admit(rows, waiting, free)
        if self.cache is None and rows:
            self.cache = Cache(self.model.config.num_hidden_layers, self.max_rows, self.most + 1)
        if self.cache:
            close(self.cache, rows, free)

    def _admit(self, rows: list[Row], waiting: deque[Row], free: list[int]) -> Begun:
        """Give waiting rows free slots, in order."""
        begun: Begun = []
        taken = 0
        while waiting and (free or len(rows) < self.max_rows):
            row = waiting[0]
            if row.over:
                waiting.popleft()
                continue
            text = row.text
            fresh = not begun or begun[-1][0] != text
            if fresh and begun and taken + len(text) > self.prefill_tokens:
                break
            kept = [held for held in rows if not held.over]
            if kept and self._taken([*kept, row], ROOM) > self.tokens:
                break
            waiting.popleft()
            if fresh:
                begun.append((text, []))
                taken += len(text)
            if free:
                slot = free.pop(0)
                rows[slot] = row
            else:
                slot = len(rows)
                rows.append(row)
            self.entered += 1
            row.order = self.entered
            begun[-1][1].append(slot)
        return begun

    def _taken(self, rows: Sequence[Row], more: int) -> int:
        kept = [row.length for row in rows if not row.over]
        return len(kept) * (max(kept) + more) if kept else 0

    def scores(self, rows: Sequence[Row], hottest: float, restrict: Restrict | None) -> Scores:
        assert self.cache
        newest = [(row.tokens or row.asked.prompt)[-1] for row in rows]
        found = forward(self.model, self.cache, self.begun, newest)
        scores, peak = self.head.shifted(found, hottest, restrict=restrict)
        if hottest != 1:
            scores = scores * hottest
        return scores, lambda tokens: self.head.exact(found, tokens) - peak[:, 0] * hottest


class Slow:
    """On the slow path: a batch's finished rows leave it, and none enter before it is done."""

    def __init__(self, model: Any, how: Plain, max_rows: int, prefill_tokens: int) -> None:
        self.model, self.how = model, how
        self.max_rows, self.prefill_tokens = max_rows, prefill_tokens
        self.held: Rows | None = None
        self.fresh = True

    def turn(self, rows: list[Row], waiting: deque[Row]) -> None:
        kept = [place for place, row in enumerate(rows) if not row.over]
        if kept:
            if self.held and len(kept) < len(rows):
                self.held.keep(torch.tensor(kept))
                rows[:] = [rows[place] for place in kept]
            return
        rows.clear()
        while waiting and len(rows) < self.max_rows:
            if not (row := waiting.popleft()).over:
                rows.append(row)
        self.held = Rows(self.model, self.how, [row.text for row in rows], self.prefill_tokens) if rows else None
        self.fresh = True

    def scores(self, rows: Sequence[Row], hottest: float, restrict: Restrict | None) -> Scores:
        assert self.held
        found = self.held.scores if self.fresh else self.held.decode(torch.tensor([row.tokens[-1] for row in rows]))
        self.fresh = False
        found = found.float() if restrict is None else restrict(found.float())
        found = found - found.amax(-1, keepdim=True)
        return found, lambda tokens: found.gather(-1, tokens[:, None])[:, 0]
