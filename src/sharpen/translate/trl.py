"""TRL's configurations of SFT, GRPO, preferences and reward models, with the model, script and adapter arguments."""

from __future__ import annotations

from typing import Any

from sharpen.errors import ConfigError
from sharpen.translate import common, preferences
from sharpen.translate.keys import Keys, Translated

DEFAULTS: dict[str, Any] = {
    **common.HF_DEFAULTS,
    "learning_rate": 2e-5,
    "max_length": 1024,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "use_bnb_nested_quant": False,
}
"""Of `SFTConfig` and `ModelConfig` (TRL 1.16), where they are not those of TrainingArguments."""

GRPO_DEFAULTS: dict[str, Any] = {
    **DEFAULTS,
    "learning_rate": 1e-6,
    "num_generations": 8,
    "max_completion_length": 512,
    "temperature": 1.0,
    "epsilon": 0.2,
    "beta": 0.0,
    "num_iterations": 1,
    "loss_type": "dapo",
    "scale_rewards": "group",
    "importance_sampling_level": "token",
    "mask_truncated_completions": False,
    "use_bias_correction_kl": True,
}

NORMALIZERS = {"grpo": "sequence", "dr_grpo": "max_tokens", "dapo": "token", "bnpo": "token", "cispo": "token"}
ADVANTAGES = {"group": "normalized", "true": "normalized", "none": "centered", "false": "centered"}
HERE = {"max_completion_length", "num_generations", "reward_funcs", "steps_per_generation", "epsilon", "scale_rewards"}
OF_REWARD = {"center_rewards_coefficient"}


def translate(values: dict[str, Any]) -> Translated:
    """The recipe of a TRL configuration. Raises ConfigError for a trainer that has no counterpart."""
    disabled = False
    if set(values) & HERE:
        keys = Keys(values, GRPO_DEFAULTS)
        stage = _grpo(keys)
    elif set(values) & OF_REWARD:
        keys = Keys(values, {**DEFAULTS, "learning_rate": 1e-4, "disable_dropout": True})
        stage, disabled = _reward_model(keys), bool(keys.take("disable_dropout"))
    elif kind := preferences.kind_of(values):
        keys = Keys(values, {**DEFAULTS, **preferences.DEFAULTS})
        stage, disabled = _preferences(keys, kind), bool(keys.take("disable_dropout"))
    else:
        keys = Keys(values, DEFAULTS)
        stage = _sft(keys)
    recipe = {
        "model": _model(keys),
        "seed": keys.take("seed"),
        "dtype": {"bfloat16": "bfloat16", "float32": "float32"}.get(str(keys.take("dtype", "torch_dtype"))),
        "adapter": preferences.without_dropout(common.adapter(keys, bool(keys.take("use_peft"))), disabled),
        "chat_template_kwargs": keys.take("chat_template_kwargs"),
        "report_to": common.trackers(keys),
        "stages": [stage],
    }
    common.quantised(keys)
    needless = keys.close(common.NEEDLESS)
    return Translated("TRL", common.without_none(recipe), tuple(keys.left), tuple(keys.check), needless)


def _model(keys: Keys) -> str:
    name, revision = keys.take("model_name_or_path"), keys.take("model_revision")
    if name is None:
        keys.check.append("the file names no model: set `model`")
        return "smollm2-135m-instruct"
    return f"{name}@{revision}" if revision not in (None, "main") else str(name)


def _data(keys: Keys) -> dict[str, Any]:
    name, config, split = keys.take("dataset_name"), keys.take("dataset_config"), keys.take("dataset_train_split")
    if keys.given("datasets"):
        keys.leave("datasets", "is not read: write its parts as a list under `data`")
    if name is None:
        keys.check.append("the file names no data: set stages.0.data.path")
        return {"path": "train.jsonl"}
    path = f"{name}:{config}" if config else str(name)
    return {"path": f"{path}/{split}" if split not in (None, "train") else path}


def _sft(keys: Keys) -> dict[str, Any]:
    keys.only("loss_type", "nll")
    keys.only("completion_only_loss", True, "only completions are ever trained here")
    keys.only("neftune_noise_alpha", 0)
    if not keys.take("assistant_only_loss"):
        keys.check.append(
            "of `messages` only the assistant's turns are trained here; TRL trains all of them by default"
        )
    return {"type": "sft", **_epochs(keys)}


def _preferences(keys: Keys, kind: str) -> dict[str, Any]:
    return {"type": "dpo", "loss": preferences.of_trl(keys, kind), **_epochs(keys)}


def _reward_model(keys: Keys) -> dict[str, Any]:
    coefficient = keys.take("center_rewards_coefficient")
    return {"type": "reward_model", "center_rewards_coefficient": coefficient or None, **_epochs(keys)}


