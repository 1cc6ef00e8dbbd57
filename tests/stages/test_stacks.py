"""Weights in 4 bits and stacks of adapters through whole runs: what is published, resumed, and refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from sharpen.errors import ConfigError, ModelError
from sharpen.models.load import load
from sharpen.runs.store import read_lines
from sharpen.stages import adapting, pipeline
from sharpen.train import checkpoint
from tests.runs.lab import World, bits, differences, events
from tests.stages.test_adapters import LORA, QUICK, STACKED, equal, logits, weights

pytestmark = pytest.mark.usefixtures("here")

QLORA: dict[str, Any] = {**LORA, "type": "qlora"}


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_qlora_learns_and_leaves_a_dense_model_of_what_was_trained(world: World, tmp_path: Path, dora: bool) -> None:
    """SFT, and RFT that continues: the published weights are those the 4 bits stand for, and the adapter's."""
    adapter = {**QLORA, "dora": dora}
    stages = (
        world.sft_stage(epochs=10, adapter=adapter, optim=QUICK),
        world.rft_stage(adapter="continue", optim=QUICK),
    )
    pipeline.run(world.recipe(*stages), tmp_path / "run", base=world.folder)
    lines = read_lines(tmp_path / "run/metrics.jsonl")
    losses = [line["loss"] for line in lines if line["type"] == "sft"]
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    rft = [line for line in lines if line["type"] == "rft"]
    assert rft[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert all(line["logprob_gap"]["max"] < 1e-3 for line in rft if line["logprob_gap"]["max"] is not None)
    start = weights(Path(world.model))
    for name in ("sft", "rft"):
        found, adapter = weights(tmp_path / "run/models" / name), deltas(tmp_path / "run/models" / name / "adapter")
        for key in (key for key in start if "_proj" in key):
            packed, state = quantize_4bit(start[key].reshape(-1), compress_statistics=True, quant_type="nf4")
            expected = dequantize_4bit(packed, state).view_as(start[key]) + adapter[key]
            if dora:
                magnitude = load_file(tmp_path / "run/models" / name / "adapter/adapter_model.safetensors")[
                    f"base_model.model.{key.removesuffix('.weight')}.lora_magnitude_vector"
                ]
                expected *= (magnitude / expected.norm(dim=1))[:, None]
            torch.testing.assert_close(found[key], expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(found["model.embed_tokens.weight"], start["model.embed_tokens.weight"])
    said = [event["message"] for event in events(tmp_path / "run", "trains")]
    kind = "DoRA" if dora else "LoRA"
    assert said[0].startswith(f"{kind} rank 4 on all linear layers, over weights in 4 bits (nf4, scales in 8 bits): ")


def deltas(folder: Path) -> dict[str, Tensor]:
    """s·B·A of an adapter in PEFT's format, under the names of the model's weights."""
    config, stored = (
        json.loads((folder / "adapter_config.json").read_text()),
        load_file(folder / "adapter_model.safetensors"),
    )
    return {
        key.removeprefix("base_model.model.").replace(".lora_A.", "."): config["lora_alpha"]
        / config["r"]
        * (stored[key.replace("lora_A", "lora_B")] @ stored[key])
        for key in stored
        if "lora_A" in key
    }


@pytest.mark.parametrize("lower", [LORA, {**LORA, "targets": ["q_proj", "up_proj"], "rslora": True}, QLORA])
def test_a_stack_is_the_base_and_both_adapters_and_plain_peft_puts_it_together(
    world: World, tmp_path: Path, lower: dict[str, Any]
) -> None:
    """The lower one stays as it was, to the bit; a third lies on both, and continuing trains the topmost alone."""
    narrow = {**STACKED, "targets": ["q_proj", "v_proj"], "dropout": 0.1}
    stages = [
        world.sft_stage(name="one", adapter=lower, optim=QUICK),
        world.rft_stage(name="two", adapter=STACKED, optim=QUICK),
        world.sft_stage(name="three", adapter="continue", optim=QUICK),
        world.sft_stage(name="four", adapter=narrow, optim=QUICK),
    ]
    pipeline.run(world.recipe(*stages), tmp_path / "run", base=world.folder)
    folders = {name: tmp_path / "run/models" / name for name in ("one", "two", "three", "four")}
    start = weights(Path(world.model))
    if lower["type"] == "qlora":
        for key in (key for key in start if "_proj" in key):
            packed, state = quantize_4bit(start[key].reshape(-1), compress_statistics=True, quant_type="nf4")
            start[key] = dequantize_4bit(packed, state).view_as(start[key])
    parts = {name: deltas(folder / ("adapter" if name == "one" else "top")) for name, folder in folders.items()}
    if lower.get("rslora"):
        parts["one"] = {key: delta * 2 for key, delta in parts["one"].items()}  # 16 / √4, not 16 / 4
    for name, below in {"two": ["one"], "three": ["one"], "four": ["one", "three"]}.items():
        found, adapter = weights(folders[name]), load_file(folders[name] / "adapter/adapter_model.safetensors")
        for key in (key for key in start if "_proj" in key):
            together = sum(parts[part].get(key, torch.zeros(())) for part in [*below, name])
            torch.testing.assert_close(found[key], start[key] + together, atol=1e-5, rtol=1e-5)
        under = load_file(folders[below[-1]] / "adapter/adapter_model.safetensors")
        assert all(torch.equal(adapter[key][: len(under[key])], under[key]) for key in under if "lora_A" in key)
        assert max(float(delta.abs().max()) for delta in parts[name].values()) > 0.01
        config = json.loads((folders[name] / "adapter/adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == world.model
        assert config["r"] == config["lora_alpha"] == 4 + 2 * len(below)

    base = AutoModelForCausalLM.from_pretrained(world.model).eval()
    base.load_state_dict(start, strict=False)  # where it was quantised: what the 4 bits stand for
    both = PeftModel.from_pretrained(base, str(folders["four"] / "adapter")).eval()
    merged = AutoModelForCausalLM.from_pretrained(folders["four"]).eval()
    torch.testing.assert_close(logits(both), logits(merged), atol=1e-4, rtol=0)
    said = [event["message"] for event in events(tmp_path / "run", "trains")]
    assert ", stacked on that of one: " in said[1] and ", stacked on that of one, continued from two: " in said[2]
    assert all(("4 bits" in line) == (lower["type"] == "qlora") for line in said)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
def test_stacks_and_four_bits_resume_to_the_same_bits(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Stopped within every stage, after its first checkpoint."""
    validation = {"validation": world.sft_validation, "final": "best", "eval_every": 2}
    stages = [
        world.sft_stage(name="one", adapter={**QLORA, "dropout": 0.2}, **validation),
        world.rft_stage(name="two", adapter={**STACKED, "dropout": 0.2}, steps=3),
        world.sft_stage(name="three", adapter="continue", **validation),
        world.sft_stage(name="four", adapter={**QLORA, "dora": True}),
    ][:count]
    recipe = world.recipe(*stages, dtype="bfloat16")
    pipeline.run(recipe, tmp_path / "whole", base=world.folder)
    original = checkpoint.write

    def stop(folder: Path, step: int, *rest: Any) -> Any:
        written = original(folder, step, *rest)
        if step == 2:
            raise RuntimeError("killed")
        return written

    run = tmp_path / "broken"
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write", stop)
        with pytest.raises(RuntimeError, match="killed"):
            pipeline.run(recipe, run, base=world.folder)
        for _ in stages[1:]:
            with pytest.raises(RuntimeError, match="killed"):
                pipeline.resume(run)
    pipeline.resume(run)
    assert not differences(bits(run), bits(tmp_path / "whole"))
    names = {event["stage"] for event in events(run, "best_taken")}
    assert names == {"one", "three"} & {stage["name"] for stage in stages}


@pytest.mark.parametrize("kind", ["qlora", "stacked"])
def test_the_best_adapter_is_taken_back(world: World, tmp_path: Path, kind: str) -> None:
    """At a rate that ruins the model, the last look is not the best."""
    below = [world.sft_stage(name="one", adapter=LORA)] if kind == "stacked" else []
    ruinous = {"lr": 0.5, "warmup_ratio": 0.0, "schedule": "constant"}
    stage = world.sft_stage(
        adapter=STACKED if below else QLORA, optim=ruinous, final="best", eval_every=1, validation=world.sft_validation
    )
    pipeline.run(world.recipe(*below, stage), tmp_path / "run", base=world.folder)
    (taken,) = events(tmp_path / "run", "best_taken")
    assert taken["step"] < 6, "else nothing is shown"
    found, best = (
        weights(tmp_path / "run" / folder) for folder in ("models/sft", f"stages/0{len(below) + 1}-sft/best")
    )
    assert equal(found, best)


def test_an_adapter_that_was_made_for_another_base_is_refused(world: World, tmp_path: Path) -> None:
    run, first = tmp_path / "run", world.sft_stage(name="one", adapter=LORA)
    pipeline.run(world.recipe(first), run, base=world.folder)
    folder = run / "models/one/adapter"
    said, tensors = (folder / "adapter_config.json").read_text(), load_file(folder / "adapter_model.safetensors")
    wider = {key: torch.cat([part, part], 1) if "lora_A" in key else part for key, part in tensors.items()}
    for adapter in (STACKED, "continue"):
        recipe = world.recipe(first, world.sft_stage(name="two", adapter=adapter))

        def again() -> None:
            adapting.prepare(recipe, 1, load(str(run / "models/one"), torch.float32), run)  # noqa: B023

        (folder / "adapter_config.json").write_text(said.replace(world.model, "another/model"))
        with pytest.raises(ModelError, match=r"made for another base, another/model.*models/one/adapter"):
            again()
        (folder / "adapter_config.json").write_text(said)
        save_file(wider, folder / "adapter_model.safetensors")
        with pytest.raises(ModelError, match="the adapter does not fit the model"):
            again()
        save_file(tensors, folder / "adapter_model.safetensors")
        again()


def test_without_bitsandbytes_a_run_in_4_bits_does_not_even_begin(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    recipe = world.recipe(world.sft_stage(), world.sft_stage(name="later", adapter="qlora"))
    with pytest.raises(ConfigError, match=r"adapter.type.*needs? bitsandbytes"):
        pipeline.run(recipe, tmp_path / "run", base=world.folder)
    assert not (tmp_path / "run").exists()
