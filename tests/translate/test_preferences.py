"""Other trainers' preference configurations become `dpo` and `reward_model` stages, their losses by name and number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharpen.config.load import parse
from sharpen.config.stages import DPO, RewardModeling
from sharpen.errors import ConfigError
from sharpen.translate.file import translated
from sharpen.translate.keys import Translated

LLAMA_FACTORY = {"stage": "dpo", "finetuning_type": "lora", "dataset": "x", "model_name_or_path": "m"}
AXOLOTL = {"base_model": "x", "datasets": [{"path": "a/b", "type": "chatml.intel"}], "learning_rate": 2e-6}


def imported(folder: Path, values: dict[str, Any]) -> Translated:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return translated(path)


def dpo(found: Translated) -> DPO:
    stage = parse(found.recipe).stages[0]
    assert isinstance(stage, DPO)
    return stage


def left(found: Translated) -> set[str]:
    return {entry.key for entry in found.left}


@pytest.mark.parametrize(
    ("values", "loss"),
    [
        ({"beta": 0.2}, {"type": "sigmoid", "beta": 0.2, "label_smoothing": 0.0}),
        ({"label_smoothing": 0.1}, {"type": "sigmoid", "beta": 0.1, "label_smoothing": 0.1}),
        ({"loss_type": ["ipo"], "beta": 0.5}, {"type": "ipo", "beta": 0.5}),
        ({"loss_type": "hinge"}, {"type": "hinge", "beta": 0.1}),
        ({"precompute_ref_log_probs": True}, {"type": "sigmoid", "beta": 0.1, "label_smoothing": 0.0}),
        (
            {"desirable_weight": 2.0, "beta": 0.3},
            {"type": "kto", "beta": 0.3, "desirable_weight": 2.0, "undesirable_weight": 1.0},
        ),
        ({"loss_type": "kto"}, {"type": "kto", "beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}),
        ({"cpo_alpha": 0.5}, {"type": "cpo", "beta": 0.1, "cpo_alpha": 0.5, "label_smoothing": 0.0}),
        (
            {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 1.6},
            {"type": "simpo", "beta": 2.0, "simpo_gamma": 1.6, "label_smoothing": 0.0},
        ),
        ({"loss_type": "simpo"}, {"type": "simpo", "beta": 0.1, "simpo_gamma": 0.5, "label_smoothing": 0.0}),
    ],
    ids=str,
)
def test_each_loss_of_trl_comes_with_its_numbers(values: dict[str, Any], loss: dict[str, Any], tmp_path: Path) -> None:
    found = imported(tmp_path, {"dataset_name": "a/b", "max_length": 512, **values})
    stage = dpo(found)
    assert stage.loss.model_dump() == loss
    assert (stage.optim.lr, stage.optim.schedule, stage.batch_size, stage.epochs) == (1e-6, "linear", 8, 3.0)
    assert stage.max_length == 512 and left(found) == set()


def test_where_trl_says_the_same_of_two_losses_or_adds_a_term_the_recipe_says_to_look(tmp_path: Path) -> None:
    plain = imported(tmp_path, {"dataset_name": "a/b", "beta": 0.2, "output_dir": "x"})
    assert any("ORPOConfig" in line for line in plain.check)
    named = imported(tmp_path, {"dataset_name": "a/b", "beta": 0.2, "loss_type": "sigmoid", "output_dir": "x"})
    assert not any("ORPOConfig" in line for line in named.check)
    simpo = imported(tmp_path, {"dataset_name": "a/b", "loss_type": "simpo", "output_dir": "x"})
    assert any("adds a likelihood term" in line for line in simpo.check)
    weighed = imported(tmp_path, {"dataset_name": "a/b", "loss_type": "simpo", "cpo_alpha": 1.0})
    assert left(weighed) == {"cpo_alpha"}


def test_dropout_is_off_as_in_trl_unless_it_is_left_on(tmp_path: Path) -> None:
    values = {"dataset_name": "a/b", "beta": 0.1, "use_peft": True, "lora_dropout": 0.2}
    assert "dropout" not in imported(tmp_path, values).recipe["adapter"]
    assert imported(tmp_path, {**values, "disable_dropout": False}).recipe["adapter"]["dropout"] == 0.2


@pytest.mark.parametrize(
    ("values", "loss"),
    [
        ({}, {"type": "sigmoid", "beta": 0.1, "label_smoothing": 0.0}),
        (
            {"pref_beta": 0.2, "dpo_label_smoothing": 0.1},
            {"type": "sigmoid", "beta": 0.2, "label_smoothing": 0.1},
        ),
        ({"pref_loss": "ipo"}, {"type": "ipo", "beta": 0.1}),
        ({"pref_loss": "hinge"}, {"type": "hinge", "beta": 0.1}),
        ({"pref_loss": "orpo"}, {"type": "orpo", "beta": 0.1}),
        ({"pref_loss": "simpo"}, {"type": "simpo", "beta": 0.1, "simpo_gamma": 0.5, "label_smoothing": 0.0}),
        (
            {"stage": "kto", "kto_rejected_weight": 1.5},
            {"type": "kto", "beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.5},
        ),
    ],
    ids=str,
)
def test_each_loss_of_llama_factory_comes_with_its_numbers(
    values: dict[str, Any], loss: dict[str, Any], tmp_path: Path
) -> None:
    found = imported(tmp_path, {**LLAMA_FACTORY, **values})
    assert dpo(found).loss.model_dump() == loss and left(found) == set()


def test_llama_factorys_pairs_have_their_columns(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    columns = {"prompt": "instruction", "query": "input", "chosen": "good", "rejected": "rejected"}
    pairs = {"file_name": "pairs.json", "ranking": True, "columns": columns}
    shared = {"file_name": "shared.json", "ranking": True, "formatting": "sharegpt"}
    (tmp_path / "data/dataset_info.json").write_text(json.dumps({"x": pairs, "shared": shared}))
    found = imported(tmp_path, LLAMA_FACTORY)
    source = {"path": "data/pairs.json", "columns": {"prompt": "instruction", "chosen": "good"}}
    assert found.recipe["stages"][0]["data"] == source
    assert any("'input' of 'x' is added to the prompt" in line for line in found.check)
    told = imported(tmp_path, {**LLAMA_FACTORY, "dataset": "shared"}).check
    assert any("ShareGPT's pairs" in line for line in told)


@pytest.mark.parametrize(
    ("values", "loss"),
    [
        ({"rl": "dpo"}, {"type": "sigmoid", "beta": 0.1, "label_smoothing": 0.0}),
        (
            {"rl": "dpo", "rl_beta": 0.3, "dpo_label_smoothing": 0.2},
            {"type": "sigmoid", "beta": 0.3, "label_smoothing": 0.2},
        ),
        ({"rl": "dpo", "rl_beta": 0.3, "trl": {"beta": 0.4}}, {"type": "sigmoid", "beta": 0.4, "label_smoothing": 0.0}),
        ({"rl": "ipo", "rl_beta": 0.3}, {"type": "ipo", "beta": 0.3}),
        ({"rl": "orpo", "orpo_alpha": 0.2}, {"type": "orpo", "beta": 0.2}),
        (
            {"rl": "simpo", "rl_beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0},
            {"type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "label_smoothing": 0.0},
        ),
        (
            {"rl": "kto", "kto_desirable_weight": 0.2, "micro_batch_size": 4},
            {"type": "kto", "beta": 0.1, "desirable_weight": 0.2, "undesirable_weight": 1.0},
        ),
    ],
    ids=str,
)
def test_each_method_of_axolotl_comes_with_its_numbers(
    values: dict[str, Any], loss: dict[str, Any], tmp_path: Path
) -> None:
    found = imported(tmp_path, {**AXOLOTL, **values})
    stage = dpo(found)
    assert stage.loss.model_dump() == loss and stage.optim.lr == 2e-6 and left(found) == set()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dataset_name": "a/b", "loss_type": "robust"}, "preference loss that sharpen does not have .*'robust'"),
        ({"dataset_name": "a/b", "loss_type": ["sigmoid", "sft"]}, "a combination of losses"),
        ({"dataset_name": "a/b", "loss_type": "apo_zero_unpaired"}, "'apo_zero_unpaired'"),
        ({"dataset_name": "a/b", "loss_type": "hinge", "cpo_alpha": 1.0}, "'hinge'.*There are sigmoid"),
        ({**LLAMA_FACTORY, "pref_loss": "kto_pair"}, "'kto_pair'.*`stage: kto`"),
        ({**AXOLOTL, "rl": "gdpo"}, "for grpo import TRL's GRPOConfig"),
    ],
    ids=str,
)
def test_a_loss_that_is_not_here_is_named(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        imported(tmp_path, values)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"beta": 0.1, "rpo_alpha": 1.0}, "rpo_alpha"),
        ({"beta": 0.1, "ld_alpha": 0.5}, "ld_alpha"),
        ({"beta": 0.1, "f_divergence_type": "js_divergence"}, "f_divergence_type"),
        ({"beta": 0.1, "sync_ref_model": True}, "sync_ref_model"),
        ({"beta": 0.1, "use_weighting": True}, "use_weighting"),
        ({"loss_type": ["sigmoid"], "loss_weights": [0.5]}, "loss_weights"),
        ({"loss_type": "ipo", "label_smoothing": 0.1}, "label_smoothing"),
        ({"cpo_alpha": 1.0, "alpha": 0.2}, "alpha"),
        ({**LLAMA_FACTORY, "pref_ftx": 0.5}, "pref_ftx"),
        ({**LLAMA_FACTORY, "ref_model": "other"}, "ref_model"),
        ({**AXOLOTL, "rl": "dpo", "dpo_use_weighting": True}, "dpo_use_weighting"),
        ({**AXOLOTL, "rl": "dpo", "trl": {"use_vllm": True}}, "trl.use_vllm"),
    ],
    ids=str,
)
def test_a_setting_of_preferences_without_an_equivalent_is_listed(
    values: dict[str, Any], key: str, tmp_path: Path
) -> None:
    named = {} if "base_model" in values or "dataset" in values else {"dataset_name": "a/b"}
    found = imported(tmp_path, {**named, **values})
    assert {entry.key for entry in found.left} == {key}


@pytest.mark.parametrize(
    ("values", "lr"),
    [
        ({"dataset_name": "a/b", "center_rewards_coefficient": 0.01}, 1e-4),
        ({**LLAMA_FACTORY, "stage": "rm", "learning_rate": 1e-5}, 1e-5),
        ({**AXOLOTL, "reward_model": True}, 2e-6),
    ],
    ids=["trl", "llama-factory", "axolotl"],
)
def test_a_reward_model_is_a_stage_of_that_name(values: dict[str, Any], lr: float, tmp_path: Path) -> None:
    found = imported(tmp_path, values)
    stage = parse(found.recipe).stages[0]
    assert isinstance(stage, RewardModeling) and stage.optim.lr == lr
    assert stage.center_rewards_coefficient == values.get("center_rewards_coefficient")
    assert left(found) == set()
