"""Answers outside training: the sampler's own bits, whoever listens, however many run side by side."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from sharpen.models.load import Loaded, load
from sharpen.rollout import generate
from sharpen.rollout.base import Params, Request
from sharpen.rollout.generate import Answerer
from sharpen.rollout.local import LocalSampler
from tests.tiny import tiny_model

QUESTIONS = ("why?", "a much longer question than the others", "why?", "and?", "how many?")
WARM = Params(12, 1.2)


@pytest.fixture(scope="module", params=["llama", "bloom"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A model on our attention, and one on transformers' own."""
    return load(tiny_model(tmp_path_factory.mktemp("model"), request.param, initializer_range=0.2), torch.float32)


def requests(answerer: Answerer) -> list[Request]:
    return [answerer.request([{"role": "user", "content": said}], (3, n)) for n, said in enumerate(QUESTIONS)]


def test_who_listens_hears_every_token_and_changes_no_bit(loaded: Loaded) -> None:
    asked = requests(Answerer(loaded))
    heard: dict[int, list[int]] = {}
    deaf = asyncio.run(LocalSampler(loaded.model, loaded.stop, 2).sample(asked, WARM))
    sampler = LocalSampler(loaded.model, loaded.stop, 2)
    told = asyncio.run(sampler.sample(asked, WARM, seen=lambda which, token: heard.setdefault(which, []).append(token)))
    assert told == deaf
    made = {place: list(segment.tokens[-segment.sampled :]) for place, segment in enumerate(deaf)}
    assert heard == made


def test_who_listens_may_stop_it_and_the_next_answer_is_as_ever(loaded: Loaded) -> None:
    answerer = Answerer(loaded)
    asked = requests(answerer)
    before = asyncio.run(answerer.answer(asked, WARM))

    def enough(which: int, token: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        asyncio.run(answerer.answer(asked, WARM, enough))
    assert asyncio.run(answerer.answer(asked, WARM)) == before


def test_answers_come_in_the_order_of_the_requests_and_are_heard_by_their_place(loaded: Loaded) -> None:
    answerer = Answerer(loaded)
    asked = requests(answerer)
    heard: dict[int, list[int]] = {}
    together = asyncio.run(answerer.answer(asked, WARM, lambda which, token: heard.setdefault(which, []).append(token)))
    for place, (request, rollout) in enumerate(zip(asked, together, strict=True)):
        (alone,) = asyncio.run(answerer.answer([request], WARM))
        assert rollout.sample == alone.sample
        assert rollout.segments[0].tokens == (*request.prompt, *heard[place])
        assert answerer.so_far(request, heard[place]) == rollout.sample
    assert asyncio.run(answerer.answer([], WARM)) == []


def test_an_answer_has_no_more_tokens_than_its_request_allows(loaded: Loaded) -> None:
    answerer = Answerer(loaded)
    request = requests(answerer)[0]
    (short,) = asyncio.run(answerer.answer([Request(request.prompt, request.key, 3)], WARM))
    assert short.sampled <= 3


def test_long_answers_run_side_by_side_only_as_far_as_their_keys_and_values_have_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = Answerer(load(tiny_model(tmp_path), torch.float32))
    asked = requests(answerer)
    rows: list[int] = []

    class Spy(LocalSampler):
        def __init__(self, model: object, stop: frozenset[int], max_rows: int) -> None:
            rows.append(max_rows)
            super().__init__(model, stop, max_rows)

    monkeypatch.setattr(generate, "LocalSampler", Spy)
    texts = [rollout.sample for rollout in asyncio.run(answerer.answer(asked, WARM))]
    token = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, width, bytes
    longest = max(len(request.prompt) for request in asked) + 12
    for room, expected in ((2 * longest * token, 2), (3 * longest * token - 1, 2), (1, 1)):
        monkeypatch.setattr(generate, "CACHE_BYTES", room)
        assert [rollout.sample for rollout in asyncio.run(answerer.answer(asked, WARM))] == texts
        assert rows[-1] == expected
    assert rows[0] == generate.ROWS


def test_a_character_of_several_tokens_is_heard_when_it_is_whole(loaded: Loaded) -> None:
    class Bytes:
        """A tokenizer of bytes."""

        chat_template = ""

        def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
            return bytes(tokens).decode("utf-8", errors="replace")

    answerer = Answerer(loaded)
    answerer.renderer.tokenizer = Bytes()
    said = [answerer.so_far(Request((0,), ()), list("aé€".encode()[:length])).text for length in range(1, 7)]
    assert said == ["a", "a", "aé", "aé", "aé", "aé€"]
