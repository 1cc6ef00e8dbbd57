"""What one completion says, token by token: words, thoughts, calls of tools, log-probabilities."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sharpen.completion import Thinking
from sharpen.server.worker.text import Call, Calls, Characters, Decode, Stops, Thoughts

Entry = dict[str, Any]
"""A token's log-probability, as OpenAI's API writes it."""


@dataclass(slots=True)
class Said:
    """What may be shown since the last time."""

    words: str = ""
    thoughts: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @property
    def delta(self) -> dict[str, Any]:
        """As OpenAI's API writes it; empty for nothing."""
        named = {"content": self.words, "reasoning_content": self.thoughts, "tool_calls": self.calls}
        return {name: value for name, value in named.items() if value}


class Speech:
    """One completion. Log-probabilities are told for the tokens of the answer, with or after their text."""

    def __init__(self, decode: Decode, marks: Thinking | None, opened: bool, stops: Sequence[str], tools: bool) -> None:
        """`opened`: the prompt has opened the thoughts; `tools`: calls are looked for."""
        self._characters = Characters(decode)
        self._thoughts = Thoughts(marks, opened)
        self._stops = Stops(stops)
        self._calls = Calls() if tools else None
        self._numbered = 0
        self._answered = 0  # characters of the answer, stop strings and all
        self._passed = 0  # of those, what was let through
        self._entries: list[tuple[int, Entry]] = []
        self.reasoning_tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come: nothing more will be shown."""
        return self._stops.found

    @property
    def called(self) -> bool:
        """Whether tools are asked for."""
        return self._numbered > 0

    def feed(self, token: int, entry: Entry | None = None) -> Said:
        """A token that does not end the completion."""
        thought = self._thoughts.thinking
        reasoning, answer = self._thoughts.feed(self._characters.feed(token))
        if thought or self._thoughts.thinking:
            self.reasoning_tokens += 1
            self._entries.clear()
        elif entry is not None:
            self._entries.append((self._answered, entry))
        return self._said(reasoning, answer)

    def end(self) -> Said:
        """The rest."""
        more, answer = self._thoughts.feed(self._characters.end())
        rest, last = self._thoughts.end()
        said = self._said(more + rest, answer + last)
        final = self._pass(self._stops.end())
        said.words += final.words
        said.calls += final.calls
        if self._calls:
            words, calls = self._calls.end()
            said.words += words
            said.calls += self._number(calls)
        if not self.stopped:
            said.entries += [entry for _, entry in self._entries]
        return said

    def _said(self, reasoning: str, answer: str) -> Said:
        self._answered += len(answer)
        said = self._pass(self._stops.feed(answer))
        said.thoughts = reasoning
        ready = [entry for start, entry in self._entries if start < self._passed]
        said.entries, self._entries = ready, self._entries[len(ready) :]
        return said

    def _pass(self, shown: str) -> Said:
        self._passed += len(shown)
        if not self._calls:
            return Said(shown)
        words, calls = self._calls.feed(shown)
        return Said(words, calls=self._number(calls))

    def _number(self, calls: Sequence[Call]) -> list[dict[str, Any]]:
        """The calls as deltas: whole ones, each with an id of its own."""
        found = []
        for call in calls:
            function = {"name": call.name, "arguments": call.arguments}
            found.append({"index": self._numbered, "id": _id(), "type": "function", "function": function})
            self._numbered += 1
        return found


def _id() -> str:
    letters = string.ascii_letters + string.digits
    return f"call_{''.join(secrets.choice(letters) for _ in range(24))}"
