"""Every field of a recipe does something: a run in which it differs comes out different."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
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
from tests.runs.lab import PLUGIN, World, bits, events, labelled, letters, quick
from tests.stages.episodes import Count
from tests.stages.field_cases import CASES, CHOICE, COUNT, NO_PATIENCE, SECOND_MODEL, STEEP, TWICE, Case, inline
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
