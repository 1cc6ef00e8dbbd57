"""The continuous batch of serving: requests come at any time, each with settings of its own, and leave as they end.

What a request's tokens are follows from its prompt, key and settings, as with `rollout.local`; never from who runs
beside it, but for the rounding of products over other numbers of rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from sharpen.data.order import generator
from sharpen.errors import ConfigError
from sharpen.models import plain
from sharpen.models.adapters import fixed_scales
from sharpen.models.packed import packed_weights
from sharpen.rollout.draw import cut, draw
from sharpen.rollout.engines import Asked, Cached, Engine, Row, Slow
from sharpen.rollout.generate import CACHE_BYTES
from sharpen.rollout.grammar import Allowed, advance

__all__ = ["Asked", "Batch", "Made"]


class Made(NamedTuple):
    """A token of a completion, or why there will be none (`fault`).

    Log-probabilities are the model's own, at temperature 1, over the vocabulary or what a grammar leaves of it.
    """

    id: int
    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    finish: Literal["stop", "length"] | None = None
    fault: str = ""


class Batch:
    """Rows that run side by side; a context manager, inside which the model's weights must not change."""

    def __init__(
        self,
        model: Any,
        stop: frozenset[int],
        max_rows: int = 64,
        prefill_tokens: int = 1024,
        memory: int = CACHE_BYTES,
    ) -> None:
        """`memory`: bytes that keys and values may take; a step takes in about `prefill_tokens` of new prompts."""
        self.model, self.stop = model, stop
        self._rows: list[Row] = []
        self._waiting: deque[Row] = deque()
        self._known: dict[int, Row] = {}
        self._open = ExitStack()
        self._engine: Engine
        if how := plain.how(model):
            self._engine = Slow(model, how, max_rows, prefill_tokens)
        else:
            self._engine = Cached(model, max_rows, prefill_tokens, memory)

    def __enter__(self) -> Self:
        if plain.how(self.model) is None:
            self._open.enter_context(packed_weights(self.model))
            self._open.enter_context(fixed_scales(self.model))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._known)

    def add(self, asked: Asked) -> None:
        """A request, which begins when there is room for it."""
        grammar = asked.params.grammar
        row = Row(asked, generator(asked.key), grammar.begin() if grammar else None)
        self._known[asked.id] = row
        self._waiting.append(row)

    def cancel(self, id: int) -> None:
        """Forget a request, wherever it stands."""
        if row := self._known.pop(id, None):
            row.over = True

    @torch.no_grad()
    def step(self) -> list[Made]:
        """One token more for each row in the batch."""
        self._engine.turn(self._rows, self._waiting)
        if not self._rows:
            return []
        masks, found = _masks(self._rows)
        for fault in found:
            self.cancel(fault.id)
        temperatures = [row.asked.params.temperature for row in self._rows]
        restrict = (lambda logits: _restricted(logits, masks)) if masks else None
        scores, exact = self._engine.scores(self._rows, max(1.0, *temperatures), restrict)
        tokens = _draw(scores, self._rows)
        told = _logprobs(scores, exact, tokens, self._rows)
        for place, (row, token) in enumerate(zip(self._rows, tokens.tolist(), strict=True)):
            if not row.over:
                found.append(self._record(row, token, *told.get(place, (None, ()))))
        return found

    def _record(self, row: Row, token: int, logprob: float | None, top: tuple[tuple[int, float], ...]) -> Made:
        row.tokens.append(token)
        asked = row.asked
        finish: Literal["stop", "length"] | None = None
        fault = ""
        if token in self.stop:
            finish = "stop"
        elif len(row.tokens) >= asked.params.max_tokens:
            finish = "length"
        elif row.matcher is not None:
            try:
                advance(row.matcher, token)
            except ConfigError as error:
                fault = str(error)
        if finish or fault:
            self.cancel(asked.id)
        return Made(asked.id, token, logprob, top, finish, fault)


def _masks(rows: Sequence[Row]) -> tuple[dict[int, Allowed], list[Made]]:
    """What the rows with a grammar may draw, and the rows that it has no token for."""
    masks: dict[int, Allowed] = {}
    faults: list[Made] = []
    for place, row in enumerate(rows):
        grammar = row.asked.params.grammar
        if grammar and not row.over:
            try:
                masks[place] = Allowed(grammar, [row.matcher])
            except ConfigError as error:
                faults.append(Made(row.asked.id, -1, fault=str(error)))
    return masks, faults


def _restricted(logits: Tensor, masks: dict[int, Allowed]) -> Tensor:
    """The logits (N, V) with −∞ for all that may not be drawn."""
    logits = logits.clone()
    for place, allowed in masks.items():
        logits[place] = allowed.only(logits[place : place + 1])[0]
    return logits


def _draw(scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """The next token (N,) of each row; rows that cut alike are drawn together."""
    groups: dict[tuple[int | None, float, float] | None, list[int]] = {}
    for place, row in enumerate(rows):
        params = row.asked.params
        cuts = (params.top_k, params.top_p, params.min_p) if params.temperature else None
        groups.setdefault(cuts, []).append(place)
    tokens = torch.empty(len(rows), dtype=torch.long)
    for how, places in groups.items():
        part = scores if len(places) == len(rows) else scores[places]
        if how is None:
            tokens[places] = part.argmax(-1)
            continue
        heat = [rows[place].asked.params.temperature for place in places]
        if set(heat) != {1.0}:
            part = part / torch.tensor(heat)[:, None]
        if how != (None, 1.0, 0.0):
            part = cut(part, *how).logits
        uniform = torch.tensor([_number(rows[place]) for place in places], dtype=torch.float64)
        tokens[places] = draw(part, 1.0, uniform)[0]
    return tokens


def _number(row: Row) -> float:
    return 0.0 if row.over else float(row.numbers.random())


def _logprobs(
    scores: Tensor, exact: Callable[[Tensor], Tensor], tokens: Tensor, rows: Sequence[Row]
) -> dict[int, tuple[float, tuple[tuple[int, float], ...]]]:
    """Of each row that asks for them, by its place: the token's log-probability, and the likeliest tokens' too."""
    places = [place for place, row in enumerate(rows) if row.asked.logprobs is not None]
    if not places:
        return {}
    part = scores[places]
    whole = part.logsumexp(-1)
    own = (exact(tokens)[places] - whole).tolist()
    most = max(rows[place].asked.logprobs or 0 for place in places)
    values, likeliest = (part - whole[:, None]).topk(most) if most else (None, None)
    found = {}
    for index, place in enumerate(places):
        count = rows[place].asked.logprobs or 0
        pairs: tuple[tuple[int, float], ...] = ()
        if values is not None and likeliest is not None:
            pairs = tuple(zip(likeliest[index, :count].tolist(), values[index, :count].tolist(), strict=True))
        found[place] = (own[index], tuple(pair for pair in pairs if pair[1] > -1e20))
    return found
