"""A job as a recipe: every hyperparameter has its place, and whatever may be asked makes a recipe that is one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sharpen.config.load import parse
from sharpen.config.recipe import Recipe
from sharpen.config.stages import DPO, RFT, SFT
from sharpen.server.jobs.body import JobBody
from sharpen.server.jobs.hyperparameters import settled
from sharpen.server.jobs.translate import Options, environment, recipe

TRAINING, VALIDATION = Path("/data/training.jsonl"), Path("/data/validation.jsonl")
GRADER = {
    "type": "string_check",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "operation": "eq",
}
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


@dataclass(frozen=True)
class Model:
    path_or_alias: str = "smollm2-135m-instruct"
    parameters: int | None = 134_515_008


def made(
    kind: str = "supervised",
    rows: int = 100,
    validation: bool = False,
    model: Model = Model(),
    threads: int = 1,
    seed: int = 7,
    integrations: list[dict[str, Any]] | None = None,
    response_format: dict[str, Any] | None = None,
    **asked: Any,
) -> Recipe:
    """The recipe of a job that asks for these hyperparameters."""
    own: dict[str, Any] = {"hyperparameters": asked}
    if kind == "reinforcement":
        own |= {"grader": GRADER, "response_format": response_format}
    columns = settled({"type": kind, kind: own}, {"rows": rows, "validation_rows": 20 if validation else None})
    job = {**columns, "seed": seed, "integrations": integrations, "model": "gpt-x", "id": "ftjob-1"}
    options = Options(rows, threads, GRADER if kind == "reinforcement" else None)
    return parse(recipe(job, TRAINING, VALIDATION if validation else None, model, options))


def sft(**asked: Any) -> SFT:
    stage = made("supervised", **asked).stages[0]
    assert isinstance(stage, SFT)
    return stage


def dpo(**asked: Any) -> DPO:
    stage = made("dpo", **asked).stages[0]
    assert isinstance(stage, DPO)
    return stage


def rft(**asked: Any) -> RFT:
    stage = made("reinforcement", **asked).stages[0]
    assert isinstance(stage, RFT)
    return stage


def test_what_a_recipe_says_whatever_the_method() -> None:
    recipe = made(seed=11, threads=3)
    assert (recipe.model, recipe.seed, recipe.threads) == ("smollm2-135m-instruct", 11, 3)
    assert recipe.adapter.type == "lora" and recipe.report_to == ()


@pytest.mark.parametrize("stage", [sft, dpo])
def test_batch_size_and_epochs_of_rows_that_are_learned(stage: Any) -> None:
    assert stage(batch_size=7).batch_size == 7
    assert stage(n_epochs=4).epochs == 4


@pytest.mark.parametrize(("stage", "rate"), [(sft, 5e-4), (dpo, 1e-4), (rft, 2e-4)])
def test_the_multiplier_multiplies_the_rate_that_lr_auto_stands_for(stage: Any, rate: float) -> None:
    """The base rates are those of docs/training for an adapter on 135 M parameters, ten times full fine-tuning's."""
    assert stage().optim.lr == pytest.approx(rate)
    assert stage(learning_rate_multiplier=0.5).optim.lr == pytest.approx(rate / 2)
    assert stage(model=Model("big", 8_000_000_000)).optim.lr < rate / 2


def test_beta_is_the_loss_s() -> None:
    assert dpo().loss.beta == 0.1
    assert dpo(beta=0.7).loss.beta == 0.7


def test_reinforcement_takes_batches_of_prompts_for_as_many_steps_as_its_epochs_have() -> None:
    stage = rft(rows=100, batch_size=8, n_epochs=3)
    assert (stage.prompts_per_step, stage.steps) == (8, 38)  # 300 / 8, rounded up


@pytest.mark.parametrize(("multiplier", "group"), [(0.1, 2), (0.5, 4), (1, 8), (2, 16), (10, 64)])
def test_more_compute_is_more_completions_a_prompt(multiplier: float, group: int) -> None:
    assert rft(compute_multiplier=multiplier).group_size == group


def test_the_reward_of_a_job_is_the_graders_own() -> None:
    assert rft().algorithm.preset == "dapo" and rft().algorithm.overlong_buffer == 0.0


