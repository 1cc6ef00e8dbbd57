"""Weights in 4 bits: what they stand for, what is computed with them, and what they take."""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from sharpen.errors import ConfigError
from sharpen.models import adapters
from sharpen.models.adapter_files import attach_saved, save_adapter
from sharpen.models.fits import FOUR_BITS
from sharpen.models.load import Loaded, load, save
from sharpen.models.quantized import FourBits, Quantized, product, quantize, quantized_layers
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler
from sharpen.train.backward import Backward, Errand
from sharpen.train.engine import score
from sharpen.train.losses import CrossEntropy
from sharpen.types import Sequence as Row
from tests.tiny import ARCHITECTURES, tiny_model

HOW = [FourBits(kind, double) for kind in ("nf4", "fp4") for double in (True, False)]
TOKENS = tuple(range(5, 45))
BLOCKS: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
"""Rows of whole blocks, which bitsandbytes' own layers need to be right."""

FP4 = [0.0, 0.0625 / 12, 2 / 12, 3 / 12, 4 / 12, 6 / 12, 8 / 12, 1.0]
"""Of one sign: two bits of exponent and one of mantissa, over the largest."""


def codes(kind: str) -> Tensor:
    """The values of 4 bits. NF4's are quantiles of a normal distribution, 8 on one side and 7 on the other, and 0
    (arXiv:2305.14314, section 3)."""
    if kind == "fp4":
        return torch.tensor([*FP4, *(-value for value in FP4)])
    most = 0.9677083
    quantiles = [torch.special.ndtri(torch.linspace(most, 0.5, count + 1)[:-1]) for count in (8, 7)]
    values: Tensor = torch.cat([quantiles[0], -quantiles[1], torch.zeros(1)]) / quantiles[0].max()
    return values


def row() -> Row:
    return Row(TOKENS, (False, *[True] * (len(TOKENS) - 1)), "0")


def logprobs(model: Any) -> Tensor:
    return torch.tensor(score(model, [row()], 100)[0].old_logprobs)


def qlora(folder: Path, dtype: torch.dtype = torch.float32, how: FourBits = HOW[0], **changes: Any) -> Loaded:
    """A tiny model in 4 bits, with an adapter that does something."""
    loaded = load(folder, dtype)
    targets = adapters.target_names(loaded.model, changes.pop("wanted", "all-linear"))
    settings = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=targets, **changes)
    adapters.attach(loaded.model, settings, 1, how)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name or "magnitude" in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return loaded


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(128, 64), (64, 32), (24, 33), (7, 3)])
def test_the_weight_is_the_nearest_of_sixteen_values_times_the_largest_of_its_block(
    how: FourBits, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    """Whatever the shape: bitsandbytes' own layers go wrong where rows are no whole number of blocks."""
    layer = nn.Linear(shape[1], shape[0], bias=False).to(dtype)
    weight = layer.weight.detach().float().reshape(-1)
    found = Quantized(layer, how).weight
    assert found.shape == shape and found.dtype == dtype
    for block, got in zip(weight.split(64), found.float().reshape(-1).split(64), strict=True):
        scale = block.abs().max()
        nearest = (block[:, None] / scale - codes(how.kind)).abs().amin(1)
        slack = 0.02 if how.double else 0.003  # scales in 8 bits; bfloat16, and ties
        assert ((got - block).abs() / scale <= nearest + slack).all()
        held = (got[:, None] / (got.abs().max() if how.kind == "nf4" else scale) - codes(how.kind)).abs().amin(1)
        assert held.max() < 0.02, "nothing but the sixteen values"


@pytest.mark.parametrize("how", HOW, ids=str)
def test_the_weight_is_what_bitsandbytes_makes_of_it(how: FourBits) -> None:
    layer = nn.Linear(64, 48)
    packed, state = quantize_4bit(
        layer.weight.detach(), blocksize=64, compress_statistics=how.double, quant_type=how.kind
    )
    assert torch.equal(Quantized(layer, how).weight, dequantize_4bit(packed, state))


def test_products_and_gradients_are_those_of_the_dense_weight() -> None:
    layers = [Quantized(nn.Linear(32, out, bias=bias), HOW[0]) for out, bias in ((24, True), (8, False))]
    inputs = torch.randn(5, 32, requires_grad=True)
    dense = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layers[0].bias.detach(), torch.zeros(8)])
    found = product(inputs, layers)
    torch.testing.assert_close(found, inputs @ dense.T + bias)
    towards = torch.randn_like(found)
    (gradient,) = torch.autograd.grad(found, inputs, towards)
    torch.testing.assert_close(gradient, towards @ dense)
    torch.testing.assert_close(layers[0](inputs), inputs @ layers[0].weight.T + layers[0].bias)


