"""Adapters through whole runs: they learn, chain, are saved apart, and the base stays as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import sharpen as sh
from sharpen.config.load import parse
from sharpen.errors import ConfigError, ModelError
from sharpen.models import adapters
from sharpen.models.load import Loaded, load
from sharpen.runs.store import read_lines
from sharpen.stages import adapting, pipeline
from sharpen.stages.evaluate import evaluate
from sharpen.stages.work import Work
from sharpen.train import checkpoint
from tests.runs.lab import World, bits, differences, events

pytestmark = pytest.mark.usefixtures("here")

LORA: dict[str, Any] = {"type": "lora", "rank": 4, "alpha": 16}
QLORA: dict[str, Any] = {**LORA, "type": "qlora"}
STACKED: dict[str, Any] = {"type": "lora", "rank": 2, "alpha": 5, "stack": True}
KINDS = pytest.mark.parametrize("kind", [LORA, {**LORA, "dora": True}], ids=["lora", "dora"])
QUICK: dict[str, Any] = {"lr": 0.02, "warmup_ratio": 0.0, "schedule": "constant"}


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.arange(5, 30)[None]).logits
    return found


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sft_learns_with_an_adapter_and_leaves_the_base_alone(
    world: World, tmp_path: Path, kind: dict[str, Any], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: list[tuple[Tensor, Tensor]] = []
    original = adapters.attach

    def attach(model: Any, *rest: Any) -> None:
        original(model, *rest)
        frozen.extend((p.data, p.detach().clone()) for p in model.parameters() if not p.requires_grad)

    monkeypatch.setattr(adapters, "attach", attach)
    stage = world.sft_stage(epochs=10, adapter=kind, optim=QUICK)
    pipeline.run(world.recipe(stage, dtype=dtype), tmp_path / "run", base=world.folder)
    losses = [line["loss"] for line in read_lines(tmp_path / "run/metrics.jsonl")]
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])
    assert len(frozen) > 5 and all(torch.equal(now, before) for now, before in frozen)


@KINDS
def test_rft_learns_with_an_adapter(world: World, tmp_path: Path, kind: dict[str, Any]) -> None:
    """The reward is the share of lower-case letters, which a random model makes too few of."""
    stage = world.rft_stage(steps=25, group_size=8, prompts_per_step=4, adapter=kind, optim=QUICK)
    pipeline.run(world.recipe(stage), tmp_path / "run", base=world.folder)
    lines = read_lines(tmp_path / "run/metrics.jsonl")
    rewards = [line["reward"]["mean"] for line in lines]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-6) and lines[-1]["kl"] > 0.01
    assert all(line["logprob_gap"]["max"] < 1e-3 for line in lines if line["logprob_gap"]["max"] is not None)


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_saved_is_plain_transformers_and_plain_peft(
    world: World, tmp_path: Path, kind: dict[str, Any], dtype: str
) -> None:
    stages = world.sft_stage(adapter=kind, optim=QUICK), world.rft_stage(adapter="continue", optim=QUICK)
    pipeline.run(world.recipe(*stages, dtype=dtype), tmp_path / "run", base=world.folder)
    for name in ("sft", "rft"):
        folder = tmp_path / "run/models" / name
        merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        base = AutoModelForCausalLM.from_pretrained(world.model).eval()
        before = logits(base)
        both = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
        tolerance = 1e-4 if dtype == "float32" else 0.3  # the base and the merged weights are rounded
        torch.testing.assert_close(logits(both), logits(merged), atol=tolerance, rtol=0)
        assert (logits(merged) - before).abs().max() > 1
    run = sh.open_run(tmp_path / "run")
    assert len(run.generate(["say 1"], max_tokens=4)) == 1


def test_a_checkpoint_holds_the_adapter_and_not_the_base(world: World, tmp_path: Path) -> None:
    pipeline.run(world.recipe(world.sft_stage(adapter=LORA)), tmp_path / "run", base=world.folder)
    (*_, newest) = sorted((tmp_path / "run/stages/01-sft/checkpoints").iterdir())
    names = {path.name for path in newest.iterdir()}
    assert names == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "trainer.safetensors",
        "state.json",
        "manifest.json",
    }
    stored = load_file(newest / "adapter_model.safetensors")
    trained = sum(tensor.numel() for tensor in stored.values())
    # Adapter, masters and two moments: each a float32 for each number that is trained.
    held = sum(t.numel() for t in [*stored.values(), *load_file(newest / "trainer.safetensors").values()])
    assert held < 4 * trained + 100


def test_the_trained_share_is_told(world: World, tmp_path: Path) -> None:
    stages = (
        world.sft_stage(adapter=LORA),
        world.sft_stage(name="more", adapter="continue"),
        world.sft_stage(name="all"),
    )
    pipeline.run(world.recipe(*stages), tmp_path / "run", base=world.folder)
    # One layer; hidden 32, key-value 16, MLP 64: A is (4, in), B is (out, 4).
    trained = 4 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))
    whole = sum(tensor.numel() for tensor in weights(Path(world.model)).values())
    share = f"{trained / 1000:.3g} k of {(whole + trained) / 1000:.3g} k parameters"
    percent = f"({100 * trained / (whole + trained):.2g} %)"
    assert [event["message"] for event in events(tmp_path / "run", "trains")] == [
        f"LoRA rank 4 on all linear layers: {share} {percent}",
        f"LoRA rank 4 on all linear layers, continued from sft: {share} {percent}",
        f"all {whole / 1000:.3g} k parameters",
    ]


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


def test_continuing_trains_one_adapter_and_a_new_one_starts_on_the_merged_weights(world: World, tmp_path: Path) -> None:
    first = world.sft_stage(name="first", adapter=LORA, optim=QUICK)
    idle = {"lr": 1e-12}  # nothing moves: what comes out is what went in
    stages = [
        first,
        world.sft_stage(name="same", adapter="continue", optim=idle),
        world.sft_stage(name="new", adapter=LORA, optim=idle),
        world.sft_stage(name="full", adapter="none", optim=idle),
    ]
    pipeline.run(world.recipe(*stages), tmp_path / "run", base=world.folder)
    folders = {name: tmp_path / "run/models" / name for name in ("first", "same", "new", "full")}
    one, same, new = (load_file(folders[n] / "adapter/adapter_model.safetensors") for n in ("first", "same", "new"))
    assert all((one[name] - same[name]).abs().max() < 1e-7 for name in one)
    assert all(tensor.abs().max() < 1e-7 for name, tensor in new.items() if "lora_B" in name)
    start = weights(Path(world.model))
    found = {name: weights(folder) for name, folder in folders.items()}
    assert max(float((found["first"][n] - start[n]).abs().max()) for n in start) > 0.01
    for name in ("same", "new", "full"):
        assert all((found[name][n] - found["first"][n]).abs().max() < 1e-6 for n in start), name
    assert not (folders["full"] / "adapter").exists()


def test_a_recipes_adapter_is_every_stages_unless_it_says_otherwise(world: World, tmp_path: Path) -> None:
    stages = [world.sft_stage(name="one"), world.sft_stage(name="two", adapter=None)]
    pipeline.run(world.recipe(*stages, adapter=LORA), tmp_path / "run", base=world.folder)
    assert [(tmp_path / "run/models" / name / "adapter").exists() for name in ("one", "two")] == [True, False]


def test_a_chain_resumed_at_each_stage_ends_with_the_same_bits(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A continued adapter is put on its own base, which is not the model of the stage before."""
    stages = [
        world.sft_stage(name="one", adapter={**LORA, "dropout": 0.2}),
        world.rft_stage(name="two", adapter="continue", steps=3),
        world.sft_stage(name="three", adapter={**LORA, "dora": True}),
        world.sft_stage(name="four", adapter="continue"),
        world.sft_stage(name="five", adapter=None),
    ]
    recipe = world.recipe(*stages, evals=[world.eval_config()])
    pipeline.run(recipe, tmp_path / "whole", base=world.folder)
    original = Work.finish

    def stop(work: Work, engine: Any) -> None:
        original(work, engine)
        raise RuntimeError("killed")

    run = tmp_path / "broken"
    with monkeypatch.context() as patched:
        patched.setattr(Work, "finish", stop)
        with pytest.raises(RuntimeError, match="killed"):
            pipeline.run(recipe, run, base=world.folder)
        for _ in stages[1:]:
            with pytest.raises(RuntimeError, match="killed"):
                pipeline.resume(run)
    pipeline.resume(run)
    assert not differences(bits(run), bits(tmp_path / "whole"))


