"""Every field of a recipe does something: a run in which it differs comes out different."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
import torch

from sharpen.config.adapters import Continue, Full, Inherit, Lora, LowRank, QLora
from sharpen.config.algorithms import KL, Algorithm
from sharpen.config.data import FileData, InlineData, ReasoningGymData, Replay, Split
from sharpen.config.envs import PluginEnv, Tools
from sharpen.config.optim import Optim
from sharpen.config.recipe import Eval, Recipe
from sharpen.config.response_format import JsonObjectFormat, JsonSchemaFormat, RegexFormat, TextFormat
from sharpen.config.stages import RFT, SFT, EarlyStopping, Sampling
from sharpen.errors import SharpenError
from sharpen.graders.base import grader_fault
from sharpen.models.load import Loaded
from sharpen.rollout.base import Request
from sharpen.rollout.fake import FakeSampler
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline, rft
from sharpen.stages.following import SharedSampler
from sharpen.train.ranks import Ranks
from sharpen.types import Grade
from tests.runs.lab import PLUGIN, World, bits, events, labelled, letters, prompts, quick
from tests.stages.episodes import Count
from tests.tiny import tiny_model, tiny_tokenizer

MODELS = (
    *(Recipe, SFT, RFT, EarlyStopping, Sampling, Optim),
    *(Lora, QLora, Continue, Full, Inherit, Algorithm, KL, Eval, Tools, PluginEnv),
    *(FileData, InlineData, ReasoningGymData, Split, Replay),
    *(TextFormat, JsonObjectFormat, JsonSchemaFormat, RegexFormat),
)

SOURCES = ("FileData", "InlineData", "ReasoningGymData")

KEEPING = tuple(f"{stage}.{name}" for stage in ("SFT", "RFT") for name in ("keep_last", "keep_every"))

EXCLUDED = {
    "SFT.type": "chooses the class; `Recipe.stages` has a case",
    "Tools.type": "chooses the class; `RFT.env` has a case",
    "PluginEnv.type": "chooses the class; `RFT.env` has a case",
    "PluginEnv.time_limit": "kills a worker: tests/envs/test_pool.py",
    "Tools.time_limit": "kills a worker: tests/envs/test_pool.py",
    "RFT.type": "chooses the class; `Recipe.stages` has a case",
    "Lora.type": "chooses the class; `SFT.adapter` has a case",
    **{f"QLora.{name}": "`Lora` has a case of it" for name in LowRank.model_fields},
    "QLora.type": "chooses the class; tests/stages/test_stacks.py has runs with it",
    "Continue.type": "chooses the class; tests/stages/test_adapters.py has runs with it",
    "Full.type": "chooses the class; `SFT.adapter` has a case",
    "Inherit.type": "chooses the class; `Recipe.adapter` has a case",
    "FileData.type": "chooses the class; `SFT.data` takes inline rows, the cases of FileData files",
    "InlineData.type": "chooses the class",
    **{f"{form}.type": "chooses the class" for form in ("TextFormat", "JsonObjectFormat", "RegexFormat")},
    "JsonSchemaFormat.type": "chooses the class",
    "ReasoningGymData.type": "chooses the class",
    **{f"{kind}.weight": "is for lists: tests/stages/test_mixing.py" for kind in SOURCES},
    "RFT.probe": "trains nothing: tests/stages/test_probe.py",
    **dict.fromkeys(KEEPING, "what stays on disk: tests/runs/test_kept.py"),
    **dict.fromkeys(("SFT.from_", "RFT.from_"), "names another stage or run: tests/stages/test_starts.py"),
    "Recipe.chat_template_kwargs": "needs a template that reads some: tests/stages/test_reasoning.py",
    "Sampling.thinking_budget": "needs a model that thinks: tests/stages/test_reasoning.py",
    "Eval.thinking_budget": "needs a model that thinks: tests/stages/test_reasoning.py",
    "Recipe.threads": "has a test of its own below: two threads must not be started in a process that forks",
}


@dataclass(frozen=True)
class Case:
    """Two values of a field, in a recipe where it matters."""

    before: Any
    after: Any
    around: dict[str, Any] = field(default_factory=dict)
    faulty: bool = False
    raises: str = ""


def inline(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "inline", "rows": rows}


HERE = "tests.stages.test_fields"
COUNT = {"type": "plugin", "use": "tests.stages.episodes:Count"}
SECOND_MODEL = "another model"
STEEP = {"lr": 0.03, "warmup_ratio": 0.0}
TWICE = {"num_iterations": 4}
LOOSE = {"lr": 1e-3, "max_grad_norm": 1e9}  # so that clipping does not take the scale of the gradient away
LOOK = {"eval_every": 1}
NO_PATIENCE = {"patience": 1, "min_delta": 9.0}
WORSE = {"eval_every": 1, "optim": STEEP}

CHOICE = [{**row, "other": row["prompt"] + " again"} for row in labelled("five", 8)]
SUMS: dict[str, Any] = {
    "params": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "start": 0,
    "count": 6,
}

CASES: dict[str, Case] = {
    "Recipe.model": Case(None, SECOND_MODEL),
    "Recipe.seed": Case(3, 4),
    "Recipe.dtype": Case("float32", "bfloat16"),
    "Recipe.adapter": Case(None, "lora"),
    "Recipe.stages": Case("sft", "rft"),
    "Recipe.evals": Case(0, 1),
    "Recipe.report_to": Case((), "tensorboard"),
    "SFT.name": Case("one", "two"),
    "SFT.data": Case(inline(labelled("one", 6)), inline(labelled("two", 6))),
    "SFT.validation": Case(inline(labelled("three", 3)), inline(labelled("four", 3))),
    "SFT.adapter": Case("none", "lora"),
    "SFT.optim": Case({"lr": 1e-3}, {"lr": 2e-3}),
    "SFT.eval_every": Case(2, 3, {"validation": inline(labelled("three", 3))}),
    "SFT.save_every": Case(2, 3),
    "SFT.early_stopping": Case(None, NO_PATIENCE, {"validation": inline(labelled("three", 3)), **LOOK}),
    "SFT.final": Case("last", "best", {"validation": inline([{"prompt": "far", "completion": "ZZZZ"}]), **WORSE}),
    "SFT.tokens_per_microbatch": Case(4096, 40),
    "SFT.replay": Case(None, {"data": inline(labelled("five", 4)), "share": 0.25}),
    "SFT.epochs": Case(1, 1.5),
    "SFT.batch_size": Case(4, 3),
    "SFT.max_length": Case(2048, 30, raises="DataError"),
    "RFT.name": Case("one", "two"),
    "RFT.data": Case(inline(prompts("one", 4)), inline(prompts("two", 4))),
    "RFT.validation": Case(inline(prompts("three", 3)), inline(prompts("four", 3))),
    "RFT.adapter": Case("none", "lora"),
    "RFT.optim": Case({"lr": 1e-3}, {"lr": 2e-3}),
    "RFT.eval_every": Case(2, 3, {"validation": inline(prompts("three", 3))}),
    "RFT.save_every": Case(1, 2),
    "RFT.early_stopping": Case(None, NO_PATIENCE, {"validation": inline(prompts("three", 3)), **LOOK}),
    "RFT.final": Case("last", "best", {"validation": inline(prompts("three", 3)), **WORSE}),
    "RFT.tokens_per_microbatch": Case(4096, 40),
    "RFT.grader": Case(PLUGIN, {**PLUGIN, "use": "tests.stages.test_fields:digits"}),
    "RFT.env": Case(COUNT, {"type": "tools"}),
    "RFT.algorithm": Case({"preset": "dapo", **TWICE}, {"preset": "grpo", **TWICE}),
    "RFT.prompts_per_step": Case(2, 3),
    "RFT.group_size": Case(3, 4),
    "RFT.steps": Case(2, 3),
    "RFT.sampling": Case({"max_tokens": 8}, {"max_tokens": 7}),
    "RFT.response_format": Case(None, {"type": "json_object"}),
    "RFT.max_fault_share": Case(0.2, 0.1, {"max_fault_steps": 9}, faulty=True, raises="GraderError"),
    "RFT.max_fault_steps": Case(9, 2, faulty=True, raises="GraderError"),
    "EarlyStopping.patience": Case(1, 2),
    "EarlyStopping.min_delta": Case(0.0, 9.0),
    "Sampling.temperature": Case(1.0, 0.9),
    "Sampling.max_tokens": Case(8, 7),
    "Sampling.top_k": Case(None, 3),
    "Sampling.top_p": Case(1.0, 0.5),
    "Sampling.min_p": Case(0.0, 0.3),
    "Optim.type": Case("adamw", "adamw_8bit"),
    "Optim.lr": Case(1e-3, 2e-3),
    "Optim.schedule": Case("cosine", "linear"),
    "Optim.warmup_ratio": Case(0.1, 0.5),
    "Optim.weight_decay": Case(0.0, 0.1),
    "Optim.beta1": Case(0.9, 0.8),
    "Optim.beta2": Case(0.99, 0.9),
    "Optim.max_grad_norm": Case(1.0, 0.1),
    "Lora.rank": Case(4, 5),
    "Lora.alpha": Case(32, 16),
    "Lora.dropout": Case(0.0, 0.1),
    "Lora.dora": Case(False, True),
    "Lora.rslora": Case(False, True),
    "Lora.targets": Case("all-linear", "attention"),
    "Lora.stack": Case(False, True),
    "QLora.quant_type": Case("nf4", "fp4"),
    "QLora.double_quant": Case(True, False),
    "Algorithm.preset": Case("grpo", "dapo"),
    "Algorithm.advantage": Case("centered", "leave_one_out", {"optim": LOOSE}),
    "Algorithm.ratio": Case("token", "sequence", {"optim": STEEP, **TWICE}),
    "Algorithm.clip": Case("ppo", "none", {"optim": STEEP, **TWICE}),
    "Algorithm.clip_low": Case(0.2, 0.02, {"optim": STEEP, **TWICE}),
    "Algorithm.clip_high": Case(0.28, 0.02, {"optim": STEEP, **TWICE}),
    "Algorithm.normalizer": Case("sequence", "token"),
    "Algorithm.overlong_buffer": Case(0.0, 0.5),
    "Algorithm.mask_truncated": Case(False, True),
    "Algorithm.kl": Case({"coef": 0.0}, {"coef": 0.5}),
    "Algorithm.entropy_coef": Case(0.0, 0.1),
    "Algorithm.max_lag": Case(0, 1),
    "KL.coef": Case(0.1, 0.5),
    "KL.estimator": Case("k2", "k3"),
    "KL.importance_weighted": Case(False, True),
    "Algorithm.mismatch_cap": Case(2.0, 0.5),  # below 1, so that it caps the ratio of equal policies
    "Algorithm.num_iterations": Case(1, 2),
    "FileData.path": Case("sft.jsonl", "sft-validation.jsonl"),
    "FileData.limit": Case(4, 8),
    "FileData.columns": Case({}, {"prompt": "completion", "completion": "prompt"}),
    "FileData.split": Case({"test": 0.3}, {"test": 0.3, "part": "test"}),
    "FileData.grader": Case(None, PLUGIN, raises="ConfigError"),
    "InlineData.rows": Case(CHOICE[:6], CHOICE[2:]),
    "InlineData.columns": Case({}, {"prompt": "other", "old": "prompt"}),
    "InlineData.split": Case({"test": 0.3}, {"test": 0.3, "part": "test"}),
    "InlineData.grader": Case(None, PLUGIN, raises="ConfigError"),
    "ReasoningGymData.generator": Case("chain_sum", "basic_arithmetic", {**SUMS, "params": {}}),
    "ReasoningGymData.params": Case(SUMS["params"], {**SUMS["params"], "max_digits": 2}, SUMS),
    "ReasoningGymData.start": Case(0, 50, SUMS),
    "ReasoningGymData.count": Case(6, 9, SUMS),
    "ReasoningGymData.suffix": Case("", " Only the number.", SUMS),
    "ReasoningGymData.grader": Case(None, PLUGIN, SUMS, raises="ConfigError"),
    "Replay.data": Case(inline(labelled("five", 4)), inline(labelled("six", 4))),
    "Replay.share": Case(0.25, 0.5),
    "Split.test": Case(0.3, 0.6),
    "Split.part": Case("train", "test"),
    "Split.group_by": Case("", "prompt.0", raises="DataError"),
    "Split.seed": Case(0, 1),
    "Eval.name": Case("one", "two"),
    "Eval.data": Case(inline(prompts("one", 4)), inline(prompts("two", 4))),
    "Eval.grader": Case(PLUGIN, {**PLUGIN, "use": "tests.stages.test_fields:digits"}),
    "Eval.env": Case(None, COUNT),
    "Eval.max_tokens": Case(8, 7),
    "Eval.response_format": Case(None, {"type": "regex", "pattern": "[0-9]{1,6}"}),
    "Eval.samples": Case(1, 2),
    "Eval.temperature": Case(1.0, 0.9),
    "JsonSchemaFormat.schema": Case({"enum": ["ab", "cd"]}, {"enum": ["ef", "gh"]}),
    "JsonSchemaFormat.strict": Case(True, False),
    "RegexFormat.pattern": Case("[a-z]{1,6}", "[0-9]{1,6}"),
    "Tools.max_turns": Case(1, 2),
    "Tools.use": Case("calculator", f"{HERE}:echo"),
    "Tools.announce": Case(True, False),
    "Tools.reply_role": Case("tool", "user"),
    "Tools.max_reply": Case(1000, 5),
    "PluginEnv.max_turns": Case(1, 2),
    "PluginEnv.use": Case(COUNT["use"], f"{HERE}:shouting"),
    "PluginEnv.args": Case({}, {"opening": "Count."}),
}


def echo(text: str) -> str:
    """Another tool than the calculator."""
    return text


def shouting() -> Count:
    """Another environment."""
    return Count(opening="HEY")


class Caller(FakeSampler):
    """In the place of SharedSampler: says what a model that knows of tools would, then that it is done."""

    def __init__(self, loaded: Loaded, ranks: Ranks) -> None:
        tokenizer = tiny_tokenizer()
        call = '<tool_call>{"name": "calculator", "arguments": {"expression": "10000 * 10000"}}</tool_call>'

        def answer(request: Request) -> list[int]:
            text = call if request.key[-1] == 0 else "well"
            return [*tokenizer(text, add_special_tokens=False)["input_ids"], *loaded.stop]

        super().__init__(answer)


def digits(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """Another grader than `letters`."""
    text: str = sample["output_text"]
    return sum(not character.islower() for character in text[::2]) / max(1, len(text))


def graders(config: Any, faulty: bool) -> Callable[..., float | Grade]:
    """The function that a config names; a faulty one fails on the first completion of every step."""
    function = {"tests.runs.lab:letters": letters}.get(config["use"], digits)
    count = iter(range(10_000))

    def grade(sample: dict[str, Any], item: dict[str, Any]) -> float | Grade:
        return grader_fault("other_error", "down") if faulty and next(count) % 6 == 0 else function(sample, item)

    return grade


@cache
def second_model() -> str:
    folder = TemporaryDirectory()
    KEPT.append(folder)
    return str(tiny_model(Path(folder.name) / "model", seed=1, num_hidden_layers=1))


KEPT: list[TemporaryDirectory[str]] = []


def build(world: World, owner: str, name: str, value: Any, around: dict[str, Any]) -> tuple[Recipe, Any]:
    """A recipe with one field set, and the grader's config."""
    stage_around = {key: around[key] for key in around if key != "num_iterations"}
    algorithm = {"preset": "dapo", **{key: around[key] for key in around if key == "num_iterations"}}
    sft, rl = world.sft_stage(), world.rft_stage(steps=3, algorithm=algorithm)
    evaluation, settings, grader = world.eval_config(), {}, PLUGIN
    stages: list[dict[str, Any]] = []
    evals: list[dict[str, Any]] = []
    match owner:
        case "Recipe" if name == "stages":
            stages = [{"sft": sft, "rft": rl}[value]]
        case "Recipe" if name == "evals":
            evals = [evaluation] * value
        case "Recipe" if name == "model":
            settings = {name: second_model() if value == SECOND_MODEL else world.model}
            stages = [sft]
        case "Recipe":
            settings = {name: value}
            stages = [sft]
        case "SFT":
            stages = [{**sft, **stage_around, name: value}]
        case "EarlyStopping":
            stopping = {**NO_PATIENCE, name: value}
            stages = [{**sft, "validation": world.sft_validation, "eval_every": 1, "early_stopping": stopping}]
        case "Lora" if name == "stack":
            stages = [{**sft, "adapter": "lora"}, {**sft, "name": "top", "adapter": {"type": "lora", name: value}}]
        case "Lora" | "QLora":
            stages = [{**sft, "adapter": {"type": owner.lower(), name: value}}]
        case "FileData" if name == "path":
            stages = [{**sft, "data": {"path": value}}]
        case "FileData":
            stages = [{**sft, "data": {**world.sft, name: value}}]
        case "InlineData":
            stages = [{**sft, "data": {**inline(list(CHOICE)), name: value}}]
        case "ReasoningGymData":
            generated = {"type": "reasoning_gym", "generator": "chain_sum", **around, name: value}
            stages = [{**sft, "data": generated}]
        case "Split":
            stages = [{**sft, "data": {**world.sft, "split": {"test": 0.3, name: value}}}]
        case "Replay":
            stages = [{**sft, "replay": {"data": inline(labelled("five", 4)), "share": 0.25, name: value}}]
        case "Optim":
            stages = [{**sft, "optim": {"lr": 1e-3, name: value}}]
        case "RFT":
            stages = [{**rl, **stage_around, name: value}]
            grader = stages[0]["grader"]
        case "JsonSchemaFormat":
            form = {"type": "json_schema", "schema": {"enum": ["ab", "cd"]}, name: value}
            stages = [{**rl, "response_format": form}]
        case "RegexFormat":
            stages = [{**rl, "response_format": {"type": "regex", name: value}}]
        case "Sampling":
            stages = [{**rl, "sampling": {"max_tokens": 8, name: value}}]
        case "Algorithm":
            stages = [{**rl, **stage_around, "algorithm": {**algorithm, name: value}}]
        case "KL":
            kl = {"coef": 1.0, name: value}
            stages = [{**rl, "optim": STEEP, "algorithm": {**algorithm, "kl": kl, **TWICE}}]
        case "Tools" | "PluginEnv":
            env = {**({"type": "tools"} if owner == "Tools" else COUNT), name: value}
            stages = [{**rl, "steps": 1, "env": env, "sampling": {"max_tokens": 200}}]
        case "Eval":
            evals = [{**evaluation, name: value}]
            grader = evals[0]["grader"]
    return world.recipe(*stages, evals=evals, **settings), grader


