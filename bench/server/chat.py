"""Concurrent chat streams, beside the same prompts through the sampler itself with as many threads."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from bench.common import apart, prompts
from bench.server.process import MODEL, Process
from bench.server.wire import Client, percentile, posted

WARM = 4
"""Tokens of each stream before the clock starts."""

Chat = list[dict[str, Any]]


def measure(server: Process, model: str, streams: int, each: int, tokens: int, threads: int) -> dict[str, Any]:
    """`streams` clients ask `each` questions one after the other. Starts and ends the server."""
    settings = {"model": model, "streams": streams, "each": each, "tokens": tokens, "threads": threads}
    own = apart("bench.server.chat:sampled", **settings)
    with server:
        found = asyncio.run(_streamed(server, streams, each, tokens))
    return {
        "streams": streams,
        "threads": threads,
        **found,
        "sampler": own,
        "share_of_the_sampler": found["tokens_per_second"] / own["tokens_per_second"],
    }


def sampled(model: str, streams: int, each: int, tokens: int, threads: int) -> dict[str, Any]:
    """The same questions through `LocalSampler`, `streams` rows side by side."""
    import torch

    from sharpen.data.render import Renderer
    from sharpen.models.load import compute_dtype, load
    from sharpen.rollout.base import Params, Request
    from sharpen.rollout.local import LocalSampler

    torch.set_num_threads(threads)
    loaded = load(model, compute_dtype("auto"))
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    rendered = [renderer.prompt(chat) for chat in questions(streams * each)]
    sampler = LocalSampler(loaded.model, loaded.stop, max_rows=streams)

    def run(most: int, chosen: Sequence[tuple[int, ...]]) -> int:
        requests = [Request(prompt, (1, place)) for place, prompt in enumerate(chosen)]
        return sum(segment.sampled for segment in asyncio.run(sampler.sample(requests, Params(most))))

    run(WARM, rendered[:streams])
    began = time.perf_counter()
    made = run(tokens, rendered)
    elapsed = time.perf_counter() - began
    return {"tokens": made, "tokens_per_second": made / elapsed}


def questions(count: int) -> list[Chat]:
    """Chats of about 45 tokens."""
    return [row["messages"] for row in prompts(count)]


async def _streamed(server: Process, streams: int, each: int, tokens: int) -> dict[str, Any]:
    asked = questions(streams * each)
    clients = [Client(server.port) for _ in range(streams)]
    await asyncio.gather(*(_stream(client, server.key, asked[0], WARM) for client in clients))
    firsts: list[float] = []
    made: list[int] = []

    async def one(place: int, client: Client) -> None:
        for turn in range(each):
            first, count = await _stream(client, server.key, asked[turn * streams + place], tokens)
            firsts.append(first)
            made.append(count)

    began = time.perf_counter()
    await asyncio.gather(*(one(place, client) for place, client in enumerate(clients)))
    elapsed = time.perf_counter() - began
    return {
        "tokens": sum(made),
        "tokens_per_second": sum(made) / elapsed,
        "first_token_seconds": {"p50": percentile(firsts, 0.5), "p95": percentile(firsts, 0.95)},
    }


async def _stream(client: Client, key: str, chat: Chat, tokens: int) -> tuple[float, int]:
    """Seconds to the first text, and tokens made."""
    body = {
        "model": MODEL,
        "messages": chat,
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began, first, count = time.perf_counter(), None, 0
    await client.send(posted("/v1/chat/completions", key, body))
    status, _ = await client.headers()
    assert status == 200 and client.reader is not None, status
    while (line := await client.reader.readline()).strip() != b"data: [DONE]":
        assert line, "the stream ended early"
        if line.startswith(b"data: "):
            piece = json.loads(line[6:])
            if first is None and any(choice["delta"].get("content") for choice in piece["choices"]):
                first = time.perf_counter() - began
            if piece.get("usage"):
                count = piece["usage"]["completion_tokens"]
    while await client.reader.readline() != b"0\r\n":  # the end of the chunks
        pass
    await client.reader.readline()
    return first if first is not None else time.perf_counter() - began, count
