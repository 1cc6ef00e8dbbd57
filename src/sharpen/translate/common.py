"""What the configurations of TRL, LLaMA-Factory and Axolotl share: all stand on transformers' TrainingArguments."""

from __future__ import annotations

from typing import Any

from sharpen.translate.keys import Keys

HF_DEFAULTS: dict[str, Any] = {
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "warmup_steps": 0,
    "optim": "adamw_torch_fused",
    "seed": 42,
    "save_steps": 500,
}
"""Of transformers' TrainingArguments (5.23)."""

NEEDLESS = frozenset(
    """output_dir overwrite_output_dir run_name logging_steps logging_strategy logging_first_step logging_dir log_level
    do_train do_eval do_predict dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor dataset_num_proc
    preprocessing_num_workers overwrite_cache remove_unused_columns gradient_checkpointing gradient_checkpointing_kwargs
    bf16 fp16 tf32 ddp_timeout ddp_find_unused_parameters plot_loss save_only_model per_device_eval_batch_size
    eval_strategy evaluation_strategy save_strategy attn_implementation flash_attn flash_attention use_liger_kernel
    use_vllm vllm_mode vllm_gpu_memory_utilization vllm_server_host vllm_server_port vllm_tensor_parallel_size
    log_completions push_to_hub hub_model_id packing sample_packing pad_to_sequence_len eval_sample_packing
    dataset_prepared_path group_by_length padding_free eval_packing packing_strategy template chat_template
    xformers_attention sdp_attention wandb_project wandb_entity wandb_watch wandb_name wandb_log_model wandb_run_id
    dataset_processes include_num_input_tokens_seen print_param_status disable_tqdm upcast_layernorm
    use_unsloth enable_liger_kernel neat_packing ddp shuffle_dataset plugins strict is_llama_derived_model
    tokenizer_type model_type eval_batch_size eval_on_start gradient_checkpointing_ratio
    dataset_text_field skip_prepare_dataset trust_remote_code lora_task_type deepspeed fsdp fsdp_config""".split()
)
"""Keys that change speed, place or words there, and mean nothing here."""

SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
OPTIMIZERS = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw": "adamw",
    "adamw_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw_8bit": "adamw_8bit",
}
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")


def optim(keys: Keys, steps: int | None) -> dict[str, Any]:
    """The optimiser; `steps` in all, where that is known, turn a warm-up in steps into a share."""
    values: dict[str, Any] = {
        "type": _known(keys, OPTIMIZERS, "optim", "optimizer"),
        "lr": float(keys.take("learning_rate")),
        "schedule": _known(keys, SCHEDULES, "lr_scheduler_type", "lr_scheduler"),
        "warmup_ratio": _warmup(keys, steps),
        "weight_decay": keys.take("weight_decay"),
        "beta1": keys.take("adam_beta1"),
        "beta2": keys.take("adam_beta2"),
        "max_grad_norm": keys.take("max_grad_norm"),
    }
    keys.only("adam_epsilon", (1e-8, "1e-8"), "is fixed at 1e-8")
    return {name: value for name, value in values.items() if value is not None}


def _known(keys: Keys, names: dict[str, str], *options: str) -> str | None:
    """Our name of a choice; one that we do not have is left, and ours stands."""
    value = keys.take(*options)
    if value is None or str(value) in names:
        return names.get(str(value))
    given = next(name for name in options if keys.given(name))
    keys.leave(given, f"is none of ours ({', '.join(sorted(set(names.values())))}); the recipe has its default")
    return None


def _warmup(keys: Keys, steps: int | None) -> float:
    ratio, warmup = keys.take("warmup_ratio"), keys.take("warmup_steps") or 0
    if not warmup:
        return float(ratio or 0.0)
    if warmup < 1:  # transformers 5 takes a share here
        return float(warmup)
    if steps:
        return min(0.99, warmup / steps)
    keys.leave("warmup_steps", "is a share of the steps here, and how many there will be is not known from the file")
    return float(ratio or 0.0)


