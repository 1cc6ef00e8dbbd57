"""A worker's loop: requests come in as lines of JSON, and what completions say goes out, a line a step.

In: `{"ask": ID, ...}` (see `Talk.begin`) and `{"cancel": ID}`. Out: `{"started": ID, "prompt_tokens"}`, `{"said": [[ID,
choice, delta, logprobs, finish_reason], ...]}`, `{"done": ID, "usage"}` and `{"failed": ID, "error"}`.
"""

from __future__ import annotations

import json
import queue
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sharpen.config.response_format import ResponseFormat
from sharpen.data.render import Renderer
from sharpen.errors import SharpenError
from sharpen.models.load import Loaded
from sharpen.rollout.base import Params
from sharpen.rollout.grammar import Grammar, grammar_of
from sharpen.rollout.serving import Asked, Batch, Made
from sharpen.server.worker.speech import Said, Speech
from sharpen.server.worker.tokens import Pieces
from sharpen.server.worker.tools import in_words, shows_tools

Line = dict[str, Any]
Send = Callable[[Line], None]

FORMS: TypeAdapter[Any] = TypeAdapter(ResponseFormat)
GRAMMARS = 32
"""Compiled ones that are kept."""


class Refused(Exception):
    """A request that cannot be answered: the error's `message`, `param` and `code`."""

    def __init__(self, message: str, param: str | None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.body = {"status": 400, "message": message, "param": param, "code": code}


@dataclass(slots=True)
class Choice:
    """One of a request's completions."""

    speech: Speech
    row: int = -1
    tokens: int = 0
    over: bool = False


@dataclass(slots=True)
class Talk:
    """A request and its completions."""

    id: str
    prompt: tuple[int, ...]
    params: Params
    seed: int
    logprobs: int | None
    choices: list[Choice] = field(default_factory=list)

    @property
    def usage(self) -> dict[str, Any]:
        """What it cost, as OpenAI's API writes it."""
        made = sum(choice.tokens for choice in self.choices)
        thought = sum(choice.speech.reasoning_tokens for choice in self.choices)
        return {
            "prompt_tokens": len(self.prompt),
            "completion_tokens": made,
            "total_tokens": len(self.prompt) + made,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": 0},
        }


class Worker:
    """One model, its batch, and who is waiting for what."""

    def __init__(self, loaded: Loaded, send: Send, max_rows: int = 64) -> None:
        self.loaded, self.send, self.max_rows = loaded, send, max_rows
        self.renderer = Renderer(loaded.tokenizer, loaded.stop)
        self.pieces = Pieces(loaded.tokenizer)
        self.context: int | None = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
        self._shows_tools = shows_tools(self.renderer)
        self._inbox: queue.SimpleQueue[Talk | Line | None] = queue.SimpleQueue()
        self._grammars: dict[str, Grammar | None] = {}
        self._talks: dict[str, Talk] = {}
        self._rows: dict[int, tuple[Talk, int]] = {}
        self._numbers = count()

    def read(self, lines: Iterable[str | bytes]) -> None:
        """Take requests until there are no more lines; in a thread of its own, since prompts are rendered here."""
        for line in lines:
            asked = json.loads(line)
            if "ask" not in asked:
                self._inbox.put(asked)
                continue
            try:
                self._inbox.put(self._talk(asked))
            except Refused as error:
                self._inbox.put({"failed": asked["ask"], "error": error.body})
            except SharpenError as error:
                body = Refused(str(error), "messages").body
                self._inbox.put({"failed": asked["ask"], "error": body})
            except Exception as error:  # a foreign boundary: templates and tokenizers are the model's
                body = {"status": 500, "message": f"the model failed on this request: {error}", "code": "worker_error"}
                self._inbox.put({"failed": asked["ask"], "error": body})
        self._inbox.put(None)

    def run(self) -> None:
        """Answer until there are no more requests to come."""
        with Batch(self.loaded.model, self.loaded.stop, self.max_rows) as batch:
            self._warm(batch)
            self.send({"ready": {"context": self.context, "notice": self.loaded.notice}})
            while self._take(batch):
                self._tell(batch, batch.step())

    def serve(self, lines: Iterable[str | bytes]) -> None:
        """Both, until the lines end."""
        threading.Thread(target=self.read, args=(lines,), daemon=True).start()
        self.run()

    def _warm(self, batch: Batch) -> None:
        """Compile what is compiled at the first step, so that the first client does not wait for it."""
        token = min(self.loaded.stop)
        batch.add(Asked(-1, (token, token), ("warm",), Params(max_tokens=1)))
        batch.step()

    def _take(self, batch: Batch) -> bool:
        """Let in all that has come, waiting where there is nothing else to do; False: it is over."""
        while not batch.busy or not self._inbox.empty():
            found = self._inbox.get()
            if found is None:
                return False
            if isinstance(found, Talk):
                self._begin(batch, found)
            elif "cancel" in found:
                self._cancel(batch, found["cancel"])
            else:
                self.send(found)
        return True

    def _begin(self, batch: Batch, talk: Talk) -> None:
        self._talks[talk.id] = talk
        self.send({"started": talk.id, "prompt_tokens": len(talk.prompt)})
        for place, choice in enumerate(talk.choices):
            choice.row = next(self._numbers)
            self._rows[choice.row] = talk, place
            batch.add(Asked(choice.row, talk.prompt, (talk.seed, "serving", place), talk.params, talk.logprobs))

    def _cancel(self, batch: Batch, id: str) -> None:
        if talk := self._talks.pop(id, None):
            for choice in talk.choices:
                batch.cancel(choice.row)
                self._rows.pop(choice.row, None)

    def _tell(self, batch: Batch, made: list[Made]) -> None:
        """One line with what is new, and one for each request that is done."""
        said: list[list[Any]] = []
        done: list[Line] = []
        for token in made:
            if token.id not in self._rows:
                continue
            talk, place = self._rows[token.id]
            if token.fault:
                self._cancel(batch, talk.id)
                done.append({"failed": talk.id, "error": Refused(token.fault, "response_format").body})
                continue
            choice = talk.choices[place]
            part, finish = self._feed(choice, token)
            if part.delta or part.entries or finish:
                entries = part.entries if talk.logprobs is not None else None
                said.append([talk.id, place, part.delta, entries, finish])
            if finish:
                batch.cancel(token.id)
                del self._rows[token.id]
                choice.over = True
                if all(other.over for other in talk.choices):
                    del self._talks[talk.id]
                    done.append({"done": talk.id, "usage": talk.usage})
        if said:
            self.send({"said": said})
        for line in done:
            self.send(line)

    def _feed(self, choice: Choice, token: Made) -> tuple[Said, str | None]:
        """What a token adds to its completion, and why that is over."""
        choice.tokens += 1
        speech = choice.speech
        part = Said()
        if token.finish != "stop":
            told = token.logprob is not None
            entry = self.pieces.entry(token.token, token.logprob or 0.0, token.top) if told else None
            part = speech.feed(token.token, entry)
        if not (token.finish or speech.stopped):
            return part, None
        last = speech.end()
        whole = Said(
            part.words + last.words, part.thoughts + last.thoughts, part.calls + last.calls, part.entries + last.entries
        )
        if speech.stopped:
            return whole, "stop"
        return whole, "tool_calls" if speech.called and token.finish == "stop" else token.finish

    def _talk(self, asked: Line) -> Talk:
        """A request, rendered. Raises Refused and SharpenError."""
        tools = asked.get("tools") or []
        prompt = self._prompt(asked["messages"], tools)
        limit = self._limit(len(prompt), asked.get("max_tokens"))
        marks = self.renderer.thinking
        opened = marks is not None and self.renderer.ends_in(prompt, marks.begins)
        if marks and self.renderer.ends_in(prompt, marks.ends):
            marks = None  # the prompt has closed the thoughts already
        params = Params(
            max_tokens=limit,
            temperature=asked.get("temperature", 1.0),
            top_p=asked.get("top_p", 1.0),
            grammar=self._grammar(asked.get("response_format")),
        )
        seed = asked.get("seed")
        talk = Talk(asked["ask"], prompt, params, secrets.randbits(62) if seed is None else seed, asked.get("logprobs"))
        stops = asked.get("stop") or []
        talk.choices = [
            Choice(Speech(self._decode, marks, opened, stops, bool(tools))) for _ in range(asked.get("n", 1))
        ]
        return talk

    def _prompt(self, messages: list[Line], tools: list[Line]) -> tuple[int, ...]:
        """Raises Refused and SharpenError."""
        try:
            if not self._shows_tools and (
                tools or any("tool_calls" in one or one["role"] == "tool" for one in messages)
            ):
                return self.renderer.prompt(in_words(messages, tools))
            return self.renderer.prompt(messages, tools)
        except SharpenError:
            raise
        except Exception as error:  # a foreign boundary: tokenizers raise what they like
            raise Refused(f"the model's tokenizer cannot read these messages: {error}", "messages") from error

    def _limit(self, length: int, wanted: int | None) -> int:
        """How many tokens a completion may have. Raises Refused where the model's context has no room for them."""
        if self.context is None:
            return wanted or 4096
        if length + (wanted or 1) > self.context:
            asked = f" and {wanted} in the completion" if wanted else ""
            raise Refused(
                f"This model's maximum context length is {self.context} tokens. However, you requested "
                f"{length + (wanted or 0)} tokens ({length} in the messages{asked}). Please reduce the length of the "
                "messages or completion.",
                "messages",
                "context_length_exceeded",
            )
        return wanted or self.context - length

    def _grammar(self, form: Any) -> Grammar | None:
        """The form, compiled; those asked for last are kept. Raises Refused."""
        if form is None:
            return None
        name = json.dumps(form, sort_keys=True)
        if name not in self._grammars:
            try:
                parsed = FORMS.validate_python(form)
                found = grammar_of(parsed, self.loaded)
            except ValidationError as error:
                said = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise Refused(f"response_format: {said}", "response_format") from error
            except Exception as error:  # a foreign boundary: schemas are programs for their compiler
                raise Refused(f"response_format cannot be held to: {error}", "response_format") from error
            if len(self._grammars) >= GRAMMARS:
                self._grammars.pop(next(iter(self._grammars)))
            self._grammars[name] = found
        return self._grammars[name]

    def _decode(self, tokens: Any) -> str:
        return str(self.loaded.tokenizer.decode(tokens, skip_special_tokens=False)) if tokens else ""
