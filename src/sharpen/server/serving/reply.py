"""Answers as OpenAI's API writes them: whole, or as frames of a stream."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from sharpen.server import ids
from sharpen.server.errors import APIError
from sharpen.server.names import Served
from sharpen.server.serving.pieces import Done, Piece, Said

ROLE = {"role": "assistant", "content": "", "refusal": None}
"""A choice's first delta."""

log = logging.getLogger("sharpen.server.chat")


class Reply:
    """The answer to one request; `usage_wanted`: a stream's last chunk tells what it cost."""

    def __init__(self, served: Served, model: str, n: int, usage_wanted: bool) -> None:
        """`model` is the name that the client gave."""
        digest = hashlib.sha256(f"{served.path_or_alias}{served.parameters}".encode()).hexdigest()
        self._n = n
        self._usage_wanted = usage_wanted
        self._common = {
            "id": ids.new("chatcmpl"),
            "created": int(time.time()),
            "model": model,
            "service_tier": "default",
            "system_fingerprint": f"fp_{digest[:10]}",
        }

    async def whole(self, pieces: AsyncGenerator[Piece, None]) -> dict[str, Any]:
        """All pieces together. Raises APIError."""
        choices = [_Choice(place) for place in range(self._n)]
        usage: dict[str, Any] = {}
        async with aclosing(pieces):
            async for piece in pieces:
                match piece:
                    case Said():
                        choices[piece.choice].add(piece)
                    case Done():
                        usage = piece.usage
        shown = [choice.as_json() for choice in choices]
        return {**self._common, "object": "chat.completion", "choices": shown, "usage": usage}

    async def frames(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[bytes, None]:
        """One event a piece, role first; a failure on the way is an event with `error`, and the last."""
        try:
            async with aclosing(pieces):
                for place in range(self._n):
                    yield self._frame([_shown(place, ROLE, None, None)])
                async for piece in pieces:
                    for frame in self._of(piece):
                        yield frame
        except APIError as error:
            yield event({"error": error.body})
            return
        except Exception:
            log.exception("a stream broke")
            yield event({"error": APIError(500, "The server failed on this request.", code="server_error").body})
            return
        yield b"data: [DONE]\n\n"

    def _of(self, piece: Piece) -> list[bytes]:
        match piece:
            case Said(choice, delta, logprobs, finish):
                frames = []
                if delta or logprobs:
                    frames.append(self._frame([_shown(choice, delta or {"content": ""}, logprobs, None)]))
                if finish:
                    frames.append(self._frame([_shown(choice, {}, None, finish)]))
                return frames
            case Done() if self._usage_wanted:
                return [self._frame([], piece.usage)]
        return []

    def _frame(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        cost = {"usage": usage} if self._usage_wanted else {}
        return event({**self._common, "object": "chat.completion.chunk", "choices": choices, **cost})


class _Choice:
    """One of the choices of a whole answer, as it grows."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.finish: str | None = None
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] | None = None

    def add(self, said: Said) -> None:
        self.content.append(said.delta.get("content", ""))
        self.reasoning.append(said.delta.get("reasoning_content", ""))
        self.calls += said.delta.get("tool_calls", [])
        self.finish = said.finish or self.finish
        if said.logprobs is not None:
            self.logprobs = (self.logprobs or []) + said.logprobs

    def as_json(self) -> dict[str, Any]:
        content = "".join(self.content)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
        if reasoning := "".join(self.reasoning):
            message["reasoning_content"] = reasoning
        if self.calls:
            message["content"] = content or None
            message["tool_calls"] = [
                {name: value for name, value in call.items() if name != "index"} for call in self.calls
            ]
        return {
            "index": self.place,
            "message": message,
            "logprobs": _logprobs(self.logprobs),
            "finish_reason": self.finish,
        }


def _shown(
    place: int, delta: dict[str, Any], logprobs: list[dict[str, Any]] | None, finish: str | None
) -> dict[str, Any]:
    return {"index": place, "delta": delta, "logprobs": _logprobs(logprobs), "finish_reason": finish}


def _logprobs(entries: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    return None if entries is None else {"content": entries, "refusal": None}


def event(value: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n\n"
