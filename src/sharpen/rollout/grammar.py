"""Grammars that completions are held to, token by token: llguidance says what may come next."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any
from weakref import WeakKeyDictionary
from zlib import compress

import numpy as np
import torch
from torch import Tensor

from sharpen.config.response_format import Form, TextFormat
from sharpen.errors import ConfigError, ModelError
from sharpen.models.head import unpacked
from sharpen.models.load import Loaded

LEVEL = 1
"""Of zlib: faster levels are none, and slower ones hardly smaller."""

Bits = np.ndarray[Any, np.dtype[np.uint8]]


def grammar_of(form: TextFormat | Form | None, loaded: Loaded) -> Grammar | None:
    """The form, compiled for the model's tokens; None where nothing is masked. Raises ConfigError and ModelError."""
    text = form.grammar() if form else None
    if text is None:
        return None
    return Grammar(text, loaded.tokenizer, loaded.stop, len(loaded.model.get_output_embeddings().weight))


class Grammar:
    """A grammar over the tokens of one model. Other processes get its text and the tokenizer, and compile it anew."""

    def __init__(self, text: str, tokenizer: Any, stop: frozenset[int], vocabulary: int) -> None:
        """`text` is llguidance's, `stop` are the tokens that end a completion, `vocabulary` counts the head's rows.

        Raises ConfigError where it cannot be compiled, ModelError where nothing says which bytes a token stands for.
        """
        from llguidance import LLMatcher  # an extra, and nobody else's

        self.text, self.tokenizer, self.stop, self.vocabulary = text, tokenizer, stop, vocabulary
        tokens = _tokens(tokenizer, vocabulary)
        self._first = LLMatcher(tokens, text, log_level=0)
        _check(self._first)
        self.words = -(-vocabulary // 32)
        self.ends = self._bits(stop)
        self.text_only = ~self._bits({*stop, *tokens.eos_tokens, *tokenizer.all_special_ids})

    def begin(self) -> Any:
        """A matcher that follows one completion from its first token."""
        return self._first.deep_copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.text, self._pickled, self.stop, self.vocabulary)

    @cached_property
    def _pickled(self) -> bytes:
        return pickle.dumps(self.tokenizer)

    def _bits(self, tokens: set[int] | frozenset[int]) -> Bits:
        marks = np.zeros(32 * self.words, dtype=bool)
        marks[[*tokens]] = True
        return np.packbits(marks, bitorder="little")


@lru_cache(maxsize=2)
def _again(text: str, pickled: bytes, stop: frozenset[int], vocabulary: int) -> Grammar:
    return Grammar(text, pickle.loads(pickled), stop, vocabulary)


class Allowed:
    """What each of N rows may draw next: `bits` (N, words × 4), a bit a token, the lowest of a byte first."""

    def __init__(self, grammar: Grammar, matchers: Sequence[Any]) -> None:
        """End tokens are allowed where the grammar may end, and nothing else where it must.

        Raises ConfigError where the library gives up, or the model has no token for what must come.
        """
        words = np.zeros((len(matchers), grammar.words), dtype=np.int32)
        self.bits = words.view(np.uint8)
        for row, matcher in enumerate(matchers):
            if not matcher.is_stopped():
                matcher.unsafe_compute_mask_ptr(words[row].ctypes.data, words[row].nbytes)
                self.bits[row] &= grammar.text_only
            if matcher.is_accepting():
                self.bits[row] |= grammar.ends
            _check(matcher)
            if not self.bits[row].any():
                raise ConfigError(
                    "the model has no token for what must come next",
                    path="response_format",
                    remedy="Ask for characters that its tokenizer knows",
                )

    def only(self, logits: Tensor) -> Tensor:
        """The logits (N, vocabulary) with −∞ for all that may not be drawn."""
        return logits.masked_fill(~unpacked(torch.from_numpy(self.bits), logits.shape[1]), -torch.inf)

    def sets(self, known: dict[bytes, bytes]) -> list[bytes]:
        """The rows' sets as a support carries them; equal ones, also of those `known`, are one object."""
        found = []
        for row in self.bits:
            bits = row.tobytes()
            if bits not in known:
                known[bits] = compress(bits, LEVEL)
            found.append(known[bits])
        return found


def advance(matcher: Any, token: int) -> None:
    """The token, which was allowed and ends nothing, was drawn. Raises ConfigError where the library gives up."""
    matcher.consume_token(token)
    _check(matcher)


def _check(matcher: Any) -> None:
    if matcher.is_error():
        raise ConfigError(
            f"llguidance cannot hold completions to this: {' '.join(matcher.get_error().split()):.400}",
            path="response_format",
            remedy="Simplify the schema or the pattern",
        )


_KNOWN: WeakKeyDictionary[Any, tuple[int, Any]] = WeakKeyDictionary()
"""Of each tokenizer the size of the vocabulary and what the library made of it, which takes a second."""


def _tokens(tokenizer: Any, vocabulary: int) -> Any:
    """The bytes that each token stands for, as the library keeps them."""
    size, found = _KNOWN.get(tokenizer, (0, None))
    if size != vocabulary:
        found = _read(tokenizer, vocabulary)
        _KNOWN[tokenizer] = vocabulary, found
    return found


def _read(tokenizer: Any, vocabulary: int) -> Any:
    from llguidance import LLTokenizer, TokenizerWrapper
    from llguidance.hf import from_tokenizer

    try:
        return from_tokenizer(tokenizer, n_vocab=vocabulary)
    except Exception as error:  # a foreign boundary: it knows byte-level and byte-fallback decoders, and no others
        plain = _Plain(tokenizer)
        if not plain.holds():
            raise ModelError(
                f"response_format needs to know which bytes a token stands for, and llguidance cannot tell: {error}",
                value=type(tokenizer).__name__,
                remedy="Use a model with a byte-level or SentencePiece tokenizer, or leave response_format out",
            ) from error
        return LLTokenizer(TokenizerWrapper(plain), n_vocab=vocabulary)


class _Plain:
    """A tokenizer whose tokens are pieces of text, as the library asks for it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.eos_token_id
        self.bos_token_id = tokenizer.bos_token_id
        self.special_token_ids = [*tokenizer.added_tokens_decoder]
        self._pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self.tokens = [piece.encode() for piece in self._pieces]

    def holds(self) -> bool:
        """Whether the pieces, one after another, are what the tokenizer makes of its tokens."""
        special = {*self.special_token_ids}
        ids = [token for token in range(len(self._pieces)) if token not in special]
        return bool(self._tokenizer.decode(ids) == "".join(self._pieces[token] for token in ids))

    def __call__(self, text: str | bytes) -> list[int]:
        said = text.decode() if isinstance(text, bytes) else text
        return list(self._tokenizer.encode(said, add_special_tokens=False))
