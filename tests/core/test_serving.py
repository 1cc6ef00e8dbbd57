"""The continuous batch of serving: what a request says is what `LocalSampler` says, whoever runs beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from sharpen.config.response_format import JsonObjectFormat
from sharpen.models.load import Loaded, load
from sharpen.rollout.base import Params, Request
from sharpen.rollout.grammar import grammar_of
from sharpen.rollout.local import LocalSampler
from sharpen.rollout.serving import Asked, Batch, Made
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(tiny_model(tmp_path_factory.mktemp("model"), initializer_range=0.2), torch.float32)


def asked_of(count: int, params: Params, first: int = 0) -> list[Asked]:
    generator = torch.Generator().manual_seed(first)
    lengths = [3, 17, 1, 30, 8]
    return [
        Asked(
            first + place,
            tuple(torch.randint(4, 100, (lengths[place % 5],), generator=generator).tolist()),
            (7, "serving", first + place),
            params,
            logprobs=3,
        )
        for place in range(count)
    ]


def alone(loaded: Loaded, asked: Sequence[Asked]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Tokens and log-probabilities of LocalSampler, a request at a time."""
    found = []
    for one in asked:
        sampler = LocalSampler(loaded.model, loaded.stop)
        (segment,) = asyncio.run(sampler.sample([Request(one.prompt, one.key)], one.params))
        start = len(one.prompt)
        found.append((segment.tokens[start:], segment.logprobs[start:]))
    return found


def drain(batch: Batch, arrivals: Mapping[int, Sequence[Asked]] = {}) -> dict[int, list[Made]]:
    """Run to the end, with requests that arrive at given steps."""
    made: dict[int, list[Made]] = {}
    step = 0
    while batch.busy or step <= max(arrivals, default=-1):
        for one in arrivals.get(step, ()):
            batch.add(one)
        for token in batch.step():
            made.setdefault(token.id, []).append(token)
        step += 1
    return made


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_and_logprobs_are_those_of_the_local_sampler(loaded: Loaded, temperature: float) -> None:
    asked = asked_of(9, Params(max_tokens=24, temperature=temperature))
    with Batch(loaded.model, loaded.stop, max_rows=4, prefill_tokens=20) as batch:
        made = drain(batch, {0: asked[:3], 2: asked[3:8], 11: asked[8:]})
    for one, (tokens, logprobs) in zip(asked, alone(loaded, asked), strict=True):
        assert tuple(token.token for token in made[one.id]) == tokens
        assert [token.logprob for token in made[one.id]] == pytest.approx(logprobs, abs=1e-4)
        assert made[one.id][-1].finish == ("stop" if tokens[-1] in loaded.stop else "length")
        likeliest = made[one.id][0].top
        assert len(likeliest) == 3 and likeliest == tuple(sorted(likeliest, key=lambda pair: -pair[1]))
        if temperature == 0:
            assert [token.top[0][0] for token in made[one.id]] == list(tokens)


def test_neighbours_with_other_settings_change_nothing(loaded: Loaded) -> None:
    kinds = [
        Params(max_tokens=16, temperature=0.0),
        Params(max_tokens=20, temperature=0.7),
        Params(max_tokens=12, temperature=1.6, top_p=0.8),
        Params(max_tokens=9, top_p=0.5),
        Params(max_tokens=14, top_k=5),
    ]
    asked = [one for place, params in enumerate(kinds) for one in asked_of(2, params, 10 * place)]
    with Batch(loaded.model, loaded.stop) as batch:
        made = drain(batch, {0: asked[::2], 3: asked[1::2]})
    for one, (tokens, _) in zip(asked, alone(loaded, asked), strict=True):
        assert tuple(token.token for token in made[one.id]) == tokens


def test_a_grammar_holds_its_row_alone(loaded: Loaded) -> None:
    grammar = grammar_of(JsonObjectFormat(), loaded)
    held = asked_of(2, Params(max_tokens=30, grammar=grammar))
    free = asked_of(2, Params(max_tokens=30), 50)
    with Batch(loaded.model, loaded.stop) as batch:
        made = drain(batch, {0: [held[0], free[0]], 1: [free[1], held[1]]})
    for one, (tokens, _) in zip([*held, *free], alone(loaded, [*held, *free]), strict=True):
        assert tuple(token.token for token in made[one.id]) == tokens
    assert loaded.tokenizer.decode([made[held[0].id][0].token]) == "{"


def test_rows_that_are_cancelled_leave_and_the_others_go_on(loaded: Loaded) -> None:
    asked = asked_of(6, Params(max_tokens=40))
    with Batch(loaded.model, loaded.stop, max_rows=3) as batch:
        for one in asked:
            batch.add(one)
        first = [made.id for _ in range(4) for made in batch.step()]
        for gone in (asked[0].id, asked[4].id):
            batch.cancel(gone)
        rest = drain(batch)
    assert asked[0].id in first and asked[0].id not in rest and asked[4].id not in rest
    for one, (tokens, _) in zip(asked, alone(loaded, asked), strict=True):
        if one.id in rest:
            assert rest[one.id][-1].token == tokens[-1]


def test_where_memory_runs_out_the_youngest_row_waits_and_says_the_same(loaded: Loaded) -> None:
    asked = asked_of(4, Params(max_tokens=90, temperature=0.0))
    one_token = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, size, float32
    with Batch(loaded.model, loaded.stop, memory=200 * one_token) as batch:
        made = drain(batch, {0: asked})
    for one, (tokens, _) in zip(asked, alone(loaded, asked), strict=True):
        assert tuple(token.token for token in made[one.id]) == tokens


def test_models_on_the_slow_path_are_served_a_batch_at_a_time(tmp_path: Path) -> None:
    slow = load(tiny_model(tmp_path, "gemma2"), torch.float32)
    assert slow.notice
    asked = asked_of(5, Params(max_tokens=10, temperature=0.0))
    with Batch(slow.model, slow.stop, max_rows=2) as batch:
        made = drain(batch, {0: asked[:3], 4: asked[3:]})
    for one, (tokens, logprobs) in zip(asked, alone(slow, asked), strict=True):
        assert tuple(token.token for token in made[one.id]) == tokens
        assert [token.logprob for token in made[one.id]] == pytest.approx(logprobs, abs=1e-4)