def outcome(world: World, run: Path, key: str, value: Any, case: Case) -> dict[str, Any]:
    """What a run comes to: its bits without the recipe's own words, its checkpoints, its error."""
    owner, _, name = key.partition(".")
    recipe, grader = build(world, owner, name, value, case.around)
    error = ""
    sampler = Caller if owner in ("Tools", "PluginEnv") else SharedSampler
    with quick(graders(grader, case.faulty)), mock.patch.object(rft, "SharedSampler", sampler):
        try:
            pipeline.run(recipe, run, base=world.folder)
        except SharpenError as raised:
            error = type(raised).__name__
    if error:
        return {"error": error}
    found = bits(run)
    for told in ("seed", "model"):
        found["summary.json"].pop(told)
    saved = [(event["stage"], event["step"]) for event in events(run, "checkpoint")]
    trackers = sorted(path.name for path in (run / "trackers").glob("*"))
    return {**found, "checkpoints": saved, "trackers": trackers, "error": error}


@pytest.mark.parametrize("key", CASES)
def test_changing_a_field_changes_what_comes_out(world: World, tmp_path: Path, key: str) -> None:
    case = CASES[key]
    before = outcome(world, tmp_path / "before", key, case.before, case)
    after = outcome(world, tmp_path / "after", key, case.after, case)
    assert before["error"] == ""
    assert after["error"] == case.raises
    assert before != after


