"""What other trainers call things, and where they stand in a recipe: for the error on a key that is none of ours.

Names of TRL, transformers' Trainer, PEFT, Unsloth, LLaMA-Factory, verl, and OpenAI's fine-tuning API.
`N` stands for the number of the stage or eval.
"""

from __future__ import annotations

import re

_BATCH = "stages.N.batch_size (sft, dpo), stages.N.prompts_per_step and stages.N.group_size (rft)"
_MICROBATCH = "stages.N.tokens_per_microbatch"
_LENGTH = "stages.N.max_length"
_ANSWER = "stages.N.sampling.max_tokens"
_STEPS = "stages.N.epochs (sft, dpo), stages.N.steps (rft)"
_LR = "stages.N.optim.lr"
_WARMUP = "stages.N.optim.warmup_ratio"
_KL = "stages.N.algorithm.kl.coef"
_PRESET = "stages.N.algorithm.preset"
_ADVANTAGE = "stages.N.algorithm.advantage"

PLACES: dict[str, str] = {
    # how much at once
    "num_generations": "stages.N.group_size",
    "num_return_sequences": "stages.N.group_size",
    "n": "stages.N.group_size",
    "per_device_train_batch_size": _BATCH,
    "train_batch_size": _BATCH,
    "generation_batch_size": "stages.N.prompts_per_step and stages.N.group_size",
    "rollout_batch_size": "stages.N.prompts_per_step",
    "gradient_accumulation_steps": _MICROBATCH,
    "micro_batch_size": _MICROBATCH,
    "ppo_micro_batch_size_per_gpu": _MICROBATCH,
    "ppo_max_token_len_per_gpu": _MICROBATCH,
    "ppo_epochs": "stages.N.algorithm.num_iterations",
    # how long
    "n_epochs": _STEPS,
    "num_epochs": _STEPS,
    "num_train_epochs": _STEPS,
    "total_epochs": _STEPS,
    "max_steps": _STEPS,
    "total_training_steps": _STEPS,
    "cutoff_len": _LENGTH,
    "max_seq_length": _LENGTH,
    "max_seq_len": _LENGTH,
    "model_max_length": _LENGTH,
    "max_completion_length": _ANSWER,
    "max_new_tokens": _ANSWER,
    "max_response_length": _ANSWER,
    "response_length": _ANSWER,
    # the optimiser
    "learning_rate": _LR,
    "learning_rate_multiplier": f"{_LR}, the rate itself (auto, when left out)",
    "lr_scheduler_type": "stages.N.optim.schedule",
    "warmup_steps": f"{_WARMUP}, a share of the steps",
    "num_warmup_steps": f"{_WARMUP}, a share of the steps",
    "lr_warmup_steps": f"{_WARMUP}, a share of the steps",
    "lr_warmup_steps_ratio": _WARMUP,
    "adam_beta1": "stages.N.optim.beta1",
    "adam_beta2": "stages.N.optim.beta2",
    "grad_clip": "stages.N.optim.max_grad_norm",
    "clip_grad": "stages.N.optim.max_grad_norm",
    "gradient_clipping": "stages.N.optim.max_grad_norm",
    # the algorithm
    "loss_type": _PRESET,
    "adv_estimator": _PRESET,
    "advantage_estimator": _PRESET,
    "epsilon": "stages.N.algorithm.clip_low and stages.N.algorithm.clip_high",
    "cliprange": "stages.N.algorithm.clip_low and stages.N.algorithm.clip_high",
    "clip_ratio": "stages.N.algorithm.clip_low and stages.N.algorithm.clip_high",
    "clip_ratio_low": "stages.N.algorithm.clip_low",
    "epsilon_high": "stages.N.algorithm.clip_high",
    "clip_ratio_high": "stages.N.algorithm.clip_high",
    "loss_agg_mode": "stages.N.algorithm.normalizer",
    "scale_rewards": _ADVANTAGE,
    "norm_adv_by_std_in_grpo": _ADVANTAGE,
    "importance_sampling_level": "stages.N.algorithm.ratio",
    "vllm_importance_sampling_cap": "stages.N.algorithm.mismatch_cap",
    "mask_truncated_completions": "stages.N.algorithm.mask_truncated",
    "beta": f"stages.N.loss.beta (dpo), {_KL} (rft)",
    "kl_coef": _KL,
    "init_kl_coef": _KL,
    "kl_loss_coef": _KL,
    "kl_loss_type": "stages.N.algorithm.kl.estimator",
    "entropy_coeff": "stages.N.algorithm.entropy_coef",
    # adapters
    "finetuning_type": "adapter.type",
    "peft_config": "adapter",
    "use_peft": "adapter",
    "r": "adapter.rank",
    "lora_r": "adapter.rank",
    "lora_rank": "adapter.rank",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "lora_target": "adapter.targets",
    "target_modules": "adapter.targets",
    "lora_target_modules": "adapter.targets",
    "use_dora": "adapter.dora",
    "use_rslora": "adapter.rslora",
    "load_in_4bit": "adapter.type, as `adapter: qlora`",
    "quantization_bit": "adapter.type, as `adapter: qlora` for 4",
    "bnb_4bit_quant_type": "adapter.quant_type",
    "bnb_4bit_use_double_quant": "adapter.double_quant",
    "double_quantization": "adapter.double_quant",
    # looks, checkpoints, trackers
    "eval_steps": "stages.N.eval_every",
    "eval_interval": "stages.N.eval_every",
    "test_freq": "stages.N.eval_every",
    "eval_samples": "evals.N.samples",
    "save_steps": "stages.N.save_every",
    "save_freq": "stages.N.save_every",
    "save_total_limit": "stages.N.keep_last",
    "max_actor_ckpt_to_keep": "stages.N.keep_last",
    "load_best_model_at_end": "stages.N.final, as `final: best`",
    "early_stopping_patience": "stages.N.early_stopping.patience",
    "early_stopping_threshold": "stages.N.early_stopping.min_delta",
    "logger": "report_to",
    # reasoning
    "enable_thinking": "chat_template_kwargs, as `chat_template_kwargs: {enable_thinking: ...}`",
    "reasoning_effort": "chat_template_kwargs, where the template reads it, or stages.N.sampling.thinking_budget",
    "thinking_token_budget": "stages.N.sampling.thinking_budget",
    # model, data, graders
    "model_name_or_path": "model",
    "model_name": "model",
    "model_path": "model",
    "base_model": "model",
    "torch_dtype": "dtype",
    "bf16": "dtype, as `dtype: bfloat16`",
    "fp16": "dtype, as `dtype: bfloat16`",
    "dataset": "stages.N.data",
    "train_dataset": "stages.N.data",
    "training_file": "stages.N.data.path",
    "train_file": "stages.N.data.path",
    "train_files": "stages.N.data.path",
    "eval_dataset": "stages.N.validation",
    "validation_file": "stages.N.validation.path",
    "val_files": "stages.N.validation.path",
    "max_samples": "stages.N.data.limit",
    "interleave_probs": "stages.N.data, as a list of sources of which each has its `weight`",
    "dataset_mixer": "stages.N.data, as a list of sources of which each has its `weight`",
    "reward_funcs": "stages.N.grader",
    "reward_function": "stages.N.grader",
    "reward_model": "stages.N.grader",
    "stage": "stages.N.type",
}
"""Their key: the places of ours, and what is different about it."""

