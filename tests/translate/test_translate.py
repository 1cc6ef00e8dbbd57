"""Other trainers' configurations become recipes that compute the same, and nothing is dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharpen.cli.main import main
from sharpen.config.load import load, parse
from sharpen.config.stages import RFT, SFT
from sharpen.errors import ConfigError
from sharpen.translate.file import translated
from sharpen.translate.keys import Translated

CONFIGS = Path(__file__).parent / "configs"


def written(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def left(found: Translated) -> set[str]:
    return {entry.key for entry in found.left}


def test_a_llama_factory_file_keeps_its_numbers_its_defaults_and_its_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    catalogue = {
        "identity": {"file_name": "identity.json"},
        "faq": {"hf_hub_url": "me/faq", "subset": "en", "split": "all", "columns": {"prompt": "q", "response": "a"}},
    }
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(catalogue))
    path = tmp_path / "llama_factory.yaml"
    path.write_text((CONFIGS / "llama_factory.yaml").read_text())
    found = translated(path)
    assert found.source == "LLaMA-Factory"
    recipe = parse(found.recipe)
    stage = recipe.stages[0]
    assert isinstance(stage, SFT)
    assert recipe.model == "meta-llama/Meta-Llama-3-8B-Instruct" and recipe.seed == 42
    assert found.recipe["adapter"] == {"type": "lora", "rank": 12, "alpha": 24, "targets": "all-linear"}
    assert (stage.batch_size, stage.epochs, stage.max_length, stage.save_every) == (8, 2.0, 1024, 200)
    optim = stage.optim
    assert (optim.lr, optim.schedule, optim.warmup_ratio, optim.beta2) == (1e-4, "cosine", 0.1, 0.999)
    assert found.recipe["stages"][0]["data"] == [
        {"path": "data/identity.json", "limit": 1000},
        {"path": "me/faq:en/all", "columns": {"prompt": "q", "completion": "a"}, "limit": 1000},
    ]
    assert left(found) == {"neftune_noise_alpha"}
    assert {"template", "plot_loss", "trust_remote_code", "output_dir"} <= set(found.needless)


def test_an_axolotl_file_keeps_its_four_bits() -> None:
    found = translated(CONFIGS / "axolotl.yaml")
    stage = parse(found.recipe).stages[0]
    assert isinstance(stage, SFT) and stage.validation is not None
    source = {"path": "teknium/GPT4-LLM-Cleaned/validation", "split": {"test": 0.1}}
    assert found.recipe["stages"][0]["data"] == source
    assert found.recipe["stages"][0]["validation"]["split"] == {"test": 0.1, "part": "test"}
    assert (stage.batch_size, stage.epochs, stage.max_length) == (8, 2.0, 2048)
    assert (stage.optim.type, stage.optim.lr, stage.optim.weight_decay) == ("adamw_8bit", 2e-4, 0.01)
    lora = {"type": "qlora", "rank": 32, "alpha": 16, "dropout": 0.05, "targets": ["gate_proj", "down_proj"]}
    assert found.recipe["adapter"] == lora
    assert found.recipe["report_to"] == ["wandb"]
    assert left(found) == {"evals_per_epoch", "loss_watchdog_threshold"}


LLAMA_FACTORY = {"model_name_or_path": "m", "stage": "sft", "dataset": "x", "finetuning_type": "lora"}
AXOLOTL = {"base_model": "x", "micro_batch_size": 1, "datasets": [{"path": "a/b"}], "adapter": "lora", "lora_r": 8}
TRL_LORA = {"dataset_name": "a/b", "max_length": 512, "use_peft": True}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({**LLAMA_FACTORY, "quantization_bit": 4}, ("nf4", True)),
        ({**LLAMA_FACTORY, "quantization_bit": 4, "quantization_type": "fp4"}, ("fp4", True)),
        ({**LLAMA_FACTORY, "quantization_bit": 4, "double_quantization": False}, ("nf4", False)),
        ({**AXOLOTL, "load_in_4bit": True}, ("nf4", True)),
        (
            {**AXOLOTL, "load_in_4bit": True, "bnb_config_kwargs": {"bnb_4bit_use_double_quant": False}},
            ("nf4", False),
        ),
        ({**TRL_LORA, "load_in_4bit": True}, ("nf4", False)),
        ({**TRL_LORA, "load_in_4bit": True, "use_bnb_nested_quant": True}, ("nf4", True)),
        ({**TRL_LORA, "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, ("fp4", False)),
        (TRL_LORA, None),
        (LLAMA_FACTORY, None),
    ],
    ids=str,
)
def test_a_base_in_four_bits_is_held_as_there(values: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    """Each trainer's own default for double quantisation too: TRL's is none."""
    found = translated(written(tmp_path, values))
    adapter = parse(found.recipe).adapter
    assert (getattr(adapter, "quant_type", None), getattr(adapter, "double_quant", None)) == (expected or (None, None))
    assert not left(found)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({**LLAMA_FACTORY, "quantization_bit": 8}, "quantization_bit"),
        ({**LLAMA_FACTORY, "quantization_bit": 4, "quantization_method": "hqq"}, "quantization_method"),
        ({**LLAMA_FACTORY, "quantization_bit": 4, "finetuning_type": "full"}, "quantization_bit"),
        ({**AXOLOTL, "load_in_8bit": True}, "load_in_8bit"),
        ({**AXOLOTL, "load_in_4bit": True, "bnb_config_kwargs": {"llm_int8_threshold": 1}}, "bnb_config_kwargs"),
    ],
    ids=str,
)
def test_other_quantisation_is_listed(values: dict[str, Any], key: str, tmp_path: Path) -> None:
    assert key in left(translated(written(tmp_path, values)))


def test_a_grpo_config_keeps_its_algorithm() -> None:
    found = translated(CONFIGS / "trl_config.yaml")
    recipe = parse(found.recipe)
    stage = recipe.stages[0]
    assert isinstance(stage, RFT)
    assert recipe.model == "Qwen/Qwen2.5-0.5B-Instruct@abc123"
    assert found.recipe["stages"][0]["data"] == {"path": "trl-lib/tldr:small"}
    assert (stage.prompts_per_step, stage.group_size, stage.steps) == (16, 4, 200)  # 16 * 4 completions, 4 a prompt
    algorithm = stage.algorithm
    assert (algorithm.advantage, algorithm.normalizer, algorithm.ratio) == ("centered", "max_tokens", "token")
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.overlong_buffer) == (0.2, 0.28, 0.0)
    assert (algorithm.kl.coef, algorithm.kl.estimator, algorithm.kl.importance_weighted) == (0.04, "k3", True)
    assert (stage.optim.lr, stage.optim.schedule, stage.optim.warmup_ratio) == (1e-6, "linear", 0.1)  # 20 of 200
    assert (stage.sampling.max_tokens, stage.keep_last) == (256, 3)
    assert recipe.chat_template_kwargs == {"enable_thinking": False}
    grader = found.recipe["stages"][0]["grader"]
    assert grader["calculate_output"] == "1 * reward_1 + 0.5 * reward_2"
    assert [part["use"] for part in grader["graders"].values()] == [
        "my_rewards:length",
        "trl.rewards:think_format_reward",
    ]
    assert "top_entropy_quantile" in left(found)
    assert "use_vllm" in found.needless


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"loss_type": "grpo"}, {"normalizer": "sequence", "ratio": "token"}),
        ({"loss_type": "dapo"}, {"normalizer": "token", "clip_high": 0.2}),
        ({"loss_type": "bnpo"}, {"normalizer": "token"}),
        ({"loss_type": "cispo", "epsilon_high": 5.0}, {"clip": "cispo", "clip_high": 5.0}),
        ({"importance_sampling_level": "sequence", "epsilon": 3e-4}, {"ratio": "sequence", "clip_low": 3e-4}),
        ({"scale_rewards": "none"}, {"advantage": "centered"}),
        ({"scale_rewards": True}, {"advantage": "normalized"}),
        ({"mask_truncated_completions": True}, {"mask_truncated": True}),
        ({"num_iterations": 3}, {"num_iterations": 3}),
        ({"entropy_coef": 0.01}, {"entropy_coef": 0.01}),
        ({"vllm_importance_sampling_cap": 4.0}, {"mismatch_cap": 4.0}),
    ],
    ids=str,
)
def test_each_setting_of_grpo_reaches_the_algorithm(
    change: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    base = {"num_generations": 8, "reward_funcs": "accuracy_reward", "dataset_name": "a/b"}
    stage = parse(translated(written(tmp_path, {**base, **change})).recipe).stages[0]
    assert isinstance(stage, RFT)
    algorithm = stage.algorithm.model_dump()
    assert {name: algorithm[name] for name in expected} == expected


def test_what_transformers_does_where_nothing_is_said_is_what_the_recipe_says(tmp_path: Path) -> None:
    found = translated(written(tmp_path, {"dataset_name": "a/b", "max_length": 512, "output_dir": "x"}))
    stage = parse(found.recipe).stages[0]
    assert isinstance(stage, SFT)
    assert (stage.batch_size, stage.epochs, stage.max_length) == (8, 3.0, 512)
    optim = stage.optim
    assert (optim.lr, optim.schedule, optim.warmup_ratio, optim.beta2) == (2e-5, "linear", 0.0, 0.999)
    assert any("assistant's turns" in line for line in found.check)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stage": "ppo", "finetuning_type": "lora", "dataset": "x"}, "a stage that sharpen does not have"),
        ({"base_model": "x", "rl": "grpo", "datasets": [{"path": "a/b"}]}, "training by `rl` that is not imported"),
        ({"num_generations": 8, "loss_type": "vespo"}, "a loss that sharpen does not have"),
        ({"num_generations": 8, "per_device_train_batch_size": 12}, "no multiple of num_generations"),
        ({"base_model": "x", "datasets": []}, "names no rows to train on"),
        (
            {"base_model": "x", "micro_batch_size": "many", "datasets": [{"path": "a/b"}]},
            "not of the kind that axolotl",
        ),
        ({"a": 1, "b": 2}, "cannot be told from its keys"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_training_that_has_no_counterpart_is_refused(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        translated(written(tmp_path, values))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"lr_scheduler_type": "polynomial"}, "lr_scheduler_type"),
        ({"optim": "adafactor"}, "optim"),
        ({"warmup_steps": 50}, "warmup_steps"),
        ({"report_to": ["comet_ml"]}, "report_to"),
        ({"a_new_key": 3}, "a_new_key"),
        ({"max_steps": 10}, "max_steps"),
        ({"neftune_noise_alpha": 5}, "neftune_noise_alpha"),
        ({"adam_epsilon": 1e-6}, "adam_epsilon"),
    ],
    ids=str,
)
def test_a_setting_without_an_equivalent_is_listed(values: dict[str, Any], key: str, tmp_path: Path) -> None:
    found = translated(written(tmp_path, {"dataset_name": "a/b", "max_length": 512, **values}))
    assert key in left(found)


SAME_WITHOUT = {"stage", "finetuning_type", "lora_target", "dataset_dir", "load_in_8bit"}
"""They say what that trainer would do without them."""


@pytest.mark.parametrize("name", ["llama_factory", "axolotl", "trl_config"])
def test_a_key_that_is_taken_away_changes_what_is_said(name: str, tmp_path: Path) -> None:
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    trainer: Any = {"trl_config": "trl", "llama_factory": "llama-factory"}.get(name, name)
    whole = translated(written(tmp_path, values), trainer)
    for key in values.keys() - set(whole.needless) - SAME_WITHOUT:
        without = {other: value for other, value in values.items() if other != key}
        try:
            less = translated(written(tmp_path, without), trainer)
        except ConfigError:
            continue  # it cannot do without
        assert less != whole, key


def test_the_command_writes_a_recipe_that_loads_and_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "recipe.yaml"
    assert main(["import", str(CONFIGS / "axolotl.yaml"), "--out", str(out)]) == 0
    assert load(out).model == "NousResearch/Llama-3.2-1B"
    told = capsys.readouterr().out
    assert "loss_watchdog_threshold: 5.0: has no equivalent" in told
    assert "#   loss_watchdog_threshold: 5.0: has no equivalent" in out.read_text()
    assert main(["import", str(CONFIGS / "axolotl.yaml"), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "none.yaml")]) == 2
    assert "cannot read the configuration" in capsys.readouterr().err