def adapter(keys: Keys, lora: bool) -> dict[str, Any] | None:
    """The adapter, where one is wanted: a qlora where the base is held in 4 bits."""
    names = ("lora_r", "lora_rank"), ("lora_alpha",), ("lora_dropout",)
    if not lora:
        for name in ("lora_r", "lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target"):
            keys.taken.add(name)
        return None
    rank, alpha, dropout = (keys.take(*options) for options in names)
    targets = keys.take("lora_target_modules", "lora_target")
    bits = _four_bits(keys)
    values = {
        "type": "lora" if bits is None else "qlora",
        "rank": rank,
        "alpha": 2 * rank if alpha is None else int(alpha),
        "dropout": dropout,
        "dora": keys.take("use_dora", "peft_use_dora"),
        "rslora": keys.take("use_rslora", "peft_use_rslora"),
        "targets": _targets(keys, targets),
    }
    for name in ("lora_modules_to_save", "modules_to_save", "additional_target", "lora_target_parameters"):
        keys.leave(name, "is not trained beside an adapter here")
    return {name: value for name, value in values.items() if value is not None and value is not False} | (bits or {})


def _four_bits(keys: Keys) -> dict[str, Any] | None:
    """How the base is held in 4 bits, in so far as a recipe's own defaults are others; None: it is not."""
    if not (keys.values.get("load_in_4bit") or keys.values.get("quantization_bit") == 4):
        return None
    keys.taken |= {"load_in_4bit", "quantization_bit"}
    keys.only("quantization_method", ("bnb", "bitsandbytes"), "is always bitsandbytes here")
    nested = keys.take("bnb_config_kwargs") or {}  # Axolotl's
    if set(nested) - {"bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype"}:
        keys.leave("bnb_config_kwargs", "of these, bnb_4bit_quant_type and bnb_4bit_use_double_quant are read")
    kind = nested.get("bnb_4bit_quant_type") or keys.take("bnb_4bit_quant_type", "quantization_type") or "nf4"
    double = nested.get("bnb_4bit_use_double_quant", keys.take("use_bnb_nested_quant", "double_quantization"))
    found = {"quant_type": kind} if kind != "nf4" else {}
    return found | ({"double_quant": False} if double is False else {})


def _targets(keys: Keys, targets: Any) -> Any:
    if keys.take("lora_target_linear") or targets in ("all", "all-linear"):
        return "all-linear"
    return [name.strip() for name in targets.split(",")] if isinstance(targets, str) else targets


def quantised(keys: Keys) -> None:
    """Quantised base weights that `adapter` has not taken up: of 8 bits, or without an adapter."""
    for name in {"load_in_4bit", "load_in_8bit", "quantization_bit"} - keys.taken:
        keys.only(name, False, "base weights are held in 4 bits under an adapter here, or not quantised")


def trackers(keys: Keys) -> list[str]:
    """Those of `report_to` that are ours too."""
    value = keys.take("report_to")
    names = [value] if isinstance(value, str) else list(value or [])
    found = [name for name in names if name in TRACKERS]
    if set(names) - {*TRACKERS, "none", "all"} or "all" in names:
        keys.leave("report_to", f"of these trackers there are {', '.join(TRACKERS)} here")
    return found


def saving(keys: Keys) -> dict[str, Any]:
    """Looks and checkpoints, in steps."""
    found = {}
    for theirs, ours in (("eval_steps", "eval_every"), ("save_steps", "save_every")):
        value = keys.take(theirs)
        if value is None:
            continue
        if value < 1:  # a share of the steps
            keys.leave(theirs, f"is a number of steps here ({ours})")
        else:
            found[ours] = int(value)
    if limit := keys.take("save_total_limit"):
        found["keep_last"] = int(limit)
    return found


def batch(keys: Keys, each: str) -> int:
    """Rows an optimiser step on one device."""
    size = int(keys.take(each)) * int(keys.take("gradient_accumulation_steps"))
    keys.check.append(f"{size} rows a step are those of one device; multiply by the number of devices you had")
    return size


def cut(keys: Keys, *names: str) -> dict[str, Any]:
    """The longest row."""
    length = keys.take(*names)
    if length is None:
        return {}
    keys.check.append(f"rows longer than {length} tokens are an error here, not cut: `sharpen data check` lists them")
    return {"max_length": int(length)}


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    """The values that are there."""
    return {name: value for name, value in values.items() if value not in (None, [], {})}
