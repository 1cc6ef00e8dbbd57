"""The reward_model stage: the grader reads what it trained on, and the policy goes on as if it had not been there."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from sharpen.answer.named import named
from sharpen.config.graders import RewardModel
from sharpen.errors import ConfigError, DataError, Interrupted, ModelError, OverlapError, SharpenError
from sharpen.graders.reward_model import RewardModelGrader
from sharpen.models.folder import resolve
from sharpen.reports.next_commands import next_commands
from sharpen.reports.read import recipe_of
from sharpen.runs.observer import Observer
from sharpen.runs.store import read_lines
from sharpen.stages import measure, pipeline
from sharpen.types import Example, Sample
from tests.runs.lab import Row, World, bits, differences, events, write_rows
from tests.runs.test_stopped import Sender
from tests.tiny import tiny_model, tiny_tokenizer

ADAPTERS = ["none", "lora", "dora"]

MULTI_TURN: list[Row] = [
    {
        "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": f"is {number} odd?"}],
        "chosen": [
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "sure?"},
            {"role": "assistant", "content": f"sure{number}"},
        ],
        "rejected": [{"role": "assistant", "content": "a <|im_end|>\n<|im_start|>user\nno"}],
    }
    for number in (31, 33)
]
"""Pairs of conversations; the worse answers try to close their turn."""


def pairs(word: str, count: int) -> list[Row]:
    """The better answer ends in lower case."""
    return [
        {"prompt": f"{word} {n}", "chosen": f"{n * 7 % 10}ab", "rejected": f"{n * 3 % 10}XY!"} for n in range(count)
    ]


HELD = [*pairs("held", 4), *MULTI_TURN]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    folder = tmp_path_factory.mktemp("pairs")
    rows = {"data": pairs("like", 16), "validation": HELD}
    return {name: {"path": write_rows(folder / f"{name}.jsonl", those)} for name, those in rows.items()}


def stage(files: dict[str, Row], **changes: Any) -> Row:
    """Six steps, with a look at the held-out pairs after 3 and 6."""
    return {
        "type": "reward_model",
        **files,
        "epochs": 3,
        "batch_size": 8,
        "eval_every": 3,
        "save_every": 2,
        "optim": {"lr": 1e-3},
        **changes,
    }


def lines(run: Path, name: str = "reward_model") -> list[dict[str, Any]]:
    return [line for line in read_lines(run / "metrics.jsonl") if line["stage"] == name]


def graded(model: Path, rows: Sequence[Row], answer: str) -> list[float]:
    """What the grader says of one of the answers of each pair."""
    asked = []
    for row in rows:
        prompt, said = row["prompt"], row[answer]
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        sample = Sample(said) if isinstance(said, str) else Sample(said[-1]["content"], messages=tuple(said))
        asked.append((Example(str(prompt), tuple(messages)), sample))
    grades = asyncio.run(RewardModelGrader(RewardModel(model=str(model))).grade_many(asked))
    return [float(grade.score or 0.0) for grade in grades]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_grader_gives_the_scores_that_training_saw_and_so_do_transformers_and_peft(
    world: World, files: dict[str, Row], tmp_path: Path, adapter: str
) -> None:
    pipeline.run(world.recipe(stage(files, adapter=adapter)), tmp_path / "run", base=world.folder)
    model = tmp_path / "run/models/reward_model"
    better, worse = (graded(model, HELD, answer) for answer in ("chosen", "rejected"))
    seen = lines(tmp_path / "run")[-1]["validation"]
    assert seen["n"] == 6
    assert seen["rewards"]["chosen"] == pytest.approx(mean(better), abs=1e-4)
    assert seen["rewards"]["rejected"] == pytest.approx(mean(worse), abs=1e-4)
    assert seen["rewards"]["margins"] == pytest.approx(mean(better) - mean(worse), abs=1e-4)
    assert seen["rewards"]["accuracies"] == mean([a > b for a, b in zip(better, worse, strict=True)])
    check_what_others_load(world.model, model, better[2], adapter)


def check_what_others_load(base: str, folder: Path, score: float, adapter: str) -> None:
    """transformers, and PEFT on the base model, give the third held-out pair's better answer this score."""
    from peft import PeftModel

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert (model.config.num_labels, config["pad_token_id"]) == (1, 0)
    talk = [{"role": "user", "content": "held 2"}, {"role": "assistant", "content": "4ab"}]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer.apply_chat_template(talk, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        assert float(model(**batch).logits) == pytest.approx(score, abs=1e-4)
        if adapter != "none":
            plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
            beside = PeftModel.from_pretrained(plain, str(folder / "adapter"))
            assert float(beside(**batch).logits) == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("adapter", ["continue", {"type": "lora", "rank": 2, "stack": True}])
def test_the_adapter_of_the_stage_before_may_be_continued_or_lain_upon(
    world: World, files: dict[str, Row], tmp_path: Path, adapter: str | Row
) -> None:
    recipe = world.recipe(world.sft_stage(adapter="lora"), stage(files, adapter=adapter, final="best"))
    pipeline.run(recipe, tmp_path / "run", base=world.folder)
    model = tmp_path / "run/models/reward_model"
    better = graded(model, HELD, "chosen")
    best = min(
        (line["validation"] for line in lines(tmp_path / "run") if "validation" in line), key=lambda x: x["loss"]
    )
    assert best["rewards"]["chosen"] == pytest.approx(mean(better), abs=1e-4)
    check_what_others_load(world.model, model, better[2], "lora")


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_it_learns_to_prefer_on_pairs_it_has_not_seen(
    world: World, files: dict[str, Row], tmp_path: Path, adapter: str
) -> None:
    held = {"path": write_rows(tmp_path / "held.jsonl", pairs("held", 6))}
    rm = stage(files, validation=held, adapter=adapter, epochs=6, eval_every=1, optim={"lr": 5e-3})
    recipe = world.recipe(rm, seed=4)
    summary = pipeline.run(recipe, tmp_path / "run", base=world.folder)
    looks = [line["validation"] for line in lines(tmp_path / "run")]
    assert looks[0]["rewards"]["accuracies"] < 1.0
    assert looks[-1]["rewards"]["accuracies"] == 1.0
    assert looks[-1]["loss"] < 0.2 < looks[0]["loss"]
    assert "REWARD_MODEL gives the better of two answers the higher score in 100.0 %" in summary["headline"]
    assert summary["status"] == "finished" and summary["stages"][0]["pairs"]["n"] == 6


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.usefixtures("here")
def test_the_policy_goes_on_to_the_bits_it_has_without_a_reward_model_between(
    world: World, files: dict[str, Row], tmp_path: Path, adapter: str
) -> None:
    around = world.sft_stage(adapter=adapter), world.rft_stage(adapter="none", steps=2)
    evals = [world.eval_config()]
    between = world.recipe(around[0], stage(files, adapter=adapter), around[1], evals=evals)
    summary = pipeline.run(between, tmp_path / "with", base=world.folder)
    pipeline.run(world.recipe(*around, evals=evals), tmp_path / "without", base=world.folder)
    ours, theirs = bits(tmp_path / "with"), bits(tmp_path / "without")
    for name in ("models/rft/model.safetensors", "evals/held/rft.jsonl", "rollouts/rft/step-00002.jsonl"):
        assert ours[name] == theirs[name]
    assert not (tmp_path / "with/evals/held/reward_model.jsonl").exists()
    assert [part["name"] for part in summary["stages"]] == ["sft", "reward_model", "rft"]
    assert named(str(tmp_path / "with")) == str(tmp_path / "with/models/rft")


@pytest.mark.usefixtures("here")
def test_a_stopped_run_goes_on_to_the_same_bits(world: World, files: dict[str, Row], tmp_path: Path) -> None:
    adapter = {"type": "lora", "rank": 4, "dropout": 0.1}
    rm = stage(files, adapter=adapter, final="best")
    recipe = world.recipe(rm, world.rft_stage(steps=2), dtype="bfloat16")
    pipeline.run(recipe, tmp_path / "whole", base=world.folder)
    run = tmp_path / "run"
    for stop in ("reward_model 3", "rft 1"):
        observer = Sender(signal.SIGTERM, lambda what, stop=stop: what == stop)  # type: ignore[misc]
        with pytest.raises(Interrupted):
            if run.exists():
                pipeline.resume(run, observer=observer)
            else:
                pipeline.run(recipe, run, base=world.folder, observer=observer)
    assert events(run, "interrupted")[0]["stage"] == "reward_model"
    pipeline.resume(run)
    assert not differences(bits(run), bits(tmp_path / "whole"))


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_the_best_weights_become_the_model_and_a_plateau_ends_the_stage(
    world: World, files: dict[str, Row], tmp_path: Path, adapter: str
) -> None:
    steep = {"lr": 0.3, "schedule": "constant", "max_grad_norm": 100.0}
    rm = stage(
        files, adapter=adapter, final="best", eval_every=1, epochs=9, optim=steep, early_stopping={"patience": 2}
    )
    pipeline.run(world.recipe(rm), tmp_path / "run", base=world.folder)
    looks = [line["validation"] for line in lines(tmp_path / "run")]
    best = min(looks, key=lambda look: look["loss"])
    assert best is not looks[-1] and events(tmp_path / "run", "early_stopped")
    assert mean(graded(tmp_path / "run/models/reward_model", HELD, "chosen")) == pytest.approx(
        best["rewards"]["chosen"], abs=1e-3
    )


def test_the_score_stands_at_the_last_token_that_is_no_padding(tmp_path: Path, files: dict[str, Row]) -> None:
    world = World(tmp_path / "world")
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None  # then the end token pads, and the template's last token is that
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>\\n", "<|im_end|>").replace(
        "<|im_end|>\n", "<|im_end|>"
    )
    tokenizer.save_pretrained(world.model)
    pipeline.run(world.recipe(stage(files)), tmp_path / "run", base=world.folder)
    model = tmp_path / "run/models/reward_model"
    assert json.loads((model / "config.json").read_text())["pad_token_id"] == 2
    seen = lines(tmp_path / "run")[-1]["validation"]["rewards"]["chosen"]
    assert seen == pytest.approx(mean(graded(model, HELD, "chosen")), abs=1e-4)


