"""Adapters in a model: what they compute, what is merged, what is saved."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from sharpen.config.optim import Optim
from sharpen.errors import ModelError
from sharpen.models import adapters
from sharpen.models.adapter_files import attach_saved, load_adapter, save_adapter
from sharpen.models.load import Loaded, load, save
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler
from sharpen.train.engine import Engine, score
from sharpen.train.losses import CrossEntropy
from sharpen.types import Sequence as Row
from tests.tiny import ARCHITECTURES, tiny_model

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "rsdora": {"use_rslora": True, "use_dora": True},
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
TOKENS = tuple(range(5, 45))


def settings(model: Any, wanted: str | tuple[str, ...] = "all-linear", **changes: Any) -> LoraConfig:
    targets = adapters.target_names(model, wanted)
    return LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=targets, **changes)


def adapted(folder: Path, dtype: torch.dtype = torch.float32, seed: int = 1, **changes: Any) -> Loaded:
    """A tiny model with an adapter that does something: B and the magnitudes are moved off their start."""
    loaded = load(folder if folder.exists() else tiny_model(folder, "qwen2"), dtype)  # qwen2: some layers have biases
    adapters.attach(loaded.model, settings(loaded.model, **changes), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name or "magnitude" in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return loaded


def logprobs(model: Any, temperature: float = 1.0) -> Tensor:
    """Of the tokens of a text, by our packed forward pass."""
    row = Row(TOKENS, (False, *[True] * (len(TOKENS) - 1)), "0")
    (scored,) = score(model, [row], 100, temperature)
    return torch.tensor(scored.old_logprobs)


def plain_logits(model: Any) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([TOKENS])).logits[0]
    return logits


@EACH_KIND
def test_a_new_adapter_changes_nothing_and_freezes_the_base(tmp_path: Path, kind: dict[str, Any]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        loaded = load(tiny_model(tmp_path / str(dtype), "qwen2"), dtype)
        before = logprobs(loaded.model)
        adapters.attach(loaded.model, settings(loaded.model, **kind), 0)
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        torch.testing.assert_close(logprobs(loaded.model), before, atol=tolerance, rtol=0)
        trained = {name for name, parameter in loaded.model.named_parameters() if parameter.requires_grad}
        assert trained and all("lora_" in name for name in trained)


@EACH_KIND
def test_merged_logits_are_the_unmerged_ones_and_those_of_peft(tmp_path: Path, kind: dict[str, Any]) -> None:
    """Three ways to the same numbers: our adapter in place, our merge read by transformers, peft on the base."""
    loaded = adapted(tmp_path / "base", **kind)
    unmerged = logprobs(loaded.model)
    save_adapter(loaded.model, tmp_path / "adapter")
    with adapters.merged(loaded.model):
        save(loaded.model, loaded.tokenizer, tmp_path / "merged", torch.float32)
        inside = logprobs(loaded.model)
    assert torch.equal(logprobs(loaded.model), unmerged), "the adapter is back"
    torch.testing.assert_close(inside, unmerged, atol=1e-4, rtol=0)

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    assert (plain_logits(base).log_softmax(-1)[range(39), TOKENS[1:]] - unmerged[1:]).abs().max() > 0.1
    theirs = plain_logits(PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval())
    ours = plain_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval())
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.log_softmax(-1)[range(39), TOKENS[1:]], unmerged[1:], atol=1e-4, rtol=0)


def test_merging_for_good_leaves_a_plain_model_that_can_be_trained_as_a_whole(tmp_path: Path) -> None:
    loaded = adapted(tmp_path / "base", use_dora=True)
    with adapters.merged(loaded.model):
        expected = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    adapters.merge(loaded.model)
    found = loaded.model.state_dict()
    assert not adapters.attached(loaded.model) and found.keys() == expected.keys()
    assert found.keys() == AutoModelForCausalLM.from_pretrained(tmp_path / "base").state_dict().keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@EACH_KIND
def test_sampler_and_trainer_agree_with_an_adapter_in_place(
    tmp_path: Path, kind: dict[str, Any], architecture: str
) -> None:
    loaded = adapted(tiny_model(tmp_path / "base", architecture), **kind)
    requests = [Request(tuple(range(5, 9 + place % 3)), (7, place)) for place in range(12)]
    for temperature in (1.0, 0.6):
        segments = asyncio.run(LocalSampler(loaded.model, loaded.stop).sample(requests, Params(20, temperature)))
        rows = [Row(segment.tokens, segment.mask, str(place)) for place, segment in enumerate(segments)]
        for row, segment in zip(score(loaded.model, rows, 300, temperature), segments, strict=True):
            assert row.old_logprobs == pytest.approx(segment.logprobs, abs=1e-3)


@pytest.mark.parametrize(
    "kind", [*KINDS.values(), {"wanted": ("q_proj", "up_proj")}, {"wanted": ("down_proj",)}, {"wanted": "attention"}]
)
def test_in_bfloat16_sampler_and_trainer_agree_on_average(tmp_path: Path, kind: dict[str, Any]) -> None:
    """Decoding lays out the weights of the base, and beside them what the adapters add, of some layers or of all."""
    loaded = adapted(tiny_model(tmp_path / "base", initializer_range=0.1), torch.bfloat16, **kind)
    if not kind.get("use_dora"):
        for layer in loaded.model.base_model.layers:  # of a weight that would be missed
            for module in layer.modules():
                if hasattr(module, "lora_B"):
                    module.lora_B["default"].weight.data *= 10
    requests = [Request(tuple(range(5, 9 + place % 3)), (7, place)) for place in range(16)]
    segments = asyncio.run(LocalSampler(loaded.model, loaded.stop).sample(requests, Params(24)))
    rows = [Row(segment.tokens, segment.mask, str(place)) for place, segment in enumerate(segments)]
    gaps = [
        abs(a - b)
        for row, segment in zip(score(loaded.model, rows, 300), segments, strict=True)
        for a, b in zip(row.old_logprobs, segment.logprobs, strict=True)
        if b
    ]
    assert len(gaps) > 150 and sum(gaps) / len(gaps) <= 0.02


@EACH_KIND
def test_the_adapter_is_float32_over_a_bfloat16_base(tmp_path: Path, kind: dict[str, Any]) -> None:
    loaded = adapted(tmp_path / "base", torch.bfloat16, **kind)
    types = {("lora_" in name, parameter.dtype) for name, parameter in loaded.model.named_parameters()}
    assert types == {(True, torch.float32), (False, torch.bfloat16)}


def test_small_updates_of_an_adapter_over_a_bfloat16_base_add_up(tmp_path: Path) -> None:
    """Entries of A near 0.1 have bfloat16 neighbours 5e-4 away: updates of 1e-6 would all round back."""
    loaded = adapted(tmp_path / "base", torch.bfloat16)
    optim = Optim(lr=1e-6, warmup_ratio=0.0, schedule="constant")
    engine = Engine(loaded.model, optim, 100, 100)
    before = [parameter.detach().clone() for parameter in engine.parameters]
    row = Row(TOKENS, (False, *[True] * (len(TOKENS) - 1)), "0")
    for _ in range(20):
        engine.step([row], CrossEntropy())
    moved = [(now.detach() - was).abs().median() for now, was in zip(engine.parameters, before, strict=True)]
    # The gradient hardly changes on so short a way, so AdamW moves by the rate at each step.
    assert all(float(distance) == pytest.approx(20e-6, rel=0.2) for distance in moved)
    lost = [(was + 1e-6).bfloat16() == was.bfloat16() for was in before]
    assert all(part.float().mean() > 0.9 for part in lost), "one update alone is lost in bfloat16"


def test_doras_magnitudes_start_as_the_norms_of_the_rows_unrounded(tmp_path: Path) -> None:
    """Rounded to bfloat16 they would be off by up to 0.4 %, and the new adapter would not be neutral."""
    loaded = load(tiny_model(tmp_path / "base"), torch.bfloat16)
    adapters.attach(loaded.model, settings(loaded.model, use_dora=True), 0)
    layer = loaded.model.model.layers[0].self_attn.q_proj
    expected = layer.base_layer.weight.double().pow(2).sum(1).sqrt()
    torch.testing.assert_close(layer.lora_magnitude_vector["default"].weight.double(), expected, rtol=1e-6, atol=0)


@EACH_KIND
def test_a_saved_adapter_put_back_on_its_base_computes_the_same_bits(tmp_path: Path, kind: dict[str, Any]) -> None:
    loaded = adapted(tmp_path / "base", **kind)
    save_adapter(loaded.model, tmp_path / "one")
    again = load(tmp_path / "base", torch.float32)
    attach_saved(again.model, tmp_path / "one")
    assert torch.equal(logprobs(again.model), logprobs(loaded.model))
    save_adapter(again.model, tmp_path / "two")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert [n for n, p in again.model.named_parameters() if p.requires_grad] == [
        n for n, p in loaded.model.named_parameters() if p.requires_grad
    ]


@EACH_KIND
def test_a_trained_adapter_can_go_back_to_saved_weights(tmp_path: Path, kind: dict[str, Any]) -> None:
    loaded, other = adapted(tmp_path / "base", seed=1, **kind), adapted(tmp_path / "base", seed=2, **kind)
    save_adapter(loaded.model, tmp_path / "saved")
    trained = [parameter for parameter in other.model.parameters() if parameter.requires_grad]
    assert not torch.equal(logprobs(other.model), logprobs(loaded.model))
    load_adapter(other.model, tmp_path / "saved")
    assert torch.equal(logprobs(other.model), logprobs(loaded.model))
    now = [parameter for parameter in other.model.parameters() if parameter.requires_grad]
    assert all(one is same for one, same in zip(trained, now, strict=True)), "an engine still holds them"


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    save_adapter(adapted(tmp_path / "base").model, tmp_path / "adapter")
    smaller = load(tiny_model(tmp_path / "small", "qwen2", num_hidden_layers=1), torch.float32)
    with pytest.raises(ModelError, match="does not fit"):
        attach_saved(smaller.model, tmp_path / "adapter")


def test_the_seed_alone_decides_the_start(tmp_path: Path) -> None:
    def start(seed: int) -> list[Tensor]:
        loaded = adapted(tmp_path / "base", seed=seed)
        return [parameter for name, parameter in loaded.model.named_parameters() if "lora_A" in name]

    torch.manual_seed(5)
    first = start(1)
    expected = torch.get_rng_state()
    assert all(torch.equal(one, other) for one, other in zip(first, start(1), strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(first, start(2), strict=True))
    torch.manual_seed(5)
    load(tmp_path / "base", torch.float32)
    assert torch.equal(torch.get_rng_state(), expected), "nothing else of the process depends on the adapter"


@EACH_KIND
def test_dropout_is_counted_and_only_inside_its_block(tmp_path: Path, kind: dict[str, Any]) -> None:
    loaded = adapted(tmp_path / "base", lora_dropout=0.3, **kind)
    plain = adapted(tmp_path / "base", **kind)
    assert adapters.drops(loaded.model) and not adapters.drops(plain.model)
    still = logprobs(loaded.model)
    assert torch.equal(still, logprobs(plain.model)), "no dropout outside"

    def dropped(seed: int) -> Tensor:
        with adapters.dropping(loaded.model, seed):
            return logprobs(loaded.model)

    assert torch.equal(dropped(3), dropped(3)) and not torch.equal(dropped(3), dropped(4))
    assert not torch.equal(dropped(3), still) and torch.equal(logprobs(loaded.model), still)
    # Inputs kept are scaled up, so that the mean over many draws is near what is computed without.
    mean = torch.stack([dropped(seed) for seed in range(40)]).mean(0)
    assert (mean - still).abs().mean() < (dropped(3) - still).abs().mean()


def test_targets_by_preset_and_by_name(tmp_path: Path) -> None:
    model = load(tiny_model(tmp_path / "base"), torch.float32).model
    attention = ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert adapters.target_names(model, "attention") == attention
    assert adapters.target_names(model, "all-linear") == sorted([*attention, "down_proj", "gate_proj", "up_proj"])
    assert adapters.target_names(model, ("v_proj", "mlp.up_proj")) == ["up_proj", "v_proj"]
    one = "model.layers.1.self_attn.q_proj"
    assert adapters.target_names(model, ("layers.1.self_attn.q_proj",)) == [one], "one layer only: its whole name"
    for wrong in ("lm_head", "embed_tokens", "proj", "c_attn"):
        with pytest.raises(ModelError, match="q_proj, up_proj, v_proj"):
            adapters.target_names(model, (wrong,))


@pytest.mark.parametrize("architecture", ["qwen3_moe", "gpt_oss"])
def test_experts_get_no_adapter_and_say_so_when_named(tmp_path: Path, architecture: str) -> None:
    model = load(tiny_model(tmp_path / "base", architecture), torch.float32).model
    attention = ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert adapters.has_experts(model)
    assert adapters.target_names(model, "all-linear") == adapters.target_names(model, "attention") == attention
    for name in ("gate_up_proj", "experts", "router", "gate"):
        with pytest.raises(ModelError, match=r"q_proj, v_proj \(its experts cannot get one\)"):
            adapters.target_names(model, (name,))
    adapters.attach(model, settings(model), 0)
    trained = {name.split(".lora_")[0] for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name.rpartition(".")[2] for name in trained} == set(attention)


def test_a_model_without_linear_layers_is_told_so(tmp_path: Path) -> None:
    """GPT-2's are transposed, and of a class of their own."""
    loaded = load(tiny_model(tmp_path / "base", "gpt2"), torch.float32)
    assert not loaded.notice
    with pytest.raises(ModelError, match="no linear layers that could get an adapter"):
        adapters.target_names(loaded.model, "all-linear")


def test_the_trainable_share_by_hand(tmp_path: Path) -> None:
    loaded = load(tiny_model(tmp_path / "base"), torch.float32)
    before = adapters.trainable(loaded.model)[1]
    adapters.attach(loaded.model, settings(loaded.model, "attention"), 0)
    # Two layers; hidden size 32, key-value size 16; rank 4: A is (4, in), B is (out, 4).
    expected = 2 * 4 * ((32 + 32) * 2 + (32 + 16) * 2)
    assert adapters.trainable(loaded.model) == (expected, before + expected)