def _epochs(keys: Keys) -> dict[str, Any]:
    """What the stages share that learn from rows in epochs."""
    size = common.batch(keys, "per_device_train_batch_size")
    keys.only("max_steps", (-1, 0), "is a number of epochs here: set `epochs`")
    return common.without_none(
        {
            "data": _data(keys),
            "epochs": keys.take("num_train_epochs"),
            "batch_size": size,
            **common.cut(keys, "max_length", "max_seq_length"),
            **common.saving(keys),
            "optim": common.optim(keys, None),
        }
    )


def _grpo(keys: Keys) -> dict[str, Any]:
    group = int(keys.take("num_generations"))
    completions = keys.take("generation_batch_size") or common.batch(keys, "per_device_train_batch_size")
    keys.taken |= {"per_device_train_batch_size", "gradient_accumulation_steps"}
    keys.leave("steps_per_generation", "here every step samples anew (num_iterations steps on each batch)")
    if int(completions) % group:
        raise ConfigError(
            "completions a step are no multiple of num_generations",
            value=f"{completions} and {group}",
            remedy="Mend it",
        )
    steps = keys.take("max_steps")
    if steps in (None, -1, 0):
        steps = None
        keys.check.append("steps: TRL counts epochs over the prompts; here it is a number: set stages.0.steps")
    keys.taken.add("num_train_epochs")
    keys.only("repetition_penalty", 1.0)
    keys.only("multi_objective_aggregation", "sum_then_normalize")
    return common.without_none(
        {
            "type": "rft",
            "data": _data(keys),
            "grader": _grader(keys),
            "algorithm": _algorithm(keys),
            "prompts_per_step": int(completions) // group,
            "group_size": group,
            "steps": steps,
            "sampling": common.without_none(
                {
                    "temperature": keys.take("temperature"),
                    "max_tokens": keys.take("max_completion_length"),
                    "top_p": keys.take("top_p"),
                    "top_k": keys.take("top_k") or None,
                    "min_p": keys.take("min_p"),
                }
            ),
            **common.saving(keys),
            "optim": common.optim(keys, steps),
        }
    )


def _algorithm(keys: Keys) -> dict[str, Any]:
    loss, scale = str(keys.take("loss_type")), str(keys.take("scale_rewards")).lower()
    if loss not in NORMALIZERS:
        raise ConfigError(
            "a loss that sharpen does not have", path="loss_type", value=loss, remedy=f"Known: {', '.join(NORMALIZERS)}"
        )
    if scale not in ADVANTAGES:
        keys.leave("scale_rewards", "is by group or not at all here; the recipe has `normalized`")
    if loss == "bnpo":
        keys.check.append("bnpo divides by the tokens of each device's microbatch, `token` by those of the whole step")
    found: dict[str, Any] = {
        "preset": "cispo" if loss == "cispo" else "grpo",
        "advantage": ADVANTAGES.get(scale, "normalized"),
        "ratio": "sequence" if keys.take("importance_sampling_level") == "sequence" else "token",
        "normalizer": NORMALIZERS[loss],
        "mask_truncated": keys.take("mask_truncated_completions"),
        "num_iterations": keys.take("num_iterations"),
    }
    low, high = keys.take("epsilon"), keys.take("epsilon_high")
    if loss == "cispo":
        found |= {"clip_high": high or low}
    else:
        found |= {"clip_low": low, "clip_high": high or low}
    beta, weighted = float(keys.take("beta")), bool(keys.take("use_bias_correction_kl"))
    if beta:
        found["kl"] = {"coef": beta, "estimator": "k3", "importance_weighted": weighted}
    if bonus := keys.take("entropy_coef"):
        found["entropy_coef"] = float(bonus)
    for name in ("vllm_importance_sampling_cap", "vllm_importance_sampling_clip_max"):
        if keys.given(name):
            found["mismatch_cap"] = keys.take(name)
    return found


def _grader(keys: Keys) -> dict[str, Any]:
    """Their reward functions unchanged; several are summed with their weights."""
    names = keys.take("reward_funcs", "reward_model_name_or_path") or []
    names = [names] if isinstance(names, str) else list(names)
    weights = keys.take("reward_weights") or [1.0] * len(names)
    graders = [_reward(str(name)) for name in names]
    if not graders:
        keys.check.append("the file names no reward function: set stages.0.grader.use")
        return {"type": "trl", "use": "my_rewards:reward"}
    if len(graders) == 1 and weights[0] == 1:
        return graders[0]
    parts = {f"reward_{number}": grader for number, grader in enumerate(graders, start=1)}
    formula = " + ".join(f"{weight:g} * {name}" for weight, name in zip(weights, parts, strict=True))
    return {"type": "multi", "graders": parts, "calculate_output": formula}


def _reward(name: str) -> dict[str, Any]:
    """A function by its dotted path, one of TRL's own by its name, or a reward model by its hub id or folder."""
    if "/" in name:
        return {"type": "reward_model", "model": name}
    module, _, function = name.rpartition(".")
    return {"type": "trl", "use": f"{module or 'trl.rewards'}:{function}"}