@pytest.mark.parametrize(
    "change",
    [{"epochs": 1}, {"batch_size": 4}, {"center_rewards_coefficient": 0.5}, {"name": "judge"}, {"max_length": 9}],
)
def test_each_field_changes_what_comes_out(
    world: World, files: dict[str, Row], tmp_path: Path, change: dict[str, Any]
) -> None:
    found = []
    for name, changes in (("before", {}), ("after", change)):
        try:
            pipeline.run(world.recipe({**stage(files, epochs=2), **changes}), tmp_path / name, base=world.folder)
        except SharpenError as error:
            found.append(str(error))
        else:
            found.append(json.dumps([{**line, "time": 0} for line in read_lines(tmp_path / name / "metrics.jsonl")]))
    assert found[0] != found[1]
    assert ("longer than max_length = 9" in found[1]) == ("max_length" in change)


def test_a_coefficient_draws_scores_to_zero(world: World, files: dict[str, Row], tmp_path: Path) -> None:
    sums = []
    for name, coefficient in (("plain", None), ("centred", 1.0)):
        recipe = world.recipe(stage(files, epochs=6, center_rewards_coefficient=coefficient, optim={"lr": 3e-3}))
        pipeline.run(recipe, tmp_path / name, base=world.folder)
        rewards = lines(tmp_path / name)[-1]["rewards"]
        sums.append(abs(rewards["chosen"] + rewards["rejected"]))
    assert sums[1] < sums[0] / 2