def test_eval_interval_is_when_validation_and_checkpoints_are_due() -> None:
    stage = rft(validation=True, eval_interval=5)
    assert (stage.eval_every, stage.save_every) == (5, 5)


def test_eval_samples_are_rows_of_the_validation_file_and_the_best_model_of_them_is_taken() -> None:
    stage = rft(validation=True, eval_samples=3)
    assert stage.validation is not None and stage.validation.limit == 3  # type: ignore[union-attr]
    assert stage.final == "best"
    assert rft().validation is None and rft().final == "last"


def test_effort_is_room_to_answer_and_for_a_model_that_thinks_to_think() -> None:
    assert rft(reasoning_effort="low").sampling.max_tokens < rft().sampling.max_tokens
    assert rft(reasoning_effort="high").sampling.max_tokens > rft().sampling.max_tokens
    assert rft(reasoning_effort="high").sampling.thinking_budget is None
    thinks = Model("qwen3-0.6b", 600_000_000)
    low, high = (rft(model=thinks, reasoning_effort=effort).sampling for effort in ("low", "high"))
    assert low.thinking_budget is not None and high.thinking_budget is not None
    assert low.thinking_budget < high.thinking_budget < high.max_tokens
    held = rft(model=thinks, response_format={"type": "json_object"}).sampling
    assert held.thinking_budget is None


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}},
        {"type": "json_schema", "name": "n", "schema": SCHEMA},
    ],
)
def test_a_form_is_taken_nested_and_flat(form: dict[str, Any]) -> None:
    stage = rft(response_format=form)
    assert stage.response_format is not None
    assert stage.response_format.schema == SCHEMA
    assert rft().response_format is None


@pytest.mark.parametrize("stage", [sft, dpo])
def test_a_checkpoint_stands_at_the_end_of_each_epoch_and_three_stay(stage: Any) -> None:
    found = stage(rows=100, batch_size=8, validation=True)
    assert (found.save_every, found.eval_every, found.keep_last) == (13, 13, 3)
    assert found.validation.path == str(VALIDATION)


def test_a_long_epoch_has_checkpoints_within_it() -> None:
    stage = sft(rows=10_000, batch_size=10)
    assert stage.save_every == 200


def test_fewer_rows_than_a_batch_are_a_step_an_epoch() -> None:
    assert (sft(rows=3, batch_size=64).save_every, sft(rows=3, batch_size=64).batch_size) == (1, 3)
    assert (rft(rows=3, batch_size=64, n_epochs=2).steps, rft(rows=3, batch_size=64).prompts_per_step) == (2, 3)


def test_rows_may_be_as_long_as_the_model_reads() -> None:
    assert sft().max_length == 8192
    assert sft(model=Model("qwen3-0.6b", 600_000_000)).max_length > 8192


def test_weights_and_biases_is_told_by_recipe_and_environment() -> None:
    integrations = [{"type": "wandb", "wandb": {"project": "mine", "entity": "us", "tags": ["a", "b,c"]}}]
    assert made(integrations=integrations).report_to == ("wandb",)
    job = {"integrations": integrations, "model": "gpt-x", "id": "ftjob-1"}
    assert environment(job) == {
        "WANDB_PROJECT": "mine",
        "WANDB_ENTITY": "us",
        "WANDB_NAME": "ftjob-1",
        "WANDB_TAGS": "sharpen,gpt-x,ftjob-1,a,b c",
    }
    assert environment({**job, "integrations": None}) == {}


