"""The compiled loops of a decoding step, against torch's passes; and what they may not change."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from sharpen.models import fused, passes
from sharpen.models.attention import Packed, Span, layout
from sharpen.models.load import load
from sharpen.models.passes import normed, rotated
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler
from sharpen.train.engine import score
from sharpen.types import Sequence as Row
from tests.tiny import tiny_model

pytest.importorskip("numba")
from sharpen.models import kernels

if not kernels.ready(2, 8):
    pytest.skip("torch's threads are not to be found here", allow_module_level=True)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("width", [32, 50])
def test_the_norm_adds_in_place_and_rounds_as_torch_does(rows: int, width: int) -> None:
    stream, added, weight = numbers(rows, width), numbers(rows, width, seed=1).bfloat16(), numbers(width, seed=2)
    epsilon = torch.tensor([1e-3])
    for more in (None, added):
        total = stream if more is None else stream + more
        expected = normed(total, weight, 1e-3, torch.bfloat16)[0]
        found = kernels.add_norm(stream, more, weight, epsilon)
        assert torch.equal(stream, total)
        assert (found != expected).float().mean() < 0.02  # sums are taken in another order
        torch.testing.assert_close(found, expected, atol=0, rtol=2**-7)


def test_the_gate_rounds_as_torch_does_for_every_size_of_number() -> None:
    made = (numbers(64, 600) * torch.logspace(-6, 2, 64)[:, None]).bfloat16()
    made[0, :4] = torch.tensor([0.0, 200.0, -200.0, -0.0])
    gate, up = made.chunk(2, -1)
    expected = torch.nn.functional.silu(gate) * up
    differ = kernels.gate(made) != expected
    assert differ.float().mean() < 0.01  # where exp over- or underflows
    torch.testing.assert_close(kernels.gate(made), expected, atol=1e-30, rtol=2**-7)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_attention_writes_its_keys_and_sees_what_it_may(window: int | None, threads: int) -> None:
    heads, shared, size, places = 6, 3, 8, torch.tensor([0, 4, 9])
    made = numbers(3, (heads + 2 * shared) * size).bfloat16()
    cos, sin = numbers(3, size // 2, seed=1), numbers(3, size // 2, seed=2)
    keys, values = numbers(4, shared, 10, size, seed=3), numbers(4, shared, 10, size, seed=4)
    split = made.float().unflatten(-1, (-1, size))
    turned = rotated(split[:, : heads + shared], cos[:, None], sin[:, None])
    held, seen = keys.clone(), values.clone()
    held[torch.arange(3), :, places], seen[torch.arange(3), :, places] = turned[:, heads:], split[:, heads + shared :]
    before, scale = torch.get_num_threads(), torch.tensor([0.4])
    try:
        torch.set_num_threads(threads)
        found = kernels.attend(made, cos, sin, keys, values, places, scale, window)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(keys, held, atol=1e-6, rtol=0)
    torch.testing.assert_close(values, seen, atol=0, rtol=0)
    for row, place in enumerate(places.tolist()):
        first = max(0, place - window + 1) if window else 0
        for head in range(heads):
            own = head // (heads // shared)
            weights = (0.4 * held[row, own, first : place + 1] @ turned[row, head]).softmax(-1)
            expected = weights @ seen[row, own, first : place + 1]
            torch.testing.assert_close(found[row].view(heads, size)[head].float(), expected, atol=5e-3, rtol=2**-7)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("rows", "width"), [(1, 8), (75, 24)])
def test_the_norms_gradients_are_those_of_the_formula(rows: int, width: int, threads: int) -> None:
    inputs, weight = numbers(rows, width, seed=1), 1 + 0.3 * numbers(width, seed=2)
    slope = numbers(rows, width, seed=3).bfloat16()
    wide, own = inputs.double().requires_grad_(), weight.double().requires_grad_()
    output = own * wide / (wide.square().mean(-1, keepdim=True) + 0.1).sqrt()
    expected = torch.autograd.grad((output * slope.double()).sum(), (wide, own))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = kernels.norm_back(inputs, weight, torch.tensor([0.1]), slope)
    finally:
        torch.set_num_threads(before)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-5)


def test_the_gates_gradients_are_those_of_the_formula() -> None:
    made, slope = (3 * numbers(5, 40)).bfloat16(), numbers(5, 20, seed=3).bfloat16()
    wide = made.double().requires_grad_()
    gate, up = wide.chunk(2, -1)
    (expected,) = torch.autograd.grad((gate * gate.sigmoid() * up * slope.double()).sum(), wide)
    torch.testing.assert_close(kernels.gate_back(made, slope).double(), expected, atol=1e-3, rtol=2**-8)


@pytest.mark.parametrize("threads", [1, 2])
def test_accumulated_numbers_are_their_sum_unrounded(threads: int) -> None:
    total, added = numbers(7, 33), numbers(7, 33, seed=1).bfloat16()
    expected = total + added.float()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        kernels.accumulate(total, added)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(total, expected)


def test_training_with_the_loops_has_the_gradients_of_training_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny_model(tmp_path, initializer_range=0.1), torch.bfloat16).model
    tokens = torch.arange(5, 95)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        with layout(Packed([Span(0, 90)])):
            found = fused.hidden(model, tokens, torch.arange(90))
        (found * numbers(*found.shape, seed=4)).sum().backward()
        return {
            name: parameter.grad.float() for name, parameter in model.named_parameters() if parameter.grad is not None
        }

    assert passes.loops()
    ours = gradients()
    monkeypatch.setattr(passes, "loops", lambda: None)
    for name, theirs in gradients().items():
        assert (ours[name] - theirs).norm() <= 0.03 * theirs.norm(), name


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral"])
def test_a_sampler_with_the_loops_gives_the_trainers_logprobs_and_mostly_the_text_of_one_without(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(tiny_model(tmp_path, architecture, initializer_range=0.1), torch.bfloat16)
    decoder = fused.adopted(loaded.model)
    assert decoder
    decoder.pack()
    assert decoder.quick, "these architectures decode through the loops"
    decoder.unpack()
    requests = [Request(tuple(range(5, 5 + size)), (3, size)) for size in (1, 4, 9, 9, 20)]

    def sampled() -> list[tuple[int, ...]]:
        segments = asyncio.run(LocalSampler(loaded.model, frozenset(), max_rows=3).sample(requests, Params(30)))
        rows = [Row(segment.tokens, segment.mask, str(place)) for place, segment in enumerate(segments)]
        gaps = [
            abs(mine - theirs)
            for row, segment in zip(score(loaded.model, rows, 300), segments, strict=True)
            for mine, theirs in zip(row.old_logprobs, segment.logprobs, strict=True)
            if theirs
        ]
        assert len(gaps) == 150 and sum(gaps) / len(gaps) <= 0.02
        return [segment.tokens for segment in segments]

    with_loops = sampled()
    assert with_loops == sampled(), "the same bits again"
    monkeypatch.setattr("sharpen.models.quick.kernels.ready", lambda group, size: False)
    without = sampled()
    assert [one[:25] for one in with_loops[:2]] == [one[:25] for one in without[:2]] or with_loops == without