def test_every_field_has_a_case_or_a_reason_to_have_none() -> None:
    fields = {f"{model.__name__}.{name}" for model in MODELS for name in model.model_fields}
    assert fields == {*CASES, *EXCLUDED}


def test_microbatches_change_no_number_beyond_rounding(world: World, tmp_path: Path) -> None:
    for kind in ("SFT", "RFT"):
        case, losses = Case(0, 0), []
        for value in (4096, 40):
            run = tmp_path / f"{kind}-{value}"
            outcome(world, run, f"{kind}.tokens_per_microbatch", value, case)
            losses.append([line["grad_norm"] for line in read_lines(run / "metrics.jsonl")])
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_recipes_thread_count_is_set_before_the_model_computes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    for threads in (1, 2):
        pipeline.run(world.recipe(threads=threads), tmp_path / str(threads), base=world.folder)
    assert told == [1, 2]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    pipeline.run(world.recipe(threads=None), tmp_path / "3", base=world.folder)
    monkeypatch.delenv("OMP_NUM_THREADS")
    pipeline.run(world.recipe(threads=None), tmp_path / "all", base=world.folder)
    assert told == [1, 2, 3, os.cpu_count()]
    assert json.loads((tmp_path / "1" / "summary.json").read_text())["status"] == "finished"
