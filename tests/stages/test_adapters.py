"""Adapters through whole runs: they learn, chain, are saved apart, and the base stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import sharpen as sh
from sharpen.config.load import parse
from sharpen.errors import ConfigError
from sharpen.models import adapters
from sharpen.models.load import Loaded
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from sharpen.stages.evaluate import evaluate
from sharpen.stages.work import Work
from tests.runs.lab import World, bits, differences, events

pytestmark = pytest.mark.usefixtures("here")

LORA: dict[str, Any] = {"type": "lora", "rank": 4, "alpha": 16}
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
