"""A sampler without a model, for tests: it answers what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sharpen.rollout.base import Params, Request
from sharpen.types import Segment


class FakeSampler:
    """Answers each request with the tokens that `answer(request)` gives, at log-probability -1 each.

    A request's limit and its pause cut them off.
    """

    def __init__(self, answer: Callable[[Request], Sequence[int]]) -> None:
        self.answer = answer
        self.version = 0
        self.requests: list[Request] = []

    async def sample(
        self, requests: Sequence[Request], params: Params, progress: Callable[[int], None] | None = None
    ) -> list[Segment]:
        """One segment a request, in order, cut at its limit."""
        self.requests += requests
        limits = [min(params.max_tokens, request.limit or params.max_tokens) for request in requests]
        return [
            self._segment(request, tuple(self.answer(request))[:limit])
            for request, limit in zip(requests, limits, strict=True)
        ]

    def _segment(self, request: Request, made: tuple[int, ...]) -> Segment:
        prompt = request.prompt
        if request.pause and request.pauses(made[: request.pause.after]):
            made = made[: request.pause.after]
        return Segment(
            tokens=prompt + made,
            mask=(False,) * len(prompt) + (True,) * len(made),
            logprobs=(0.0,) * len(prompt) + (-1.0,) * len(made),
            version=self.version,
        )
