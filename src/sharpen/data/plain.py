"""Control tokens written in a message or tool stay plain text: only the chat template may open and close turns.

`<|im_end|>` in a user's text would otherwise end the turn. Where a conversation holds the text of a special
token, each occurrence is hidden behind a private-use character while the template runs; the stretches of
text between the template's own control tokens that hold one are then encoded with special tokens off.
All other text keeps the tokens of the ordinary path, and so does every conversation without such text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from sharpen.errors import DataError
from sharpen.types import Message, Tool

Marks = Mapping[str, str]
"""The character that stands for each hidden special token's text; empty where nothing is hidden."""

_PRIVATE = range(0xF0000, 0xFFFFE)  # Unicode's first private-use plane


class Plain:
    """Hides special tokens' text from a tokenizer, and encodes what was hidden as ordinary tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._texts = {token: entry.content for token, entry in added.items() if entry.special and entry.content}
        longest_first = sorted(self._texts.values(), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def hide(
        self, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> tuple[Sequence[Message], Sequence[Tool], Marks]:
        """The messages and tools with special tokens' text hidden, and what stands for what."""
        texts = [*_texts(messages), *_texts(tools)]
        found = sorted({match for text in texts for match in self._special.findall(text)})
        if not found:
            return messages, tools, {}
        taken = set().union(*texts)
        free = (chr(code) for code in _PRIVATE if chr(code) not in taken)
        signs = dict(zip(found, free, strict=False))

        def hidden(text: str) -> str:
            return self._special.sub(lambda hit: signs[hit[0]], text)

        return _mapped(messages, hidden), _mapped(tools, hidden), {sign: text for text, sign in signs.items()}

    def text(self, text: str) -> list[int]:
        """The tokens of a text by itself, with those that the tokenizer puts around one; all of it is plain.

        Raises DataError where the tokenizer makes a control token of it.
        """
        if found := frozenset(self._special.findall(text)):
            self._check(self._split(text), found)
        return list(self._tokenizer(text, split_special_tokens=bool(found))["input_ids"])

    def encode(self, text: str, marks: Marks) -> tuple[int, ...]:
        """The tokens of rendered text: the template's special tokens are control tokens, hidden ones plain text.

        Raises DataError where the tokenizer cannot tell the two apart.
        """
        if not marks:
            return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        if not self._tokenizer.is_fast:
            raise _cannot(marks.values(), "this kind of tokenizer reports no places of tokens")
        coded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        made: list[int] = []
        since: list[int] = []
        begin = 0
        for token, (start, end) in zip(coded["input_ids"], coded["offset_mapping"], strict=True):
            if self._texts.get(token) != text[start:end].strip():  # the unknown token is special, yet no control
                since.append(token)
                continue
            made += [*self._stretch(text[begin:start], since, marks, first=begin == 0), token]
            since, begin = [], end
        return tuple(made + self._stretch(text[begin:], since, marks, first=begin == 0))

    def _stretch(self, text: str, tokens: list[int], marks: Marks, *, first: bool) -> list[int]:
        """The tokens of text between two control tokens; `tokens` are those of the text with its marks."""
        if marks.keys().isdisjoint(text):
            return tokens
        for sign, special in marks.items():
            text = text.replace(sign, special)
        made = self._split(text) if first else self._continued(text)
        self._check(made, marks.values())
        return made

    def _check(self, made: list[int], specials: Collection[str]) -> None:
        controls = {token for token, special in self._texts.items() if special in specials} & set(made)
        if controls and controls != {self._tokenizer.unk_token_id}:
            raise _cannot(specials, "it makes the control token of plain text")

    def _continued(self, text: str) -> list[int]:
        """The tokens of text that follows other text: SentencePiece puts a space before the first alone."""
        newline = self._split("\n")
        made = self._split("\n" + text)
        return made[len(newline) :] if made[: len(newline)] == newline else self._split(text)

    def _split(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def _texts(value: Any) -> Iterator[str]:
    """Every text in a message or tool, at any depth; keys too, which name parameters and arguments."""
    match value:
        case str():
            yield value
        case Mapping():
            yield from chain.from_iterable(map(_texts, chain(value, value.values())))
        case list() | tuple():
            yield from chain.from_iterable(map(_texts, value))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The same value with `change` applied to every text in it, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_mapped(key, change): _mapped(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(inner, change) for inner in value]
    return value


def _cannot(specials: Collection[str], reason: str) -> DataError:
    return DataError(
        "the text of a control token in a message cannot be kept apart from the token itself: " + reason,
        value=sorted(specials),
        remedy="Delete or rewrite it in the row",
    )
