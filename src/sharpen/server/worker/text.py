"""From tokens to what a client may be shown, as they come: whole characters, no part of a stop string.

Each stage takes what the one before lets through, and holds back only what may still turn out to be something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sharpen.completion import CHANNELS, CallError, Thinking, parse_call, part

Decode = Callable[[Sequence[int]], str]

BROKEN = "\N{REPLACEMENT CHARACTER}"
LONGEST = 16
"""Tokens that are held for a character to become whole; what needs more is none."""
OPENS, CLOSES = "<tool_call>", "</tool_call>"


class Characters:
    """Text of tokens; a character that is spread over several comes with the last of them."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._known = 0  # tokens before the last ones that were shown; they tell what stands before a token
        self._shown = 0

    def feed(self, token: int) -> str:
        """What is certain now."""
        self._tokens.append(token)
        before, whole = self._texts()
        if whole.endswith(BROKEN) and len(self._tokens) - self._shown < LONGEST:
            return ""
        self._known, self._shown = self._shown, len(self._tokens)
        return whole[len(before) :]

    def end(self) -> str:
        """The rest."""
        before, whole = self._texts()
        self._shown = len(self._tokens)
        return whole[len(before) :]

    def _texts(self) -> tuple[str, str]:
        return self._decode(self._tokens[self._known : self._shown]), self._decode(self._tokens[self._known :])


def overlap(text: str, marks: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a mark, but no whole one."""
    longest = max((len(mark) for mark in marks), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(len(mark) > size and mark.startswith(text[-size:]) for mark in marks):
            return size
    return 0


class Stops:
    """Cuts text before the first stop string."""

    def __init__(self, marks: Sequence[str]) -> None:
        self._marks = [mark for mark in marks if mark]
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """What is certainly before a stop string."""
        if self.found:
            return ""
        if not self._marks:
            return text
        self._held += text
        places = [place for mark in self._marks if (place := self._held.find(mark)) >= 0]
        if places:
            self.found = True
            shown, self._held = self._held[: min(places)], ""
            return shown
        keep = overlap(self._held, self._marks)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown

    def end(self) -> str:
        """The rest: what could have become a stop string, and did not."""
        shown, self._held = self._held, ""
        return shown


class Thoughts:
    """Parts thoughts from the answer, as `completion.part` does of a whole text."""

    def __init__(self, marks: Thinking | None, opened: bool) -> None:
        """`opened`: the prompt has opened the thoughts."""
        self._marks, self._opened = marks, opened
        self._text = ""
        self._reasoned = 0
        self.thinking = opened
        """Whether the last token belongs to thoughts."""
        self.answering = marks is None

    def feed(self, text: str) -> tuple[str, str]:
        """What is certainly thought, and what is certainly answer."""
        if self.answering:
            return "", text
        self._text += text
        return self._take(last=False)

    def end(self) -> tuple[str, str]:
        """The rest of both."""
        return ("", "") if self.answering else self._take(last=True)

    def _take(self, last: bool) -> tuple[str, str]:
        marks = self._marks
        assert marks
        found = part(self._text, marks, self._opened)
        thoughts = found.reasoning
        self.thinking = found.unfinished
        if found.unfinished and not last:
            kept = thoughts.rstrip()
            thoughts = kept[: len(kept) - overlap(kept, [marks.ends])].rstrip()
        settled = not found.unfinished and not self._undecided(found.answer)
        if not (settled or last or found.unfinished):
            return "", ""
        fresh = thoughts[self._reasoned :]
        self._reasoned = max(self._reasoned, len(thoughts))
        self.answering = settled or last
        return fresh, found.answer if self.answering else ""

    def _undecided(self, answer: str) -> bool:
        """Whether what looks like an answer may still begin a mark."""
        marks = ["<think>"]
        if self._marks is CHANNELS:
            channels = [f"<|channel|>{name}<|message|>" for name in ("analysis", "final")]
            marks = [*channels, *(f"<|start|>assistant{mark}" for mark in channels)]
        begun = answer.lstrip()
        return any(mark.startswith(begun) for mark in marks)


class Call(NamedTuple):
    """A tool that the model asks for; `arguments` is JSON text."""

    name: str
    arguments: str


class Calls:
    """Parts calls of tools from the words around them; a call that cannot be read stays text."""

    def __init__(self) -> None:
        self._held = ""
        self._begun = False
        self.found = 0

    def feed(self, text: str) -> tuple[str, list[Call]]:
        """Words that are certainly none of a call, and the calls that are complete."""
        self._held += text
        words = ""
        calls: list[Call] = []
        while True:
            if self._begun:
                closed = self._held.find(CLOSES, len(OPENS))
                again = self._held.find(OPENS, len(OPENS))
                if closed < 0 and again < 0:
                    return words, calls
                if closed >= 0 and (again < 0 or closed < again):
                    inside, rest = self._held[len(OPENS) : closed], closed + len(CLOSES)
                else:
                    inside, rest = self._held[len(OPENS) : again], again
                words += self._read(inside, self._held[:rest], calls)
                self._held, self._begun = self._held[rest:], False
            opened = self._held.find(OPENS)
            if opened >= 0:
                words += self._words(self._held[:opened], before_call=True)
                self._held, self._begun = self._held[opened:], True
                continue
            kept = self._held.rstrip()
            keep = overlap(kept, [OPENS])
            certain = kept[: len(kept) - keep].rstrip() if keep else kept
            words += self._words(certain, before_call=False)
            self._held = self._held[len(certain) :]
            return words, calls

    def end(self) -> tuple[str, list[Call]]:
        """The rest; a last call needs no closing mark."""
        held, self._held = self._held, ""
        calls: list[Call] = []
        if self._begun:
            return self._read(held[len(OPENS) :], held, calls), calls
        return ("" if self.found and not held.strip() else held), calls

    def _words(self, text: str, before_call: bool) -> str:
        return text.rstrip() if before_call or (self.found and not text.strip()) else text

    def _read(self, inside: str, written: str, calls: list[Call]) -> str:
        """Add the call to `calls`, or return it as text."""
        try:
            name, arguments = parse_call(inside)
        except CallError:
            return written
        calls.append(Call(name, json.dumps(arguments, ensure_ascii=False)))
        self.found += 1
        return ""