def test_auto_is_numbers_that_follow_the_rows() -> None:
    def numbers(kind: str, rows: int, **asked: Any) -> dict[str, Any]:
        found = settled({"type": kind, kind: {"hyperparameters": asked}}, {"rows": rows, "validation_rows": 500})
        named: dict[str, Any] = found["method"][kind]["hyperparameters"]
        assert found["hyperparameters"] == {
            name: named[name] for name in ("batch_size", "learning_rate_multiplier", "n_epochs")
        }
        return named

    assert numbers("supervised", 10) == {"batch_size": 1, "n_epochs": 3, "learning_rate_multiplier": 1.0}
    assert numbers("supervised", 5_000) == {"batch_size": 16, "n_epochs": 2, "learning_rate_multiplier": 1.0}
    assert numbers("supervised", 100, n_epochs="auto", batch_size=5)["batch_size"] == 5
    assert numbers("dpo", 64) == {"batch_size": 8, "n_epochs": 2, "learning_rate_multiplier": 1.0, "beta": 0.1}
    assert numbers("reinforcement", 100) == {
        "batch_size": 16,
        "n_epochs": 5,
        "learning_rate_multiplier": 1.0,
        "compute_multiplier": 1.0,
        "eval_interval": 4,  # 32 steps
        "eval_samples": 64,
        "reasoning_effort": "default",
    }


def auto(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), st.just("auto"), numbers)


def common() -> dict[str, st.SearchStrategy[Any]]:
    return {
        "batch_size": auto(st.integers(1, 256)),
        "n_epochs": auto(st.integers(1, 50)),
        "learning_rate_multiplier": auto(st.floats(1e-9, 1e6)),
    }


ASKED = {
    "supervised": st.fixed_dictionaries(common()),
    "dpo": st.fixed_dictionaries({**common(), "beta": auto(st.floats(0, 2, exclude_min=True))}),
    "reinforcement": st.fixed_dictionaries(
        {
            **common(),
            "compute_multiplier": auto(st.floats(1e-5, 10, exclude_min=True)),
            "eval_interval": auto(st.integers(1, 10_000)),
            "eval_samples": auto(st.integers(1, 10_000)),
            "reasoning_effort": st.sampled_from([None, "default", "low", "medium", "high"]),
        }
    ),
}


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(sorted(ASKED)), st.integers(1, 10**7), st.booleans())
def test_whatever_may_be_asked_makes_a_recipe(data: st.DataObject, kind: str, rows: int, validation: bool) -> None:
    asked = data.draw(ASKED[kind])
    method: dict[str, Any] = {"type": kind, kind: {"hyperparameters": asked}}
    if kind == "reinforcement":
        method[kind]["grader"] = GRADER
    body = JobBody.model_validate({"model": "m", "training_file": "file-1", "method": method})
    stage = made(kind, rows, validation, **body.asked()).stages[0]
    assert stage.optim.lr != "auto" and 0 < stage.optim.lr < math.inf


@pytest.mark.parametrize(
    ("kind", "name", "wrong"),
    [
        ("supervised", "batch_size", 0),
        ("supervised", "batch_size", 257),
        ("supervised", "batch_size", 2.5),
        ("supervised", "batch_size", True),
        ("supervised", "n_epochs", 51),
        ("supervised", "learning_rate_multiplier", 0),
        ("supervised", "learning_rate_multiplier", math.inf),
        ("supervised", "learning_rate_multiplier", "much"),
        ("supervised", "beta", 0.1),
        ("dpo", "beta", 2.1),
        ("dpo", "beta", 0),
        ("reinforcement", "compute_multiplier", 1e-5),
        ("reinforcement", "compute_multiplier", 11),
        ("reinforcement", "eval_interval", 0),
        ("reinforcement", "eval_samples", 0),
        ("reinforcement", "reasoning_effort", "huge"),
    ],
)
def test_what_is_out_of_range_is_told_at_its_place(kind: str, name: str, wrong: Any) -> None:
    method: dict[str, Any] = {"type": kind, kind: {"hyperparameters": {name: wrong}}}
    if kind == "reinforcement":
        method[kind]["grader"] = GRADER
    with pytest.raises(ValidationError) as caught:
        JobBody.model_validate({"model": "m", "training_file": "file-1", "method": method})
    assert [error["loc"] for error in caught.value.errors()] == [("method", kind, "hyperparameters", name)]


def test_the_old_place_of_hyperparameters_gives_way_to_the_method_s() -> None:
    asked = {"model": "m", "training_file": "file-1", "hyperparameters": {"n_epochs": 2, "batch_size": 4}}
    assert JobBody.model_validate(asked).asked() == {"n_epochs": 2, "batch_size": 4}
    asked["method"] = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 5}}}
    assert JobBody.model_validate(asked).asked() == {"n_epochs": 5, "batch_size": 4}