NONE: dict[str, str] = {
    "compute_multiplier": "has no counterpart: compute is `stages.N.steps` × `prompts_per_step` × `group_size`",
    "hyperparameters": "is no mapping of its own here: its keys stand in `stages.N` and `stages.N.optim`",
    "gradient_checkpointing": "is not needed: `stages.N.tokens_per_microbatch` bounds the memory of a pass",
    "max_prompt_length": "has no counterpart: a prompt is never cut",
    "packing": "is not needed: rows are always packed, and never see one another",
    "logging_steps": "is not needed: every step is logged",
    "adam_epsilon": "is fixed at 1e-8",
    "use_vllm": "is not needed: the sampler is built in",
    "output_dir": "is an option of the command: `sharpen run RECIPE --out DIR`",
    "run_name": "is the run directory's name: `sharpen run RECIPE --out DIR`",
    "resume_from_checkpoint": "is an option of the command: `sharpen run --resume DIR`",
}
"""Their key, and why there is none of ours."""


def ours(key: str, where: str) -> str:
    """What to write for another trainer's key that stands at `where` (`stages.1.x`); empty for one nobody knows."""
    text = f"here this is {PLACES[key]}" if key in PLACES else f"this {NONE[key]}" if key in NONE else ""
    return told(text, where)


def told(text: str, where: str) -> str:
    """The text with the stage's or eval's own number for `N`, where it is known."""
    found = re.match(r"(stages|evals)\.(\d+)\.", where)
    return text.replace(f"{found[1]}.N", f"{found[1]}.{found[2]}") if found else text