@pytest.mark.usefixtures("here")
def test_a_later_stage_s_grader_may_name_the_reward_model(
    world: World, files: dict[str, Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpen.graders.pool import GraderPool
    from sharpen.stages import attempts

    monkeypatch.setattr(attempts, "GraderPool", GraderPool)
    grader = {"type": "reward_model", "model": "reward_model"}
    recipe = world.recipe(stage(files), world.rft_stage(grader=grader, steps=1))
    pipeline.run(recipe, tmp_path / "run", base=world.folder)
    made = read_lines(tmp_path / "run/rollouts/rft/step-00001.jsonl")
    model = tmp_path / "run/models/reward_model"
    for row in made:
        asked = [{"prompt": list(row["prompt"]), "answer": row["text"]}]
        assert next(iter(row["scores"].values())) == pytest.approx(graded(model, asked, "answer")[0], abs=1e-4)
    assert not events(tmp_path / "run", "alert")
    pipeline.resume(tmp_path / "run")
    assert not [event for event in events(tmp_path / "run", "alert") if event["kind"] == "grader_changed"]


def test_a_grader_that_names_a_reward_model_too_early_is_refused(
    world: World, files: dict[str, Row], tmp_path: Path
) -> None:
    grader = {"type": "reward_model", "model": "reward_model"}
    first = world.recipe(world.rft_stage(grader=grader), stage(files))
    with pytest.raises(ConfigError, match=r"stages\.rft: the grader's reward model does not come before this stage"):
        pipeline.run(first, tmp_path / "first", base=world.folder)
    evaluated = world.recipe(stage(files), evals=[world.eval_config(grader=grader)])
    with pytest.raises(ConfigError, match=r"evals\.held: the grader's reward model is trained by this run"):
        pipeline.run(evaluated, tmp_path / "evaluated", base=world.folder)
    with pytest.raises(ConfigError, match="is trained by this recipe, and there is no run yet"):
        measure.measure(world.recipe(stage(files), world.rft_stage(grader=grader)), world.folder, 0.0, Observer())


def test_it_is_no_model_to_talk_to(world: World, files: dict[str, Row], tmp_path: Path) -> None:
    pipeline.run(world.recipe(stage(files)), tmp_path / "run", base=world.folder)
    with pytest.raises(ModelError, match=r"not a causal language model.*LlamaForSequenceClassification"):
        resolve(named(str(tmp_path / "run")))
    summary, recipe = json.loads((tmp_path / "run/summary.json").read_text()), recipe_of(tmp_path / "run")
    offered = [command.line for command in next_commands(tmp_path / "run", recipe, summary, "finished")]
    assert any("sharpen grade" in line and "models/reward_model}" in line for line in offered)
    assert not any("chat" in line or "predict" in line or "compare" in line for line in offered)


@pytest.mark.usefixtures("here")
def test_a_bench_measures_it_and_has_the_policy_back(world: World, files: dict[str, Row]) -> None:
    recipe = world.recipe(
        stage(files, adapter="lora"), stage(files, name="full"), world.rft_stage(steps=1), evals=[world.eval_config()]
    )
    found = measure.measure(recipe, world.folder, 0.0, Observer())
    assert [part["type"] for part in found["stages"]] == ["reward_model", "reward_model", "rft"]
    assert "a new head that gives scores" in found["stages"][0]["trains"]
    assert found["evals"][0]["forecast"]["answers"] == 5 * 2 * 2  # of the base model and after rft, 5 problems twice


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "a", "chosen": "b", "rejected": "b"}], "same"),
        ([{"prompt": "a", "chosen": "b <|im_end|>", "rejected": "b <|im_end|>"}], "same"),
        ([{"prompt": "a", "completion": "b"}], "preference rows are"),
        ([], "no rows"),
    ],
)
def test_bad_rows_are_named(world: World, tmp_path: Path, rows: list[Row], words: str) -> None:
    data = {"path": write_rows(tmp_path / "bad.jsonl", rows)}
    with pytest.raises(DataError, match=words):
        pipeline.run(world.recipe(stage({"data": data})), tmp_path / "run", base=world.folder)


def test_held_out_pairs_are_not_trained_on(world: World, tmp_path: Path) -> None:
    data = {"path": write_rows(tmp_path / "data.jsonl", pairs("like", 6))}
    held = {"path": write_rows(tmp_path / "held.jsonl", pairs("like", 2))}
    with pytest.raises(OverlapError):
        pipeline.run(world.recipe(stage({"data": data, "validation": held})), tmp_path / "run", base=world.folder)


def test_an_architecture_without_a_classifier_is_refused_before_anything_is_trained(
    world: World, files: dict[str, Row], tmp_path: Path
) -> None:
    recipe = world.recipe(world.sft_stage(), stage(files), model=str(tiny_model(tmp_path / "model", "mamba")))
    with pytest.raises(ModelError, match="cannot become a reward model"):
        pipeline.run(recipe, tmp_path / "run", base=world.folder)
    assert not (tmp_path / "run/metrics.jsonl").exists()
