"""A tokenizer as GGUF keeps it: tokens with their kinds, merges, and how text is split before them.

Byte-level BPE alone: the tokenizers of SmolLM2, Llama 3, Qwen and most models since. llama.cpp knows the ways to split
by name and not by pattern, so a tokenizer whose way has none here is refused. The names are those of llama.cpp's
src/llama-vocab.cpp; the kinds of tokens are told apart as its convert_hf_to_gguf.py does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sharpen.errors import ModelError

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {
    "llama-bpe": _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST,
    "qwen2": _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST,
}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}

SPLITTERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_BYTES],
    "smollm": [_DIGITS, _BYTES],
    **{
        name: [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {**_BYTES, "use_regex": False},
        ]
        for name, pattern in _SPLITS.items()
    },
}
"""llama.cpp's name of a way to split, and what it is in the words of `tokenizers`."""

WHOLE_FIRST = ("llama-bpe",)
"""The names under which llama.cpp takes a piece that is a token for that token, whatever the merges say."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What GGUF keeps of a tokenizer."""

    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    splitter: str
    starts: bool
    """Whether text begins with the token for that (bos)."""


def vocabulary(tokenizer: Any, rows: int) -> Vocabulary:
    """That of a tokenizer, filled up to the model's `rows` embeddings.

    Raises ModelError where it is no byte-level BPE, or splits text in a way that llama.cpp has no name for.
    """
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    splitter = _splitter(described)
    found = {index: token for token, index in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    from gguf import TokenType  # takes a moment to import

    tokens, kinds = [], []
    for index in range(rows):
        entry = added.get(index)
        tokens.append(entry.content if entry else found.get(index, f"[PAD{index}]"))
        if entry:
            kinds.append(TokenType.CONTROL if entry.special else TokenType.USER_DEFINED)
        else:
            kinds.append(TokenType.NORMAL if index in found else TokenType.UNUSED)
    merges = tuple(pair if isinstance(pair, str) else " ".join(pair) for pair in described["model"]["merges"])
    return Vocabulary(tuple(tokens), tuple(map(int, kinds)), merges, splitter, begins(tokenizer))


def begins(tokenizer: Any) -> bool:
    """Whether what reads a GGUF should put the tokenizer's bos before a conversation.

    Where the tokenizer does so with any text and the chat template writes it; a template that writes the beginning of a
    turn, which some tokenizers call bos, is not meant.
    """
    start = tokenizer.bos_token
    if not start or tokenizer.bos_token_id not in tokenizer.encode("")[:1]:
        return False
    told = getattr(tokenizer, "chat_template_kwargs", {})
    text: str = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False, **told)
    return text.startswith(start)


def splitter_of(name: str) -> Any:
    """The way to split of that name, for a `tokenizers` tokenizer."""
    from tokenizers import Tokenizer, models

    core = json.loads(Tokenizer(models.BPE()).to_str())
    core["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [_with_offsets(part) for part in SPLITTERS[name]]}
    return Tokenizer.from_str(json.dumps(core)).pre_tokenizer


def _splitter(described: dict[str, Any]) -> str:
    model, given = described["model"], described["pre_tokenizer"] or {}
    parts = given.get("pretokenizers", [given])
    plain = [{key: value for key, value in part.items() if key != "trim_offsets"} for part in parts]
    normalizer = (described["normalizer"] or {}).get("type")
    if model["type"] != "BPE" or normalizer not in (None, "NFC") or not any(_is_bytes(part) for part in plain):
        raise ModelError(
            "GGUF is written for byte-level BPE tokenizers (SmolLM2, Llama 3, Qwen), and this is another kind",
            value=f"{model['type']}, {' + '.join(str(part.get('type')) for part in parts)}",
            remedy="Export with --to hf, and convert that folder with llama.cpp's convert_hf_to_gguf.py",
        )
    for name, known in SPLITTERS.items():
        if plain == known and bool(model.get("ignore_merges")) == (name in WHOLE_FIRST):
            return name
    raise ModelError(
        "the tokenizer splits text in a way that is not among those known here by llama.cpp's names",
        value=" + ".join(str(part.get("type")) for part in parts),
        remedy=f"Known: {', '.join(SPLITTERS)}. Export with --to hf, and try llama.cpp's convert_hf_to_gguf.py",
    )


def _is_bytes(part: dict[str, Any]) -> bool:
    return part.get("type") == "ByteLevel"


def _with_offsets(part: dict[str, Any]) -> dict[str, Any]:
    return {**part, "trim_offsets": True} if _is_bytes(part) else part
