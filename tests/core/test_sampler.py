"""The built-in sampler: a completion depends on its prompt, its key and the weights, and on nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sharpen.models.load import Loaded, load
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler
from sharpen.train.engine import score
from sharpen.types import Segment
from sharpen.types import Sequence as Row
from tests.tiny import tiny_model

PARAMS = Params(max_tokens=24)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(tiny_model(tmp_path_factory.mktemp("model"), initializer_range=0.2), torch.float32)


def requests_of(count: int, prompts: int = 3) -> list[Request]:
    """Requests over a few prompts of different lengths, neighbours sharing theirs."""
    generator = torch.Generator().manual_seed(0)
    lengths = (3, 17, 8, 30)[:prompts]
    texts = [tuple(torch.randint(4, 100, (length,), generator=generator).tolist()) for length in lengths]
    return [Request(texts[index * prompts // count], (7, "rft", 0, index)) for index in range(count)]


def run(loaded: Loaded, requests: Sequence[Request], params: Params = PARAMS, **settings: Any) -> list[Segment]:
    return asyncio.run(LocalSampler(loaded.model, loaded.stop, **settings).sample(requests, params))


def made(segment: Segment) -> tuple[int, ...]:
    return segment.tokens[len(segment.tokens) - segment.sampled :]


def test_the_order_of_requests_changes_no_text(loaded: Loaded) -> None:
    requests = requests_of(12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1)).tolist()
    straight = run(loaded, requests)
    permuted = run(loaded, [requests[index] for index in order])
    assert [segment.tokens for segment in permuted] == [straight[index].tokens for index in order]
    assert len({segment.tokens for segment in straight}) == 12, "different keys, different texts"


def test_neighbours_and_their_keys_change_no_text(loaded: Loaded) -> None:
    first = requests_of(12)
    together = run(loaded, first)
    others = [Request(request.prompt, (99, index)) for index, request in enumerate(first[1:])]
    assert run(loaded, [first[0], *others])[0].tokens == together[0].tokens
    for request, segment in zip(first[::4], together[::4], strict=True):
        assert run(loaded, [request])[0].tokens == segment.tokens


@pytest.mark.parametrize("settings", [{"max_rows": 1}, {"max_rows": 5}, {"prefill_tokens": 1}, {"prefill_tokens": 20}])
def test_several_batches_and_prefills_make_the_same_texts_as_one(loaded: Loaded, settings: dict[str, Any]) -> None:
    requests = requests_of(12)
    whole, parts = run(loaded, requests), run(loaded, requests, **settings)
    for one, other in zip(whole, parts, strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_prompts_that_share_their_computation_give_what_separate_ones_give(loaded: Loaded) -> None:
    """Interleaved, equal prompts are no neighbours, so nothing is shared."""
    requests = requests_of(12)
    interleaved = [requests[index] for start in range(4) for index in range(start, 12, 4)]
    shared = {request.key: segment for request, segment in zip(requests, run(loaded, requests), strict=True)}
    for request, segment in zip(interleaved, run(loaded, interleaved), strict=True):
        assert segment.tokens == shared[request.key].tokens


def test_logprobs_are_the_trainers(loaded: Loaded) -> None:
    for temperature in (1.0, 0.6):
        segments = run(loaded, requests_of(12), Params(24, temperature))
        rows = [Row(segment.tokens, segment.mask, str(index)) for index, segment in enumerate(segments)]
        for row, segment in zip(score(loaded.model, rows, 300, temperature), segments, strict=True):
            assert row.old_logprobs == pytest.approx(segment.logprobs, abs=1e-3)
            assert segment.sampled and all(logprob < 0 for logprob in segment.logprobs[-segment.sampled :])


CUTS = [Params(24, 0.8, top_k=4), Params(24, 1.3, top_p=0.7), Params(24, 1.0, top_k=30, top_p=0.9, min_p=0.1)]


@pytest.mark.parametrize("params", CUTS)
def test_after_a_cut_logprobs_are_those_of_the_renormalised_rest_and_the_trainers(
    loaded: Loaded, params: Params
) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(loaded.path, attn_implementation="eager").double().eval()
    segments = run(loaded, requests_of(12), params, max_rows=5)
    rows = [Row(segment.tokens, segment.mask, str(i), support=segment.support) for i, segment in enumerate(segments)]
    for row, segment in zip(score(loaded.model, rows, 300, params.temperature), segments, strict=True):
        assert row.old_logprobs == pytest.approx(segment.logprobs, abs=1e-3)
        assert segment.support is not None and len(segment.support.counts) == segment.sampled
        scores = plain(input_ids=torch.tensor(segment.tokens)[None]).logits[0].detach() / params.temperature
        ids, start = list(segment.support.ids), len(segment.tokens) - segment.sampled
        for place, count in enumerate(segment.support.counts, start):
            left, ids = ids[:count], ids[count:]
            token = segment.tokens[place]
            expected = scores[place - 1][left].log_softmax(-1)[left.index(token)]
            assert segment.logprobs[place] == pytest.approx(float(expected), abs=1e-3)
            assert params.top_k is None or count <= params.top_k
        assert not ids
    counts = [count for segment in segments if segment.support for count in segment.support.counts]
    assert max(counts) > 1 and max(counts) < 128, "something was cut off, and something left"


def test_nothing_is_carried_along_where_nothing_is_cut(loaded: Loaded) -> None:
    for params in (PARAMS, Params(4, 0.0, top_k=2)):
        assert [segment.support for segment in run(loaded, requests_of(3), params)] == [None] * 3


def test_a_cut_that_spares_every_token_changes_no_text(loaded: Loaded) -> None:
    spared = run(loaded, requests_of(6), Params(24, 1.0, top_k=128))
    for one, other in zip(spared, run(loaded, requests_of(6)), strict=True):
        assert one.tokens == other.tokens and one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_in_bfloat16_logprobs_are_the_trainers_on_average(tmp_path: Path) -> None:
    loaded = load(tiny_model(tmp_path, initializer_range=0.1), torch.bfloat16)
    segments = run(loaded, requests_of(16))
    rows = [
        Row(segment.tokens, segment.mask, atom=str(request.prompt), shared=len(request.prompt))
        for request, segment in zip(requests_of(16), segments, strict=True)
    ]
    gaps = [
        abs(a - b)
        for row, segment in zip(score(loaded.model, rows, 300), segments, strict=True)
        for a, b in zip(row.old_logprobs, segment.logprobs, strict=True)
        if b
    ]
    assert len(gaps) > 200 and sum(gaps) / len(gaps) <= 0.02


def test_a_stop_token_ends_its_row_and_no_other(loaded: Loaded) -> None:
    """With more stop tokens, each text is the old one up to its first of them, that one included."""
    requests = requests_of(16)
    free = asyncio.run(LocalSampler(loaded.model, frozenset()).sample(requests, PARAMS))
    stop = frozenset(range(2, 30))
    stopped = asyncio.run(LocalSampler(loaded.model, stop).sample(requests, PARAMS))
    assert [segment.sampled for segment in free] == [24] * 16
    for whole, cut in zip(free, stopped, strict=True):
        end = next((index + 1 for index, token in enumerate(made(whole)) if token in stop), 24)
        assert made(cut) == made(whole)[:end]
        assert cut.logprobs == pytest.approx(whole.logprobs[: len(cut.tokens)], abs=1e-4)
    assert len({segment.sampled for segment in stopped}) > 5, "rows left at different times"


def test_max_tokens_is_an_upper_bound_and_a_longer_limit_only_adds(loaded: Loaded) -> None:
    requests = requests_of(6)
    short, long = run(loaded, requests, Params(1)), run(loaded, requests, Params(9))
    assert [segment.sampled for segment in short] == [1] * 6
    assert [made(segment)[:1] for segment in long] == [made(segment) for segment in short]


def test_segments_hold_the_prompt_unmasked_and_the_version(loaded: Loaded) -> None:
    sampler = LocalSampler(loaded.model, loaded.stop)
    sampler.version = 5
    (request,) = requests_of(1, prompts=1)
    (segment,) = asyncio.run(sampler.sample([request], PARAMS))
    size = len(request.prompt)
    assert segment.version == 5 and segment.tokens[:size] == request.prompt
    assert segment.mask == (False,) * size + (True,) * segment.sampled
    assert segment.logprobs[:size] == (0.0,) * size
    assert asyncio.run(sampler.sample([], PARAMS)) == []


def test_greedy_texts_are_those_of_generate(loaded: Loaded) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(loaded.path, attn_implementation="eager").eval()
    requests = requests_of(4, prompts=4)
    for request, segment in zip(requests, run(loaded, requests, Params(20, 0.0)), strict=True):
        prompt = torch.tensor(request.prompt)[None]
        ones = torch.ones_like(prompt)
        stop = sorted(loaded.stop)
        whole = plain.generate(prompt, attention_mask=ones, max_new_tokens=20, do_sample=False, eos_token_id=stop)
        assert segment.tokens == tuple(whole[0].tolist())


def test_progress_counts_up_to_what_was_made(loaded: Loaded) -> None:
    told: list[int] = []
    sampler = LocalSampler(loaded.model, frozenset(), max_rows=4)
    segments = asyncio.run(sampler.sample(requests_of(8), Params(6), told.append))
    assert told == sorted(told) and told[-1] == sum(segment.sampled for segment in segments) == 48


def test_a_request_may_have_a_lower_limit_than_its_neighbours_and_changes_nothing_for_them(loaded: Loaded) -> None:
    requests = requests_of(12)
    free = run(loaded, requests)
    limits = [None, 1, 3, 24, 30, *[2] * 7]
    limited = run(loaded, [Request(one.prompt, one.key, limit) for one, limit in zip(requests, limits, strict=True)])
    for one, other, limit in zip(limited, free, limits, strict=True):
        assert made(one) == made(other)[: limit or 24]
        assert one.logprobs == pytest.approx(other.logprobs[: len(one.tokens)], abs=1e-4)
