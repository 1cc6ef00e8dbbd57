"""Tiny models held to grammars, and small languages written out: the truth beside the grammar library's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from sharpen.config.response_format import ResponseFormat
from sharpen.models import plain
from sharpen.models.load import Loaded, load
from sharpen.rollout.base import Params, Request
from sharpen.rollout.grammar import Grammar, grammar_of
from sharpen.rollout.local import LocalSampler
from sharpen.types import Segment
from tests.tiny import tiny_model, tiny_tokenizer

FAST, SLOW, NARROW = "llama", "bloom", "llama in bfloat16"
"""A model on the fast path, one on the slow, and one with narrow weights, whose logits are partly rounded."""

END = 2
"""The tiny models' end token."""

WORDS = ("ac", "ad", "bc", "bd", "e")
WORDS_PATTERN = "[ab][cd]|e"

_CLOSED = {"type": "object", "additionalProperties": False}
_SMALL = {"type": "integer", "minimum": 0, "maximum": 99}
NESTED = {
    **_CLOSED,
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "tags": {"type": "array", "items": {"enum": ["a", "bb", "c d"]}, "maxItems": 3},
        "inner": {**_CLOSED, "properties": {"n": _SMALL, "ok": {"type": "boolean"}}, "required": ["n", "ok"]},
    },
    "required": ["name", "tags", "inner"],
}
SCHEMAS: dict[str, Any] = {
    "nested": NESTED,
    "optional": {**_CLOSED, "properties": {"x": _SMALL, "y": {"type": ["null", "boolean"]}}},
    "number": {"type": "number"},
    "enum": {"enum": ["red", 7, None, {"a": [1]}, "re"]},
    "array": {"type": "array", "items": {"type": "integer", "minimum": -9, "maximum": 9}, "minItems": 2, "maxItems": 4},
    "pattern": {"type": "string", "pattern": "^[a-c]{2,4}$"},
    "tree": {
        "$ref": "#/$defs/tree",
        "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}},
    },
}


def models_in(folder: Path) -> dict[str, Loaded]:
    """Each kind."""
    found = {
        kind: load(tiny_model(folder / kind, kind, initializer_range=0.15), torch.float32) for kind in (FAST, SLOW)
    }
    found[NARROW] = load(folder / FAST, torch.bfloat16)
    assert plain.how(found[SLOW].model) and not plain.how(found[FAST].model)
    return found


def eager(loaded: Loaded) -> Any:
    """As transformers loads and computes it, in float64."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(loaded.path, attn_implementation="eager")
    return model.double().eval().requires_grad_(False)


def form(value: dict[str, Any] | str) -> Any:
    """A schema's or a pattern's `response_format`."""
    written = (
        {"type": "regex", "pattern": value} if isinstance(value, str) else {"type": "json_schema", "schema": value}
    )
    return TypeAdapter(ResponseFormat).validate_python(written)


def grammar(loaded: Loaded, value: dict[str, Any] | str) -> Grammar:
    """Of a schema or a pattern."""
    found = grammar_of(form(value), loaded)
    assert found
    return found


def requests(count: int) -> list[Request]:
    """Of three prompts in turn."""
    return [Request((5, 6, 7 + place % 3), (1, place)) for place in range(count)]


def run(loaded: Loaded, asked: Sequence[Request], params: Params, **settings: Any) -> list[Segment]:
    """The built-in sampler's answers."""
    return asyncio.run(LocalSampler(loaded.model, loaded.stop, **settings).sample(asked, params))


def made(segment: Segment) -> tuple[int, ...]:
    """What was sampled."""
    return segment.tokens[len(segment.tokens) - segment.sampled :]


tokenizer = cache(tiny_tokenizer)


def text(tokens: Sequence[int]) -> str:
    """Without the end token."""
    return str(tokenizer().decode([token for token in tokens if token != END]))


def following(language: Iterable[str], begun: str) -> set[int]:
    """The tokens that may come after the beginning of a word: a character, or the end after a whole one."""
    after = {word[len(begun) : len(begun) + 1] for word in language if word.startswith(begun)}
    return {tokenizer().convert_tokens_to_ids(character) if character else END for character in after}
