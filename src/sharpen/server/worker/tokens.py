"""The bytes that tokens stand for, as log-probabilities tell them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Pieces:
    """A tokenizer's tokens one by one."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._byte_level = backend is not None and "ByteLevel" in repr(backend.decoder)
        self._added = {*getattr(tokenizer, "added_tokens_decoder", {})}
        self._known: dict[int, bytes] = {}

    def raw(self, token: int) -> bytes:
        """Of a byte-level token its very bytes, of a byte token that byte, else those of its text."""
        if token not in self._known:
            self._known[token] = self._bytes(token)
        return self._known[token]

    def entry(self, token: int, logprob: float, top: Sequence[tuple[int, float]]) -> dict[str, Any]:
        """A token's log-probability, as OpenAI's API writes it."""
        return {**self._one(token, logprob), "top_logprobs": [self._one(*pair) for pair in top]}

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        raw = self.raw(token)
        return {
            "token": raw.decode("utf-8", "backslashreplace"),
            "logprob": max(logprob, -9999.0),
            "bytes": list(raw),
        }

    def _bytes(self, token: int) -> bytes:
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:  # a row of the head that no token has
            return b""
        if self._byte_level and token not in self._added:
            known = _letters()
            if all(letter in known for letter in piece):
                return bytes(known[letter] for letter in piece)
        if match := _BYTE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        if "\u2581" in piece:  # SentencePiece's blank, which decoding alone may drop
            return str(piece).replace("\u2581", " ").encode()
        return str(self._tokenizer.decode([token], skip_special_tokens=False)).encode()


@cache
def _letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others for letters from 256 on."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + place): byte for place, byte in enumerate(others)}
