"""Completions held to a grammar: they match it, and are drawn from the softmax over what it allows."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from zlib import decompress

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pydantic import TypeAdapter

from sharpen.config.response_format import ResponseFormat
from sharpen.models.load import Loaded
from sharpen.rollout.base import Params, Request
from sharpen.rollout.grammar import grammar_of
from sharpen.types import Segment, Support
from tests.core.held import (
    END,
    FAST,
    NARROW,
    NESTED,
    SCHEMAS,
    SLOW,
    WORDS,
    WORDS_PATTERN,
    eager,
    following,
    grammar,
    made,
    models_in,
    requests,
    run,
    text,
    tokenizer,
)

PATTERNS = (r"[ab]c|d", r"\d{2,4}-[a-z]+", r"(yes|no)( maybe)?", r"[^a-z]{3}", r"a*")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    return models_in(tmp_path_factory.mktemp("models"))


def stopped(segments: Sequence[Segment]) -> list[str]:
    """The texts of the completions that ended by themselves."""
    return [text(made(segment)) for segment in segments if segment.tokens[-1] == END]


def carried(support: Support, place: int) -> set[int]:
    """The tokens that could be drawn at a place."""
    if support.sets:
        bits = np.unpackbits(np.frombuffer(decompress(support.sets[place]), np.uint8), bitorder="little")
        return set(bits.nonzero()[0].tolist())
    start = sum(support.counts[:place])
    return set(support.ids[start : start + support.counts[place]])


@pytest.mark.parametrize("kind", [FAST, SLOW])
@pytest.mark.parametrize("name", SCHEMAS)
def test_every_completion_that_ended_by_itself_is_json_of_the_schema(
    models: dict[str, Loaded], kind: str, name: str
) -> None:
    params = Params(150, grammar=grammar(models[kind], SCHEMAS[name]))
    found = stopped(run(models[kind], requests(12), params))
    assert len(found) >= 4
    for said in found:
        Draft202012Validator(SCHEMAS[name]).validate(json.loads(said))
    assert len(set(found)) > 1, "and they are not all the same"


@pytest.mark.parametrize("kind", [FAST, SLOW])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_completion_that_ended_by_itself_matches_the_pattern(
    models: dict[str, Loaded], kind: str, pattern: str
) -> None:
    params = Params(100, grammar=grammar(models[kind], pattern))
    found = stopped(run(models[kind], requests(12), params))
    assert len(found) >= 10 and all(re.fullmatch(pattern, said) for said in found)


def test_any_object_is_an_object_and_without_strict_a_schema_says_no_more(models: dict[str, Loaded]) -> None:
    loose = {"type": "json_schema", "schema": {"enum": [7]}, "strict": False}
    for written in ({"type": "json_object"}, loose):
        held = grammar_of(TypeAdapter(ResponseFormat).validate_python(written), models[FAST])
        found = stopped(run(models[FAST], requests(6), Params(300, 0.6, grammar=held)))
        assert found and all(isinstance(json.loads(said), dict) for said in found)


@pytest.mark.parametrize("kind", [FAST, SLOW, NARROW])
@pytest.mark.parametrize(
    "params", [Params(40, 0.0), Params(40), Params(40, top_k=30), Params(40, 0.7, top_k=3, top_p=0.9, min_p=0.05)]
)
def test_each_token_is_one_of_those_that_may_follow_and_so_is_the_end(
    models: dict[str, Loaded], kind: str, params: Params
) -> None:
    """In a language that can be written out; what is carried along is all of them, or what the cuts left of them."""
    words = [f'{{"a":{blank}{value}}}' for blank in ("", " ") for value in ('"x"', '"xy"', "1", "12", "null")]
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "xy", 1, 12, None]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    for segment in run(models[kind], requests(8), replace(params, grammar=grammar(models[kind], schema))):
        assert text(made(segment)) in words and segment.tokens[-1] == END and segment.support
        for place, token in enumerate(made(segment)):
            left, expected = carried(segment.support, place), following(words, text(made(segment)[:place]))
            assert token in left and left <= expected
            assert params.cuts or left == expected


def test_greedy_takes_the_likeliest_of_the_allowed(models: dict[str, Loaded]) -> None:
    own = eager(models[FAST])
    for segment in run(models[FAST], requests(3), Params(9, 0.0, grammar=grammar(models[FAST], "[a-m]{1,6}"))):
        assert segment.support
        scores = own(input_ids=torch.tensor(segment.tokens)[None]).logits[0]
        first = len(segment.tokens) - segment.sampled
        for place, token in enumerate(made(segment)):
            before = scores[first + place - 1]
            assert token == max(carried(segment.support, place), key=lambda one: float(before[one]))


@pytest.mark.parametrize("kind", [FAST, SLOW])
def test_words_come_as_often_as_the_masked_softmax_says(models: dict[str, Loaded], kind: str) -> None:
    prompt, draws = (9, 30, 12), 3000
    params = Params(4, 0.8, grammar=grammar(models[kind], WORDS_PATTERN))
    segments = run(models[kind], [Request(prompt, (3, place)) for place in range(draws)], params, max_rows=1000)
    counts = Counter(stopped(segments))
    chances = word_chances(eager(models[kind]), prompt, 0.8)
    chi_square = sum((counts[word] - draws * chance) ** 2 / (draws * chance) for word, chance in chances.items())
    assert sum(counts.values()) == draws and sum(chances.values()) == pytest.approx(1)
    assert min(chances.values()) > 0.002 and chi_square < 18.5, "99.9 % of chi-square with 4 degrees of freedom"
    for segment in segments[:50]:
        assert sum(segment.logprobs) == pytest.approx(np.log(chances[text(made(segment))]), abs=1e-4)


def word_chances(own: Any, prompt: tuple[int, ...], temperature: float) -> dict[str, float]:
    """Of each word, by float64 softmaxes over what may follow."""
    found = {}
    for word in WORDS:
        ids = tokenizer()(word, add_special_tokens=False)["input_ids"]
        chance = 1.0
        for place, token in enumerate(ids):
            options = sorted(following(WORDS, word[:place]))
            scores = own(input_ids=torch.tensor([*prompt, *ids[:place]])[None]).logits[0, -1]
            chance *= float((scores[options] / temperature).softmax(-1)[options.index(token)])
        found[word] = chance
    return found


@pytest.mark.parametrize("settings", [{"max_rows": 2}, {"max_rows": 5, "prefill_tokens": 1}])
def test_neighbours_change_no_text_and_no_choice(models: dict[str, Loaded], settings: dict[str, Any]) -> None:
    for kind in (FAST, SLOW):
        params = Params(60, grammar=grammar(models[kind], NESTED))
        whole, parts = run(models[kind], requests(6), params), run(models[kind], requests(6), params, **settings)
        assert [segment.tokens for segment in parts] == [segment.tokens for segment in whole]
        assert [segment.support for segment in parts] == [segment.support for segment in whole]


def test_another_process_gets_a_grammar_that_masks_the_same_and_compiles_it_once(models: dict[str, Loaded]) -> None:
    params = Params(60, grammar=grammar(models[FAST], NESTED))
    sent, again = (pickle.loads(pickle.dumps(params)) for _ in range(2))
    assert sent.grammar is again.grammar and sent.grammar is not params.grammar
    assert run(models[FAST], requests(4), sent) == run(models[FAST], requests(4), params)


def test_tokens_with_the_same_choice_share_its_set(models: dict[str, Loaded]) -> None:
    segments = run(models[FAST], requests(8), Params(31, grammar=grammar(models[FAST], "[a-z]{30}")))
    sets = [own for segment in segments if segment.support for own in segment.support.sets]
    assert len(sets) == 8 * 31 and len({id(own) for own in sets}) == 2, "a letter, or the end"


def test_nothing_is_carried_where_any_text_will_do(models: dict[str, Loaded]) -> None:
    assert grammar_of(TypeAdapter(ResponseFormat).validate_python({"type": "text"}), models[FAST]) is None
    assert [segment.support for segment in run(models[FAST], requests(3), Params(5))] == [None] * 3
