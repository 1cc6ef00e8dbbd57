"""Grammars over tokens of several bytes, or of half a character: a byte-level tokenizer, as most models have one."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import numpy as np
import pytest

from sharpen.errors import ConfigError, ModelError
from sharpen.rollout.grammar import Allowed, Grammar, advance
from tests.core.held import form
from tests.tiny import tiny_tokenizer

END = 1
VOCABULARY = 360  # of a head with more rows than there are tokens
WORDS = ["yes", "yesterday", "no", "näher", "north", 7, 77, None, ["no", "yes"]]
TEXTS = [json.dumps(word, ensure_ascii=False, separators=(",", ":")) for word in WORDS]


@cache
def byte_level() -> Any:
    """Merges learned from a few lines, so that many tokens have several bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    lines = [text for text in TEXTS for _ in range(20)] + ["the north is nearer than yesterday, 77 or no"] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|unk|>", "<|im_end|>"]
    core.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=350, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", unk_token="<|unk|>")


def pieces() -> dict[int, bytes]:
    """What each token that is text stands for, by the table of bytes that GPT-2 published."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
    names = byte_level().convert_ids_to_tokens(range(2, len(byte_level())))
    return {token: bytes(table[character] for character in name) for token, name in enumerate(names, 2)}


def allowed(grammar: Grammar, matcher: Any) -> set[int]:
    (bits,) = Allowed(grammar, [matcher]).bits
    return set(np.unpackbits(bits, bitorder="little").nonzero()[0].tolist())


@pytest.mark.parametrize("seed", range(20))
def test_what_may_follow_is_every_token_that_leads_on_or_the_only_text_there_is(seed: int) -> None:
    """Where a text must follow, it may have to be in the tokenizer's own tokens."""
    said = form({"enum": WORDS}).grammar()
    grammar = Grammar(said.replace(", ?", ","), byte_level(), frozenset({END}), VOCABULARY)
    generator, matcher, texts = np.random.default_rng(seed), grammar.begin(), [text.encode() for text in TEXTS]
    begun, several = b"", 0
    while True:
        left = allowed(grammar, matcher)
        leads_on = [text[len(begun) :] for text in texts if text.startswith(begun)]
        expected = {token for token, piece in pieces().items() if any(rest.startswith(piece) for rest in leads_on)}
        expected |= {END} if b"" in leads_on else set()
        token = int(generator.choice(sorted(left)))
        if left != expected:
            assert left == {token} and all(rest.startswith(pieces()[token]) for rest in leads_on)
        several += len(left) > 1
        if token == END:
            break
        advance(matcher, token)
        begun += pieces()[token]
    assert begun in texts and several


@pytest.mark.parametrize("pattern", ["ä{2}|[ñn]o", ".", "[^a-z]{2}"])
def test_tokens_of_half_a_character_are_followed_by_the_other_half(pattern: str) -> None:
    grammar = Grammar(form(pattern).grammar(), byte_level(), frozenset({END}), VOCABULARY)
    for seed in range(20):
        generator, matcher, made = np.random.default_rng(seed), grammar.begin(), list[int]()
        while (token := int(generator.choice(sorted(allowed(grammar, matcher))))) != END:
            advance(matcher, token)
            made.append(token)
        assert re.fullmatch(pattern, b"".join(pieces()[one] for one in made).decode())


def test_an_end_token_that_is_text_ends_where_the_form_may_and_is_no_text() -> None:
    """Some models end a turn with a line break."""
    (line_break,) = [token for token, piece in pieces().items() if piece == b"\n"]
    grammar = Grammar(form(r"a\n?b?").grammar(), byte_level(), frozenset({END, line_break}), VOCABULARY)
    matcher = grammar.begin()
    (letter,) = allowed(grammar, matcher)
    advance(matcher, letter)
    assert allowed(grammar, matcher) == {END, line_break, *(t for t, piece in pieces().items() if piece == b"b")}


def test_a_tokenizer_whose_bytes_cannot_be_told_is_refused() -> None:
    from tokenizers import decoders

    odd = tiny_tokenizer()
    odd.backend_tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(ModelError, match=r"which bytes a token stands for.*Use a model with a byte-level"):
        Grammar(form("a").grammar(), odd, frozenset({2}), 128)


def test_a_character_that_the_tokenizer_does_not_know_is_told_and_never_made_the_unknown_token() -> None:
    grammar = Grammar(form("aä").grammar(), tiny_tokenizer(), frozenset({2}), 128)
    matcher = grammar.begin()
    advance(matcher, *allowed(grammar, matcher))
    with pytest.raises(ConfigError, match=r"^response_format: the model has no token for what must come next"):
        Allowed(grammar, [matcher])
