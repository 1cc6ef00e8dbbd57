"""Sampling on the slow path: in batches, on transformers' own cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sharpen.models.plain import Plain
from sharpen.models.rows import Rows
from sharpen.rollout.draw import cut, draw
from sharpen.rollout.running import Left, Running


@torch.no_grad()
def run_plain(
    model: Any, how: Plain, running: Running, max_rows: int, prefill_tokens: int, report: Callable[[int], None]
) -> None:
    """Complete all requests, `max_rows` at a time; a batch's finished rows leave it, and none enter."""
    made = 0
    for start in range(0, len(running.requests), max_rows):
        running.request = list(range(start, min(start + max_rows, len(running.requests))))
        for which in running.request:
            running.begin(which)
        rows = Rows(model, how, [running.requests[which].prompt for which in running.request], prefill_tokens)
        scores = rows.scores
        while True:
            tokens, logprobs, left = _draw(scores, running)
            complete = running.record(tokens, logprobs, left)
            made += len(running.request)
            report(made)
            kept = [row for row in range(len(running.request)) if row not in complete]
            if not kept:
                break
            running.request = [running.request[row] for row in kept]
            rows.keep(torch.tensor(kept))
            scores = rows.decode(tokens[kept])


def _draw(scores: Tensor, running: Running) -> tuple[Tensor, Tensor, Left]:
    """From logits (N, V): tokens (N,), their log-probabilities (N,) and what was left of each row."""
    params, uniform, allowed = running.params, running.uniform(), running.allowed()
    scores = allowed.only(scores) if allowed else scores
    if not params.cuts:
        return *draw(scores, params.temperature, uniform), allowed.sets(running.sets) if allowed else []
    rest, left = cut(scores / params.temperature, params.top_k, params.top_p, params.min_p)
    return *draw(rest, 1.0, uniform), left