def test_what_was_said_before_and_after_a_stage_is_of_the_published_model(world: World, tmp_path: Path) -> None:
    """Evals see the merged weights that are published, not the adapter beside the base."""
    seen: list[bool] = []

    async def watched(config: Any, examples: Any, loaded: Loaded, *rest: Any) -> Any:
        seen.append(adapters.attached(loaded.model))
        return await evaluate(config, examples, loaded, *rest)

    recipe = world.recipe(world.sft_stage(adapter=LORA), evals=[world.eval_config()])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sharpen.stages.pipeline.evaluate", watched)
        pipeline.run(recipe, tmp_path / "run", base=world.folder)
    assert seen == [False, False]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (["continue"], "no stage comes before"),
        (["none", "continue"], "'s0' before it trains all weights"),
        (["lora", "none", "continue"], "'s1' before it trains all weights"),
        ([{"type": "continue", "rank": 8}], "unknown key `rank`"),
        ([{"type": "lora", "targets": "everything"}], "should be all-linear, attention, or a list"),
        ([{"type": "lora", "targets": []}], "should be all-linear, attention, or a list"),
        ([{"type": "lora", "dropout": 1.0}], "adapter.dropout"),
        ([{"type": "lora", "rank": 0}], "adapter.rank"),
        (["q4"], "unknown type `q4`"),
        ([{"type": "lora", "quant_type": "nf4"}], "unknown key `quant_type`"),
        ([{"type": "qlora", "quant_type": "int4"}], "adapter.quant_type"),
        ([STACKED], "'s0' stacks its adapter on another .*, but no stage comes before it; leave `stack` out"),
        (["none", STACKED], "'s1' stacks its adapter on another .*, but 's0' before it trains all weights"),
        (["lora", {**STACKED, "dora": True}], "DoRA scales the rows .*cannot be stacked"),
        (["dora", STACKED], "on that of 's0', a DoRA.*leave `stack` out, or write `adapter: continue`"),
        (["dora", "continue", STACKED], "on that of 's1', a DoRA"),
        (["lora", {**STACKED, "type": "qlora"}], "a qlora on the base of 's0', .*not in 4 bits; write `type: lora`"),
        (
            ["qlora", STACKED, {**STACKED, "type": "qlora", "double_quant": False}],
            "a qlora on the base of 's1', which stays as it is: nf4, scales in 8 bits",
        ),
    ],
)
def test_wrong_chains_and_settings_are_refused_in_the_recipe(stages: list[Any], said: str) -> None:
    rows = {"path": "x.jsonl"}
    values = [{"type": "sft", "name": f"s{n}", "data": rows, "adapter": adapter} for n, adapter in enumerate(stages)]
    with pytest.raises(ConfigError, match=said):
        parse({"model": "m", "stages": values})


def test_a_target_the_model_does_not_have_is_refused_with_those_it_has(world: World, tmp_path: Path) -> None:
    stage = world.sft_stage(adapter={**LORA, "targets": ["q_proj", "c_attn"]})
    with pytest.raises(ConfigError, match=r"stages\.sft\.adapter\.targets.*'c_attn'.*q_proj, up_proj"):
        pipeline.run(world.recipe(stage), tmp_path / "run", base=world.folder)