def test_the_dense_weights_are_gone_and_half_a_byte_a_number_is_left(tmp_path: Path) -> None:
    """As the paper counts: 4 bits, 8 for the scale of 64 numbers, 32 for that of 256 scales."""
    weight = torch.randn(1024, 1024)

    def held(how: FourBits) -> int:
        layer = nn.Linear(1024, 1024, bias=False)
        layer.weight.data = weight
        return Quantized(layer, how).held_bytes

    tables = 4 * (16 + 256)  # what the codes stand for; the same for any size
    numbers = 1024**2
    double, single = held(FourBits("nf4", double=True)) - tables, held(FourBits("nf4", double=False)) - 4 * 16
    assert double == numbers / 2 + numbers / 64 + 4 * numbers / 64 / 256 == pytest.approx(FOUR_BITS * numbers, rel=1e-3)
    assert single == numbers / 2 + 4 * numbers / 64

    loaded = load(tiny_model(tmp_path / "base", **BLOCKS), torch.float32)
    linear = [m for n, m in loaded.model.named_modules() if type(m) is nn.Linear and n != "lm_head"]
    storages = {layer.weight.untyped_storage().data_ptr() for layer in linear}
    dense = sum(layer.weight.numel() for layer in linear)
    del linear
    quantize(loaded.model, HOW[0])
    left = [p for p in loaded.model.parameters() if p.untyped_storage().data_ptr() in storages]
    assert not left and len(list(quantized_layers(loaded.model))) == 14
    assert sum(layer.held_bytes - tables for _, layer in quantized_layers(loaded.model)) < 0.55 * dense
    assert type(loaded.model.lm_head) is nn.Linear


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_logits_and_gradients_are_those_of_pefts_own_qlora(tmp_path: Path, dora: bool) -> None:
    folder = tiny_model(tmp_path / "base", "qwen2", **BLOCKS)
    ours = qlora(folder, use_dora=dora).model
    save_adapter(ours, tmp_path / "adapter")
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    base = AutoModelForCausalLM.from_pretrained(folder, quantization_config=four, dtype=torch.float32)
    theirs: Any = PeftModel.from_pretrained(base, str(tmp_path / "adapter"), is_trainable=True).train()
    assert type(theirs.base_model.model.model.layers[0].mlp.up_proj.base_layer).__name__ == "Linear4bit"
    tokens = torch.tensor([TOKENS])
    expected = theirs(tokens).logits[0].log_softmax(-1)[range(39), TOKENS[1:]]
    torch.testing.assert_close(logprobs(ours)[1:], expected, atol=1e-4, rtol=0)

    expected.mean().neg().backward()
    backward = Backward(ours)
    backward.run(Errand([row()], CrossEntropy(), 1.0, 39.0, 100, ()))
    names = [name for name, parameter in ours.named_parameters() if parameter.requires_grad]
    found = dict(zip(names, backward.take(), strict=True))
    wanted = {n.removeprefix("base_model.model."): p.grad for n, p in theirs.named_parameters() if p.requires_grad}
    assert found.keys() == wanted.keys() and len(found) == 14 * (3 if dora else 2)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_sampler_and_trainer_agree(tmp_path: Path, architecture: str, dora: bool) -> None:
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.bfloat16, 0.25)):
        loaded = qlora(tiny_model(tmp_path / str(dtype), architecture, initializer_range=0.1), dtype, use_dora=dora)
        requests = [Request(tuple(range(5, 9 + place % 3)), (7, place)) for place in range(8)]
        segments = asyncio.run(LocalSampler(loaded.model, loaded.stop).sample(requests, Params(16)))
        rows = [Row(segment.tokens, segment.mask, str(place)) for place, segment in enumerate(segments)]
        gaps = [
            abs(one - other)
            for scored, segment in zip(score(loaded.model, rows, 300), segments, strict=True)
            for one, other in zip(scored.old_logprobs, segment.logprobs, strict=True)
        ]
        assert max(gaps) < tolerance and sum(gaps) / len(gaps) < tolerance / 10


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("wanted", ["all-linear", "attention"])
def test_merged_it_is_a_plain_dense_model_that_computes_the_same(tmp_path: Path, dora: bool, wanted: str) -> None:
    folder = tiny_model(tmp_path / "base", "qwen2")
    loaded = qlora(folder, use_dora=dora, wanted=wanted)
    before = logprobs(loaded.model)
    assert (before - logprobs(load(folder, torch.float32).model)).abs().max() > 0.01, "4 bits are not what it was"
    with adapters.merged(loaded.model):
        save(loaded.model, loaded.tokenizer, tmp_path / "merged", torch.float32)
    assert torch.equal(logprobs(loaded.model), before) and list(quantized_layers(loaded.model))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        logits = plain(torch.tensor([TOKENS])).logits[0]
    torch.testing.assert_close(logits.log_softmax(-1)[range(39), TOKENS[1:]], before[1:], atol=1e-4, rtol=0)
    adapters.merge(loaded.model)
    assert not list(quantized_layers(loaded.model)) and loaded.model.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(logprobs(loaded.model), before, atol=1e-4, rtol=0)
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())


