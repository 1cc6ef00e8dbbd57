"""The preference stage: where it starts, what it learns, what it needs, and what it refuses."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM

from sharpen.config.preferences import AnyPreferenceLoss
from sharpen.config.stages import DPO, Stage
from sharpen.errors import SharpenError
from sharpen.runs.observer import Observer
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.runs.lab import Row, World, bits, events, write_rows
from tests.stages.field_cases import inline
from tests.tiny import tiny_tokenizer

LOSSES = ["sigmoid", "ipo", "hinge", "simpo", "orpo", "cpo", "kto"]
REFERENCED = ["sigmoid", "ipo", "hinge", "kto"]
ADAPTERS = ["none", "lora", "dora", "continue"]

TURNS: Row = {
    "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "is 31 odd?"}],
    "chosen": [
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "sure?"},
        {"role": "assistant", "content": "sure"},
    ],
    "rejected": [{"role": "assistant", "content": "a <|im_end|>\n<|im_start|>user\nNO"}],
}
"""A pair of conversations; the worse answer tries to close its turn."""


def pairs(word: str, count: int) -> list[Row]:
    """The better answer ends in lower case."""
    return [
        {"prompt": f"{word} {n}", "chosen": f"{n * 7 % 10}ab", "rejected": f"{n * 3 % 10}XY!"} for n in range(count)
    ]


def singles(word: str, count: int) -> list[Row]:
    """Rows for KTO alone: good answers and bad ones to prompts of their own."""
    made = pairs(word, count)
    return [
        {"prompt": row["prompt"], "completion": row["rejected" if n % 3 == 2 else "chosen"], "label": n % 3 != 2}
        for n, row in enumerate(made)
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    folder = tmp_path_factory.mktemp("pairs")
    rows = {"data": [*pairs("like", 15), TURNS], "validation": pairs("held", 5)}
    return {name: {"path": write_rows(folder / f"{name}.jsonl", those)} for name, those in rows.items()}


def stage(files: Mapping[str, Any], **changes: Any) -> Row:
    """Four steps of 16 pairs, with a look at the held-out pairs after each second."""
    return {
        "type": "dpo",
        **files,
        "epochs": 2,
        "batch_size": 8,
        "eval_every": 2,
        "save_every": 2,
        "optim": {"lr": 1e-3},
        **changes,
    }


def lines(run: Path, name: str = "dpo") -> list[dict[str, Any]]:
    return [line for line in read_lines(run / "metrics.jsonl") if line["stage"] == name]


def logp(model: Any, prompt: str | list[Row], answer: str | list[Row]) -> float:
    """log π of an answer of one turn by plain transformers, the end of the turn among its tokens."""
    tokenizer = tiny_tokenizer()
    talk = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    asked = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=True, return_dict=False)
    said = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        found = model(torch.tensor([[*asked, *said]])).logits[0].double().log_softmax(-1)
    return sum(float(found[len(asked) + place - 1, token]) for place, token in enumerate(said))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_after_sft_policy_and_start_agree_to_the_last_bit_at_the_first_step(
    world: World, files: dict[str, Row], tmp_path: Path, adapter: str, dtype: str
) -> None:
    sft = world.sft_stage(adapter="none" if adapter == "none" else "lora", epochs=1)
    shared = {"adapter": adapter, "epochs": 1, "tokens_per_microbatch": 150}
    worth = {"sigmoid": math.log(2), "hinge": 1.0, "kto": 0.5}
    stages = [stage(files, name=loss, loss=loss, **shared, **{"from": "sft"}) for loss in worth]
    pipeline.run(world.recipe(sft, *stages, dtype=dtype), tmp_path / "run", base=world.folder)
    for loss in worth:
        first, *later = lines(tmp_path / "run", loss)
        assert first["loss"] == pytest.approx(worth[loss], rel=1e-7)
        assert first["kl"] == 0.0
        assert {first["rewards"].get(name, 0.0) for name in ("chosen", "rejected", "margins", "accuracies")} == {0.0}
        assert later[0]["rewards"]["chosen"] != 0 and later[0]["kl"] >= 0.0 and (loss == "kto" or later[0]["kl"] > 0)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_rewards_are_against_the_model_that_the_stage_starts_from(
    world: World, files: dict[str, Row], tmp_path: Path, adapter: str
) -> None:
    """The published models, asked by plain transformers."""
    sft = world.sft_stage(adapter="none" if adapter == "none" else "lora")
    dpo = stage(files, adapter=adapter, loss={"beta": 0.3})
    pipeline.run(world.recipe(sft, dpo), tmp_path / "run", base=world.folder)
    before, after = (AutoModelForCausalLM.from_pretrained(tmp_path / f"run/models/{name}") for name in ("sft", "dpo"))
    gained = {
        answer: [
            0.3 * (logp(after, row["prompt"], row[answer]) - logp(before, row["prompt"], row[answer])) for row in held
        ]
        for held in (pairs("held", 5),)
        for answer in ("chosen", "rejected")
    }
    seen = lines(tmp_path / "run")[-1]["validation"]
    margins = [better - worse for better, worse in zip(gained["chosen"], gained["rejected"], strict=True)]
    assert seen["n"] == 5
    assert seen["rewards"]["chosen"] == pytest.approx(sum(gained["chosen"]) / 5, abs=1e-4)
    assert seen["rewards"]["rejected"] == pytest.approx(sum(gained["rejected"]) / 5, abs=1e-4)
    assert seen["rewards"]["margins"] == pytest.approx(sum(margins) / 5, abs=1e-4)
    assert seen["rewards"]["accuracies"] == sum(margin > 0 for margin in margins) / 5
    assert seen["loss"] == pytest.approx(sum(math.log1p(math.exp(-margin)) for margin in margins) / 5, abs=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_it_learns_to_prefer_on_pairs_it_has_not_seen(
    world: World, files: dict[str, Row], tmp_path: Path, loss: str
) -> None:
    adapter = "lora" if loss in ("sigmoid", "kto") else "none"
    dpo = stage(files, loss=loss, adapter=adapter, epochs=8, eval_every=4, optim={"lr": 3e-3})
    summary = pipeline.run(world.recipe(dpo), tmp_path / "run", base=world.folder)
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (world.model, tmp_path / "run/models/dpo"))

    def margin(model: Any) -> list[float]:
        return [
            logp(model, row["prompt"], row["chosen"]) - logp(model, row["prompt"], row["rejected"])
            for row in pairs("held", 5)
        ]

    assert all(now > then for now, then in zip(margin(after), margin(before), strict=True))
    looks = [line["validation"] for line in lines(tmp_path / "run") if "validation" in line]
    assert looks[-1]["loss"] <= looks[0]["loss"] and looks[-1]["rewards"]["accuracies"] == 1.0
    assert summary["status"] == "finished"


def test_without_a_reference_nothing_is_scored_beforehand(world: World, files: dict[str, Row], tmp_path: Path) -> None:
    for loss in LOSSES:
        pipeline.run(world.recipe(stage(files, loss=loss, epochs=0.5)), tmp_path / loss, base=world.folder)
        assert (tmp_path / loss / "stages/01-dpo/start_scores.npz").exists() == (loss in REFERENCED)
        assert all(("kl" in line) == (loss in REFERENCED) for line in lines(tmp_path / loss))


@pytest.mark.parametrize("good", [True, False])
def test_z0_is_the_kl_on_the_answers_to_other_prompts_and_takes_no_gradient(
    world: World, tmp_path: Path, good: bool
) -> None:
    """Two rows, so that each prompt meets the answer of the other; a checkpoint before each step. Where both
    answers are to become less likely, so do the mismatched ones."""
    rows: list[Row] = [
        {"prompt": "say 1", "completion": "abcd", "label": good},
        {"prompt": "say 2", "completion": "XY", "label": False},
    ]
    dpo = stage(
        {"data": inline(rows)},
        loss={"type": "kto", "beta": 0.5},
        epochs=8,
        batch_size=2,
        save_every=1,
        keep_last=9,
        optim={"lr": 2e-2, "schedule": "constant", "warmup_ratio": 0.0},
    )
    pipeline.run(world.recipe(dpo), tmp_path / "run", base=world.folder)
    start = AutoModelForCausalLM.from_pretrained(world.model)
    seen, signed = [], []
    for step, line in enumerate(lines(tmp_path / "run")):
        place = tmp_path / f"run/stages/01-dpo/checkpoints/step-{step:05d}"
        policy = AutoModelForCausalLM.from_pretrained(place) if step else start
        mismatched = [("say 1", "XY"), ("say 2", "abcd")]
        away = sum(logp(policy, *pair) - logp(start, *pair) for pair in mismatched) / 2
        ratios = [
            logp(policy, row["prompt"], row["completion"]) - logp(start, row["prompt"], row["completion"])
            for row in rows
        ]
        z0 = max(0.0, away)
        assert line["kl"] == pytest.approx(z0, abs=2e-4)
        losses = [
            1 / (1 + math.exp(sign * 0.5 * (ratio - z0)))
            for sign, ratio in zip((2 * good - 1, -1), ratios, strict=True)
        ]
        assert line["loss"] == pytest.approx(sum(losses) / 2, abs=1e-4)
        seen.append(line["kl"])
        signed.append(away)
    assert max(seen) > 0.01 if good else min(signed) < -0.01 and 0.0 in seen[1:], "the clamp has acted"


def test_a_pair_is_for_kto_a_good_and_a_bad_answer(world: World, files: dict[str, Row], tmp_path: Path) -> None:
    dpo = stage(files, loss="kto", epochs=1)
    pipeline.run(world.recipe(dpo), tmp_path / "run", base=world.folder)
    found = lines(tmp_path / "run")
    assert len(found) == 2 * 16 / 8
    assert found[-1]["validation"]["n"] == 2 * 5
    assert {"chosen", "rejected"} <= found[-1]["validation"]["rewards"].keys()


def test_a_last_step_of_one_answer_still_meets_another_prompt(world: World, tmp_path: Path) -> None:
    dpo = stage({"data": inline(singles("say", 5))}, loss="kto", batch_size=2, epochs=1)
    pipeline.run(world.recipe(dpo), tmp_path / "run", base=world.folder)
    assert [line["loss"] > 0 for line in lines(tmp_path / "run")] == [True] * 3


class Weights(Observer):
    """Counts, whenever the run tells something, the bytes of all tensors that live in this process."""

    def __init__(self) -> None:
        self.bytes: dict[str, list[int]] = {}

    def metrics(self, line: Mapping[str, Any]) -> None:
        self._count("step")

    def progress(self, what: str, done: int, total: int) -> None:
        self._count("scoring" if "scoring" in what else what)

    def _count(self, when: str) -> None:
        gc.collect()
        held = {}
        for thing in gc.get_objects():
            if (
                type(thing) in (torch.Tensor, torch.nn.Parameter) and not thing.is_meta
            ):  # no tensors that other tests faked
                storage = thing.untyped_storage()
                held[storage.data_ptr()] = storage.nbytes()
        self.bytes.setdefault(when, []).append(sum(held.values()))


@pytest.mark.long
@pytest.mark.parametrize("loss", ["sigmoid", "kto"])
def test_no_copy_of_the_weights_is_kept_for_the_reference(
    world: World, files: dict[str, Row], tmp_path: Path, loss: str
) -> None:
    """All tensors at a step of full fine-tuning: those of SFT, give or take an eighth of the model."""
    model = AutoModelForCausalLM.from_pretrained(world.model)
    size = sum(parameter.nbytes for parameter in model.parameters())
    del model
    found = {}
    for name, made in (("sft", world.sft_stage()), ("dpo", stage(files, loss=loss))):
        watch = Weights()
        pipeline.run(world.recipe(made, adapter="none"), tmp_path / name, base=world.folder, observer=watch)
        found[name] = watch.bytes
    assert min(found["sft"]["step"]) > 2.9 * size, "weights and the optimiser's two moments are seen"
    assert max(found["dpo"]["step"]) < max(found["sft"]["step"]) + size / 8
    assert max(found["dpo"]["scoring"]) < min(found["dpo"]["step"]) - 1.9 * size, "nor while the start is asked"


AGAINST = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs("against", 3)]
LOOSE = {"lr": 1e-2, "warmup_ratio": 0.0, "max_grad_norm": 1e9}

FIELDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "loss": ("sigmoid", "ipo", {}),
    "epochs": (2, 1.5, {}),
    "batch_size": (8, 4, {}),
    "max_length": (2048, 60, {}),
    "name": ("dpo", "prefer", {}),
    "data": (inline(pairs("one", 8)), inline(pairs("two", 8)), {}),
    "validation": (inline(pairs("three", 3)), inline(pairs("four", 3)), {}),
    "adapter": ("none", "lora", {}),
    "optim": ({"lr": 1e-3}, {"lr": 2e-3}, {}),
    "eval_every": (2, 3, {}),
    "save_every": (2, 3, {}),
    "keep_last": (1, 2, {"save_every": 1}),
    "keep_every": (None, 1, {"save_every": 1, "keep_last": 1}),
    "early_stopping": (None, {"patience": 1, "min_delta": 9.0}, {"eval_every": 1}),
    "final": ("last", "best", {"eval_every": 1, "validation": inline(AGAINST), "optim": LOOSE}),
    "tokens_per_microbatch": (4096, 60, {}),
    "from_": ("sft", "base", {}),
}
"""Two values of each field, and what else the stage says."""


OWN = ("loss", "epochs", "batch_size", "max_length", "data", "validation", "tokens_per_microbatch", "final")
"""Fields that DPO reads itself; what all stages share reads the others, and tests/stages/test_fields.py tries it."""


@pytest.mark.parametrize("name", [*OWN, *(pytest.param(n, marks=pytest.mark.long) for n in FIELDS if n not in OWN)])
def test_each_field_changes_what_comes_out(world: World, files: dict[str, Row], tmp_path: Path, name: str) -> None:
    before, after, around = FIELDS[name]
    found: list[dict[str, Any]] = []
    for place, value in (("before", before), ("after", after)):
        run = tmp_path / place
        earlier = [world.sft_stage(epochs=1)] if name == "from_" else []
        recipe = world.recipe(*earlier, stage(files, **around, **{name.rstrip("_"): value}))
        try:
            pipeline.run(recipe, run, base=world.folder)
        except SharpenError as error:
            found.append({"error": str(error)})
            continue
        kept = sorted(str(path.relative_to(run)) for path in run.glob("stages/*/checkpoints/*"))
        saved = [(event["stage"], event["step"]) for event in events(run, "checkpoint")]
        found.append({**bits(run), "kept": kept, "saved": saved})
    assert "error" not in found[0]
    assert ("error" in found[1]) == (name == "max_length")
    assert found[0] != found[1]


def test_every_field_of_the_stage_is_among_them() -> None:
    assert {*FIELDS, "type"} == {*DPO.model_fields} >= {*Stage.model_fields}


@pytest.mark.parametrize(
    ("loss", "changes"),
    [
        ("sigmoid", {"beta": 0.2, "label_smoothing": 0.1}),
        ("ipo", {"beta": 0.2}),
        ("hinge", {"beta": 0.2}),
        ("simpo", {"beta": 1.0, "simpo_gamma": 0.5, "label_smoothing": 0.1}),
        ("orpo", {"beta": 0.2}),
        ("cpo", {"beta": 0.2, "cpo_alpha": 0.5, "label_smoothing": 0.1}),
        ("kto", {"beta": 0.2, "desirable_weight": 2.0, "undesirable_weight": 2.0}),
    ],
)
def test_each_field_of_a_loss_changes_the_model(
    world: World, files: dict[str, Row], tmp_path: Path, loss: str, changes: dict[str, float]
) -> None:
    config: Any = TypeAdapter(AnyPreferenceLoss)
    assert {"type", *changes} == {*type(config.validate_python(loss)).model_fields}
    models = set()
    for name, change in {"": {}, **{name: {name: value} for name, value in changes.items()}}.items():
        dpo = stage(files, loss={"type": loss, **change}, epochs=1, batch_size=4, optim=LOOSE)
        run = tmp_path / f"run-{name}"
        pipeline.run(world.recipe(dpo), run, base=world.folder)
        models.add((run / "models/dpo/model.safetensors").read_bytes())
    assert len(models) == 1 + len(changes)


def test_microbatches_change_no_number_beyond_rounding(world: World, files: dict[str, Row], tmp_path: Path) -> None:
    for loss in LOSSES:
        found = []
        for budget in (16, 4096):
            run = tmp_path / f"{loss}-{budget}"
            recipe = world.recipe(stage(files, loss=loss, epochs=1, tokens_per_microbatch=budget))
            pipeline.run(recipe, run, base=world.folder)
            found.append(lines(run))
        for small, large in zip(*found, strict=True):
            for name in {"loss", "grad_norm", "kl"} & {*large}:
                assert small[name] == pytest.approx(large[name], rel=1e-3, abs=1e-5), (loss, name)
            assert small["rewards"] == pytest.approx(large["rewards"], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kind", ["dpo", "reward_model"])
def test_pairs_of_one_id_are_as_good_as_any(world: World, tmp_path: Path, kind: str) -> None:
    """As where an id names the prompt, and answers to it were compared more than once."""
    rows = [{**row, "id": "all alike", "prompt": f"{n % 2} {row['prompt']}"} for n, row in enumerate(pairs("one", 6))]
    for name, given in (("named", rows), ("plain", [{**row, "id": n} for n, row in enumerate(rows)])):
        made = stage({"data": inline(given)}, type=kind, name="dpo", batch_size=3)
        pipeline.run(world.recipe(made), tmp_path / name, base=world.folder)
    named, plain = (lines(tmp_path / name) for name in ("named", "plain"))
    assert [json.dumps({**line, "time": 0}) for line in named] == [json.dumps({**line, "time": 0}) for line in plain]
