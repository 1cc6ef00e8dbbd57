"""Our attention, packing and sampler compute what plain transformers computes, for every architecture we name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sharpen.data.pack import pack
from sharpen.models.load import Loaded, load
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler
from sharpen.train.backward import forward
from sharpen.train.engine import score
from sharpen.types import Sequence as Row
from tests.tiny import ARCHITECTURES, WINDOW, tiny_model

ASK = "Name seven rivers, and the sea each ends in."


class Pair:
    """One model, twice: ours, and transformers' own."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.ours: Loaded = load(folder, torch.float32)
        self.plain: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()

    def plain_logprobs(self, rows: Sequence[Row]) -> Tensor:
        """Of every trained token, one sequence at a time."""
        return torch.cat([self._plain_logprobs(row) for row in rows])

    @torch.no_grad()
    def _plain_logprobs(self, row: Row) -> Tensor:
        tokens = torch.tensor(row.tokens)
        logprobs: Tensor = self.plain(input_ids=tokens[None]).logits[0].float().log_softmax(-1)
        picked = logprobs[:-1].gather(-1, tokens[1:, None])[:, 0]
        return picked[torch.tensor(row.mask[1:])]

    @torch.no_grad()
    def our_logprobs(self, rows: Sequence[Row], budget: int) -> Tensor:
        batches = list(pack(rows, budget))
        return torch.cat([forward(self.ours.model, batch, 1.0).logprobs for batch in batches])

    def prompt(self, text: str) -> tuple[int, ...]:
        messages = [{"role": "user", "content": text}]
        rendered = self.ours.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return tuple(self.ours.tokenizer.encode(rendered, add_special_tokens=False))

    def sample(self, requests: Sequence[Request], params: Params) -> list[Any]:
        sampler = LocalSampler(self.ours.model, self.ours.stop, max_rows=4, prefill_tokens=64)
        return asyncio.run(sampler.sample(requests, params))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tiny_model(tmp_path_factory.mktemp("model"), request.param))


def random_row(length: int, generator: torch.Generator, prefix: tuple[int, ...] = (), atom: str = "") -> Row:
    """`length` random tokens after `prefix`; about half of all but the prefix are trained."""
    own = tuple(torch.randint(4, 100, (length,), generator=generator).tolist())
    drawn = [bool(bit) for bit in torch.randint(0, 2, (length,), generator=generator)]
    drawn[-1] = True
    mask = (False,) * len(prefix) + ((False,) if not prefix else (drawn[0],)) + tuple(drawn[1:])
    return Row(tokens=prefix + own, mask=mask, atom=atom or str(length), shared=len(prefix))


def test_a_packed_batch_has_the_logprobs_of_its_sequences_alone(pair: Pair) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = [random_row(length, generator) for length in (2, 3, 7, 8, 9, 16, 31, 40, 40 + WINDOW)]
    expected = pair.plain_logprobs(rows)
    for budget in (1, 60, 1000):
        torch.testing.assert_close(pair.our_logprobs(rows, budget), expected, atol=1e-4, rtol=0)


def test_branches_of_a_shared_prefix_have_the_logprobs_of_whole_sequences(pair: Pair) -> None:
    generator = torch.Generator().manual_seed(2)
    rows: list[Row] = []
    for number, size in enumerate((3, 2 * WINDOW + 1)):  # a prefix inside the window, and one that outgrows it
        prefix = tuple(torch.randint(4, 100, (size,), generator=generator).tolist())
        branches = [random_row(length, generator, prefix, f"atom {number}") for length in (1, 5, 12, 30)]
        rows += [*branches, branches[1]]  # the same branch twice
    expected = pair.plain_logprobs(rows)
    for budget in (1, 1000):
        torch.testing.assert_close(pair.our_logprobs(rows, budget), expected, atol=1e-4, rtol=0)


def test_greedy_answers_are_those_of_generate(pair: Pair) -> None:
    prompts = [pair.prompt(text) for text in ("Hi", ASK, ASK + ASK, "1+1=", "a", "Hi")]
    segments = pair.sample([Request(prompt, (0,)) for prompt in prompts], Params(max_tokens=30, temperature=0.0))
    for prompt, segment in zip(prompts, segments, strict=True):
        generated = pair.plain.generate(
            torch.tensor(prompt)[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=30,
            do_sample=False,
            eos_token_id=sorted(pair.ours.stop),
        )
        assert segment.tokens == tuple(generated[0].tolist())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_sampler_and_the_trainer_give_the_same_logprobs(pair: Pair, temperature: float) -> None:
    prompts = [pair.prompt(text) for text in ("Hi", "Hi", ASK, ASK, ASK, "1+1=")]
    requests = [Request(prompt, (0, index)) for index, prompt in enumerate(prompts)]
    segments = pair.sample(requests, Params(max_tokens=40, temperature=temperature))
    rows = [
        Row(segment.tokens, segment.mask, atom=str(request.prompt), shared=len(request.prompt))
        for request, segment in zip(requests, segments, strict=True)
    ]
    for row, segment in zip(score(pair.ours.model, rows, 200, temperature), segments, strict=True):
        assert segment.sampled > 0
        assert row.old_logprobs == pytest.approx(segment.logprobs, abs=1e-3)


def test_the_samplers_logprobs_are_those_of_the_models_own_forward(pair: Pair) -> None:
    prompts = [pair.prompt(text) for text in ("Hi", "Hi", ASK, "1+1=")]
    for prompt in prompts:
        assert len(prompt) > WINDOW
    segments = pair.sample([Request(prompt, (0, place)) for place, prompt in enumerate(prompts)], Params(40))
    found = torch.cat([torch.tensor(segment.logprobs)[torch.tensor(segment.mask)] for segment in segments])
    rows = [Row(segment.tokens, segment.mask, atom=str(place)) for place, segment in enumerate(segments)]
    torch.testing.assert_close(found, pair.plain_logprobs(rows), atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["llama", "qwen3_moe", "gpt_oss"])
def test_in_bfloat16_sampler_and_trainer_stay_within_two_hundredths_on_average(
    tmp_path: Path, architecture: str
) -> None:
    ours = load(tiny_model(tmp_path, architecture, initializer_range=0.1), torch.bfloat16)
    prompts = [tuple(ours.tokenizer.encode(text)) for text in ("Hi", ASK)]
    requests = [Request(prompt, (0, index)) for index, prompt in enumerate(prompts * 4)]
    segments = asyncio.run(LocalSampler(ours.model, ours.stop).sample(requests, Params(max_tokens=40)))
    rows = [Row(segment.tokens, segment.mask, atom=str(index)) for index, segment in enumerate(segments)]
    gaps = [
        abs(mine - theirs)
        for row, segment in zip(score(ours.model, rows, 200), segments, strict=True)
        for mine, theirs, sampled in zip(row.old_logprobs, segment.logprobs, segment.mask, strict=True)
        if sampled
    ]
    assert sum(gaps) / len(gaps) <= 0.02
