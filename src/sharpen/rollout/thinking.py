"""A thinking budget: thoughts that are not over after so many tokens are closed, and the answer follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sharpen.data.render import Renderer
from sharpen.errors import ConfigError
from sharpen.rollout.base import Params, Pause, Request, Sampler
from sharpen.types import Segment


class Budgeted:
    """A sampler whose completions have at most `budget` tokens of thoughts.

    Where they are not closed by then, the model's own closing mark follows, unsampled: masked out, without a
    log-probability, not counted in `max_tokens`. The answer has random numbers of its own. All else is as the sampler
    makes it: a completion that closes its thoughts in time is the same, bit for bit, as without a budget.
    """

    def __init__(self, sampler: Sampler, renderer: Renderer, budget: int) -> None:
        """Raises ConfigError where the model has no thoughts to close."""
        self._sampler = sampler
        self._renderer = renderer
        self._budget = budget
        self._closing = closing_token(renderer)

    async def sample(
        self, requests: Sequence[Request], params: Params, progress: Callable[[int], None] | None = None
    ) -> list[Segment]:
        """One segment a request, in order."""
        asked = [self._paused(request, request.limit or params.max_tokens) for request in requests]
        segments = await self._sampler.sample(asked, params, progress)
        places = [
            place
            for place, (request, segment) in enumerate(zip(asked, segments, strict=True))
            if request.pauses(segment.tokens[len(request.prompt) :]) and segment.tokens[-1] not in self._renderer.stop
        ]
        if not places:
            return segments
        made = sum(segment.sampled for segment in segments)
        further = [self._further(asked[place], segments[place], params) for place in places]
        told = progress and (lambda more: progress(made + more))
        for place, rest in zip(places, await self._sampler.sample(further, params, told), strict=True):
            segments[place] = joined(segments[place], rest)
        return segments

    def _paused(self, request: Request, limit: int) -> Request:
        """The request, with a pause where the budget is less than its limit and its prompt has not closed thoughts."""
        marks = self._renderer.thinking
        if self._budget >= limit or not marks or self._renderer.ends_in(request.prompt, marks.ends):
            return request
        return replace(request, pause=Pause(self._budget, self._closing))

    def _further(self, request: Request, segment: Segment, params: Params) -> Request:
        """What follows: the closing mark where the model still thinks; an answer without thoughts just goes on."""
        marks = self._renderer.thinking
        assert marks
        forced = self._renderer.control(marks.enough) if self._renderer.parted(segment).unfinished else ()
        limit = (request.limit or params.max_tokens) - segment.sampled
        return Request((*segment.tokens, *forced), (*request.key, "answer"), limit)


def joined(first: Segment, rest: Segment) -> Segment:
    """One segment of two, where the second's prompt is the first, and what was forced after it."""
    known = len(first.tokens)
    return Segment(
        rest.tokens,
        first.mask + rest.mask[known:],
        first.logprobs + rest.logprobs[known:],
        rest.version,
        first.support + rest.support if first.support and rest.support else None,
    )


def closing_token(renderer: Renderer, path: str = "thinking_budget") -> int:
    """The token that closes the model's thoughts. Raises ConfigError, naming `path`, where there are none to bound."""
    marks = renderer.thinking
    if not marks:
        raise ConfigError(
            "the model does not think: neither its chat template nor its tokenizer has thinking marks",
            path=path,
            remedy="Leave it out, or use a reasoning model",
        )
    prompt = renderer.prompt([{"role": "user", "content": "question"}])
    if renderer.ends_in(prompt, marks.ends):
        raise ConfigError(
            "the prompt has closed the thoughts already, so there is nothing to bound",
            path=path,
            remedy="Leave it out, or let the model think (chat_template_kwargs: {enable_thinking: true})",
        )
    token = renderer.tokenizer.convert_tokens_to_ids(marks.ends)
    if token in (None, renderer.tokenizer.unk_token_id):
        raise ConfigError(
            f"the model's tokenizer has no token of its own for {marks.ends}, so its thoughts cannot be watched",
            path=path,
            remedy="Leave it out; sampling.max_tokens bounds thoughts and answer together",
        )
    return int(token)
