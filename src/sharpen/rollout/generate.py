"""Answers of a loaded model to chats, outside training: the one way for `generate`, `predict` and `chat`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sharpen.data.order import Key
from sharpen.data.render import Renderer
from sharpen.models.load import Loaded
from sharpen.rollout.base import Params, Request, Seen
from sharpen.rollout.local import LocalSampler
from sharpen.types import Message, Rollout, Sample, Segment, Tool

ROWS = 128
"""Answers made side by side, at most."""

CACHE_BYTES = 2 << 30
"""Their keys and values take about so much memory at most: with long ones, fewer run side by side."""

_PARTIAL = "\N{REPLACEMENT CHARACTER}"


class Answerer:
    """A loaded model that answers chats."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.renderer = Renderer(loaded.tokenizer, loaded.stop)
        self._config = loaded.model.config.get_text_config()

    @property
    def context(self) -> int | None:
        """How many tokens the model was made for, prompt and answer together; None where nothing says so."""
        return getattr(self._config, "max_position_embeddings", None)

    def request(self, chat: Sequence[Message], key: Key, tools: Sequence[Tool] = ()) -> Request:
        """What asks for the answer to a chat; its random numbers are counted on the key. Raises DataError."""
        return Request(self.renderer.prompt(chat, tools), key)

    async def answer(self, requests: Sequence[Request], params: Params, seen: Seen | None = None) -> list[Rollout]:
        """One answer a request, in order.

        Long prompts begin first, and equal ones share their computation. `seen` hears of every token as it is made.
        """
        order = sorted(range(len(requests)), key=lambda place: (-len(requests[place].prompt), requests[place].prompt))
        sampler = LocalSampler(self.loaded.model, self.loaded.stop, self._rows(requests, params))
        told = (lambda which, token: seen(order[which], token)) if seen else None
        segments = await sampler.sample([requests[place] for place in order], params, seen=told)
        made = dict(zip(order, segments, strict=True))
        return [Rollout((made[place],), self.renderer.sample(made[place])) for place in range(len(requests))]

    def so_far(self, request: Request, tokens: Sequence[int]) -> Sample:
        """What the first tokens of an answer say; a character that is not whole yet is left out."""
        prompt = request.prompt
        mask = (False,) * len(prompt) + (True,) * len(tokens)
        sample = self.renderer.sample(Segment((*prompt, *tokens), mask, (0.0,) * len(mask), 0))
        return replace(sample, text=sample.text.rstrip(_PARTIAL), reasoning=sample.reasoning.rstrip(_PARTIAL))

    def _rows(self, requests: Sequence[Request], params: Params) -> int:
        """How many of these may run side by side."""
        longest = max((len(request.prompt) + (request.limit or params.max_tokens) for request in requests), default=1)
        return min(ROWS, max(1, CACHE_BYTES // (longest * token_bytes(self._config))))


def token_bytes(config: Any) -> int:
    """What one token's keys and values take in float32, over all layers; 1 where the model has no attention."""
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return 1
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return int(config.num_hidden_layers * 2 * kept * width * 4)