def test_a_saved_adapter_put_back_over_four_bits_computes_the_same_bits(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "base")
    loaded = qlora(folder, use_dora=True)
    save_adapter(loaded.model, tmp_path / "adapter")
    again = load(folder, torch.float32)
    attach_saved(again.model, tmp_path / "adapter", HOW[0])
    assert torch.equal(logprobs(again.model), logprobs(loaded.model))


def test_other_ranks_get_the_same_bits_and_can_merge_them(tmp_path: Path) -> None:
    """The leader hands the model out pickled."""
    loaded = qlora(tiny_model(tmp_path / "base"))
    sent = pickle.loads(pickle.dumps(loaded.model))
    assert torch.equal(logprobs(sent), logprobs(loaded.model))
    for model in (sent, loaded.model):
        adapters.merge(model)
    assert torch.equal(logprobs(sent), logprobs(loaded.model))


def test_doras_magnitudes_are_the_norms_of_what_the_four_bits_stand_for(tmp_path: Path) -> None:
    loaded = load(tiny_model(tmp_path / "base"), torch.float32)
    targets = adapters.target_names(loaded.model, "all-linear")
    settings = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets, use_dora=True)
    dense = loaded.model.model.layers[0].self_attn.q_proj.weight.norm(dim=1).detach()
    adapters.attach(loaded.model, settings, 0, HOW[0])
    layer = loaded.model.model.layers[0].self_attn.q_proj
    magnitudes = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(magnitudes, layer.base_layer.weight.norm(dim=1))
    assert (magnitudes - dense).abs().max() > 1e-3


def test_numbers_in_four_bits_are_counted(tmp_path: Path) -> None:
    loaded = load(tiny_model(tmp_path / "base"), torch.float32)
    before = adapters.trainable(loaded.model)[1]
    quantize(loaded.model, HOW[0])
    assert adapters.trainable(loaded.model)[1] == before


def test_without_bitsandbytes_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(ConfigError, match=r"adapter.type.*bitsandbytes.*sharpen\[8bit\]"):
        Quantized(nn.Linear(4, 4), HOW[0])
