"""A conversation with a model: what was said, what the model still sees of it, and its next answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sharpen.errors import DataError, RunError
from sharpen.models.load import Loaded
from sharpen.rollout.base import Params, Request
from sharpen.rollout.generate import Answerer
from sharpen.stages.pipeline import blocking
from sharpen.types import Message, Sample

Heard = Callable[[Sample], None]
"""Told what the answer says so far, at each token."""


class Reply(NamedTuple):
    """An answer, for which `forgotten` messages were dropped from what the model sees; `stopped`: it was cut short."""

    sample: Sample
    forgotten: int
    stopped: bool


class Chat:
    """One model and its conversation, kept whole in `messages`; `system` is not among them."""

    def __init__(self, loaded: Loaded, params: Params, seed: int = 0, system: str = "") -> None:
        """Random numbers are counted on `seed` and the number of the answer. Raises DataError as `instruct` does."""
        self.messages: list[Message] = []
        self.system = ""
        self._answerer = Answerer(loaded)
        self._params = params
        self._seed = seed
        self._answers = 0
        self._first = 0  # the first message that the model still sees
        if system:
            self.instruct(system)

    def instruct(self, system: str) -> None:
        """Change the system message. Raises DataError where the model's chat template takes none."""
        self._answerer.renderer.prompt(_with(system, [_user("?")]))
        self.system = system

    def default_system(self) -> str:
        """The system message that the chat template writes where none is given."""
        mark, question = "sharpen-looks-for-this", [_user("sharpen-asks-this")]
        try:
            given = self._text(_with(mark, question))
        except DataError:  # it takes no system message
            return ""
        before, _, after = given.partition(mark)
        bare = self._text(question)
        if len(bare) <= len(before) + len(after) or not (bare.startswith(before) and bare.endswith(after)):
            return ""
        return bare[len(before) : len(bare) - len(after)].strip()

    def reset(self) -> None:
        """Forget the conversation; the system message stays."""
        self.messages, self._first = [], 0

    def answer(self, said: str, heard: Heard, stopped: Callable[[], bool] = lambda: False) -> Reply:
        """The model's answer to what a user says; both are kept, unless the answer is empty.

        `stopped` is asked at each token. Raises DataError where the message is too long for the model; then nothing
        is kept.
        """
        before = self._first
        request = self._request(_user(said))
        made: list[int] = []

        def seen(_: int, token: int) -> None:
            made.append(token)
            heard(self._answerer.so_far(request, made))
            if stopped():
                raise _Stopped

        self._answers += 1
        stop = False
        try:
            (rollout,) = blocking(self._answerer.answer([request], self._params, seen))
            sample = rollout.sample
        except _Stopped:
            sample, stop = self._answerer.so_far(request, made), True
        if sample.text.strip():
            self.messages += [_user(said), sample.message()]
        return Reply(sample, self._first - before, stop)

    def save(self, path: Path) -> int:
        """Append the conversation to a JSONL file, as a chat that SFT reads; returns its number of messages.

        Raises RunError where the file cannot be written.
        """
        row = json.dumps({"messages": _with(self.system, self.messages)}, ensure_ascii=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                end = file.seek(0, 2)
                file.seek(max(0, end - 1))
                whole = file.read() in (b"", b"\n")
                file.write(f"{'' if whole else chr(10)}{row}\n".encode())
        except OSError as error:
            raise RunError(
                f"the conversation cannot be written: {error.strerror}", value=str(path), remedy="Name another file"
            ) from error
        return len(self.messages)

    def _request(self, message: Message) -> Request:
        """What asks for the next answer; the oldest exchanges are dropped until it fits into the model's context."""
        key = (self._seed, "chat", self._answers)
        context, first = self._answerer.context, self._first
        while True:
            request = self._answerer.request(_with(self.system, [*self.messages[first:], message]), key)
            length = len(request.prompt)
            if context is None or length + self._params.max_tokens <= context:
                break
            if first == len(self.messages):
                if length >= context:
                    raise DataError(
                        f"the message is too long: with the system message it has {length:,} tokens, and the model's "
                        f"context is {context:,}",
                        remedy="Say it in fewer words",
                    )
                request = Request(request.prompt, key, context - length)
                break
            first += 2
        self._first = first
        return request

    def _text(self, messages: list[Message]) -> str:
        tokens = self._answerer.request(messages, ()).prompt
        return str(self._answerer.loaded.tokenizer.decode(tokens, skip_special_tokens=False))


class _Stopped(Exception):
    """The user has heard enough."""


def _user(said: str) -> Message:
    return {"role": "user", "content": said}


def _with(system: str, messages: list[Message]) -> list[Message]:
    return [{"role": "system", "content": system}, *messages] if system else messages
