"""What ranks do for one another: the leader's sampler parts its requests among all, and the others follow orders."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from itertools import groupby

import torch

from sharpen.models.attention import register
from sharpen.models.load import Loaded
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler
from sharpen.train.backward import Backward
from sharpen.train.ranks import Ranks
from sharpen.types import Segment


def follow(ranks: Ranks) -> None:
    """Do what rank 0 tells until it says that it is done. Signals are for rank 0, which ends in good order."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    register()  # before a model arrives that asks for our attention
    sampler: LocalSampler | None = None
    backward: Backward | None = None
    while True:
        order, part = ranks.hear()
        match order:
            case "end":
                return
            case "threads":
                torch.set_num_threads(part)
            case "model":
                model, stop = part
                sampler, backward = LocalSampler(model, stop), Backward(model)
            case "weights":
                assert backward
                ranks.share(backward.parameters)
            case "gradients":
                assert backward
                ranks.gather(backward.run(part))
                ranks.sum([gradient for gradient in backward.take(zeros=True) if gradient is not None])
            case "sample":
                assert sampler
                requests, params, sampler.version = part
                ranks.gather(asyncio.run(sampler.sample(requests, params)))


def hand_out(ranks: Ranks, loaded: Loaded) -> None:
    """Give every rank the model as it is now: its structure, what of it is trained, and its weights."""
    if ranks.size > 1:
        ranks.tell("model", [(loaded.model, loaded.stop)] * ranks.size)


class SharedSampler:
    """The built-in sampler on every rank: each completes its share of the prompts."""

    def __init__(self, loaded: Loaded, ranks: Ranks) -> None:
        """The other ranks must hold the model already."""
        self._own = LocalSampler(loaded.model, loaded.stop)
        self._ranks = ranks
        self.max_rows = self._own.max_rows * ranks.size
        self.version = 0

    async def sample(
        self, requests: Sequence[Request], params: Params, progress: Callable[[int], None] | None = None
    ) -> list[Segment]:
        """One segment a request, in order. `progress` hears of rank 0's share, scaled to the whole."""
        size = self._ranks.size
        told = progress and (lambda made: progress(made * size))
        parts = [(part, params, self.version) for part in split(requests, size)]
        own, _, self._own.version = self._ranks.tell("sample", parts) if size > 1 else parts[0]
        segments = await self._own.sample(own, params, told)
        return [segment for part in self._ranks.gather(segments) for segment in part]


def split(requests: Sequence[Request], size: int) -> list[list[Request]]:
    """Requests in `size` neighbouring parts of about as many, cut between prompts, whose computation is shared."""
    parts: list[list[Request]] = [[] for _ in range(size)]
    given = 0
    for _, group in groupby(requests, key=lambda request: request.prompt):
        found = list(group)
        parts[min(given * size // max(1, len(requests)), size - 1)] += found
        given += len(found)
    return parts
