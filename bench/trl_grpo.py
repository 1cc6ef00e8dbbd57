"""Seconds and memory of one GRPO step in TRL: the peer that `sharpen` is measured against.

The work is 8 prompts x 8 completions of at most 128 new tokens at temperature 1, one optimiser step a batch,
full fine-tune. TRL runs in its best setting found: microbatches of 8, bf16 autocast over fp32 weights, no
gradient checkpointing (which GRPOConfig switches on by default), no reference model. It stands alone: it needs
the environment of requirements-trl.txt and nothing of sharpen. Exactly one JSON object goes to stdout, all else
to stderr; the run ends with exit code 2 when the precision asked for turns out not to be in force.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Read when transformers and huggingface_hub are imported, so they are set before that.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}

import accelerate
import datasets
import torch
import transformers
import trl
from memory import Watch  # this folder is the script's own import path

BUSY = 0.5  # a load average above this disturbs the timing on two cores

Turns = list[dict[str, str]]
"""A conversation up to the assistant's answer."""

Score = Callable[[Turns, str], float]
"""The reward of a completion, from its prompt and its text."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder in save_pretrained layout")
    parser.add_argument("--prompts", type=Path, required=True, help='JSONL with rows {"messages": [...]}')
    parser.add_argument("--steps", type=int, default=3, help="steps measured, after the warm-up")
    parser.add_argument("--warmup", type=int, default=1, help="first steps, run and not counted")
    parser.add_argument("--prompts-per-step", type=int, default=8)
    parser.add_argument("--completions", type=int, default=8, help="completions per prompt")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--per-device", type=int, default=8, help="microbatch; the rest is accumulation")
    parser.add_argument("--loss-type", choices=["dapo", "grpo"], default="dapo", help="normaliser of the loss")
    parser.add_argument("--reward", choices=sorted(REWARDS), default="vowels")
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--adam-beta2", type=float, default=0.999, help="second-moment decay")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if (args.prompts_per_step * args.completions) % args.per_device:
        parser.error(f"--per-device {args.per_device} does not divide {args.prompts_per_step * args.completions}")
    if args.steps < 1:
        parser.error(f"--steps {args.steps}: at least one step must be measured")
    return args


def share_of(characters: str) -> Score:
    """A reward that costs nothing: the share of a text's characters that are among these."""
    return lambda _, text: sum(character in characters for character in text) / max(len(text), 1)


REWARDS = {
    "digits": share_of("0123456789"),  # a group without any digit has no spread
    "vowels": share_of("aeiouAEIOU"),  # spread in practically every group
}


def read_prompts(path: Path, count: int) -> list[Turns]:
    """`count` conversations that end before the assistant's answer; a short file is repeated from its start."""
    prompts = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            messages = [{"role": turn["role"], "content": turn["content"]} for turn in json.loads(line)["messages"]]
            while messages and messages[-1]["role"] == "assistant":
                messages.pop()
            prompts.append(messages)
    if not prompts:
        sys.exit(f"{path} holds no prompts")
    return list(itertools.islice(itertools.cycle(prompts), count))


@dataclass(frozen=True)
class Precision:
    """What one linear layer did in one forward pass."""

    phase: str
    weight: str
    output: str
    autocast: str | None


@dataclass
class Steps(transformers.TrainerCallback):
    """The clock: notes when sampling and whole steps end, what was sampled, and the precision at work."""

    score: Score
    completions_per_prompt: int
    began: list[float] = field(default_factory=list)
    sampled: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)
    ended_by_eos: list[int] = field(default_factory=list)
    rewards: list[list[float]] = field(default_factory=list)
    groups_with_spread: list[int] = field(default_factory=list)
    precisions: set[Precision] = field(default_factory=set)
    logs: list[dict[str, Any]] = field(default_factory=list)
    eos_token_ids: tuple[int, ...] = ()

    def reward(
        self, prompts: list[Turns], completions: list[Turns], completion_ids: list[list[int]], **_: object
    ) -> list[float]:
        """TRL's reward function; the moment it is called is the end of sampling."""
        self.sampled.append(time.perf_counter())
        self.lengths.append([len(ids) for ids in completion_ids])
        self.ended_by_eos.append(sum(ids[-1] in self.eos_token_ids for ids in completion_ids))
        rewards = [
            self.score(prompt, completion[0]["content"])
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        self.rewards.append(rewards)
        size = self.completions_per_prompt
        groups = [rewards[start : start + size] for start in range(0, len(rewards), size)]
        self.groups_with_spread.append(sum(max(group) > min(group) for group in groups))
        return rewards

    def look(self, module: torch.nn.Linear, _: object, output: torch.Tensor) -> None:
        """A forward hook: one layer's word for the precision of all."""
        autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        phase = "training" if torch.is_grad_enabled() else "sampling"
        name = str(autocast) if autocast else None
        self.precisions.add(Precision(phase, str(module.weight.dtype), str(output.dtype), name))

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.began.append(time.perf_counter())

    def on_step_end(self, *_: object, **__: object) -> None:
        self.ended.append(time.perf_counter())
        print(f"step {len(self.ended)}: {self.ended[-1] - self.began[-1]:.1f} s", file=sys.stderr)

    def on_log(self, *_: object, logs: dict[str, Any], **__: object) -> None:
        self.logs.append(logs)


def make_trainer(args: argparse.Namespace, steps: Steps, scratch: str) -> trl.GRPOTrainer:
    batch = args.prompts_per_step * args.completions
    total = args.warmup + args.steps
    config = trl.GRPOConfig(
        output_dir=scratch,
        seed=args.seed,
        max_steps=total,
        per_device_train_batch_size=args.per_device,
        gradient_accumulation_steps=batch // args.per_device,
        num_generations=args.completions,
        max_completion_length=args.max_new_tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=0.0,
        loss_type=args.loss_type,
        epsilon_high=0.28 if args.loss_type == "dapo" else None,
        learning_rate=args.lr,
        adam_beta2=args.adam_beta2,
        lr_scheduler_type="constant",
        gradient_checkpointing=args.gradient_checkpointing,
        use_cpu=True,
        bf16=True,
        shuffle_dataset=False,
        dataloader_pin_memory=False,
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
    )
    # The file may hold bf16: fp32 weights have to be asked for, or lr 1e-5 is lost to rounding.
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, local_files_only=True)
    rows = [{"prompt": prompt} for prompt in read_prompts(args.prompts, args.prompts_per_step * total)]
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=steps.reward,
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(args.model, local_files_only=True),
        callbacks=[steps],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    steps.eos_token_ids = tuple(trainer.eos_token_ids)
    return trainer


def precision_in_force(steps: Steps, model: torch.nn.Module) -> dict[str, Any]:
    """What was measured of weights and autocast, refused where it is not fp32 under bf16."""
    weights = sorted({str(parameter.dtype) for parameter in model.parameters()})
    expected = {
        Precision(phase, "torch.float32", "torch.bfloat16", "torch.bfloat16") for phase in ("sampling", "training")
    }
    if weights != ["torch.float32"] or steps.precisions != expected:
        print(f"not fp32 weights under bf16 autocast: weights {weights}, {steps.precisions}", file=sys.stderr)
        sys.exit(2)
    layers = {
        seen.phase: {"weight": seen.weight, "output": seen.output, "autocast": seen.autocast}
        for seen in steps.precisions
    }
    return {"weights_after_training": weights, "linear_layer": layers}


def settings_in_force(args: argparse.Namespace, trainer: trl.GRPOTrainer, steps: Steps) -> dict[str, Any]:
    """Read back from the trainer after the run rather than repeated from the command line."""
    config, generation = trainer.args, trainer.generation_config
    return {
        "model": str(args.model),
        "prompts": str(args.prompts),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "attention": trainer.model.config._attn_implementation,
        "precision": precision_in_force(steps, trainer.model),
        "mixed_precision": trainer.accelerator.mixed_precision,
        "device": str(trainer.accelerator.device),
        "prompts_per_step": config.generation_batch_size // trainer.num_generations,
        "num_generations": trainer.num_generations,
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "steps_per_generation": config.steps_per_generation,
        "num_iterations": config.num_iterations,
        "max_new_tokens": generation.max_new_tokens,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k,
        "eos_token_id": generation.eos_token_id,
        "pad_token_id": generation.pad_token_id,
        "loss_type": trainer.loss_type,
        "beta": trainer.beta,
        "epsilon": [trainer.epsilon_low, trainer.epsilon_high],
        "scale_rewards": trainer.scale_rewards,
        "reward": args.reward,
        "optimizer": config.optim.value,
        "learning_rate": config.learning_rate,
        "adam_betas": [config.adam_beta1, config.adam_beta2],
        "weight_decay": config.weight_decay,
        "lr_scheduler": config.lr_scheduler_type.value,
        "max_grad_norm": config.max_grad_norm,
        "gradient_checkpointing": trainer.model.is_gradient_checkpointing,
        "warmup_steps_excluded": args.warmup,
        "seed": config.seed,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def measure(args: argparse.Namespace, score: Score) -> dict[str, Any]:
    load = os.getloadavg()
    if load[0] > BUSY:
        print(f"the machine is busy (load {load[0]:.2f}): these times are not a measurement", file=sys.stderr)
    memory = Watch()
    memory.start()
    steps = Steps(score, args.completions)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(args, steps, scratch)
        layer = trainer.model.get_submodule("model.layers.0.mlp.down_proj")
        hook = layer.register_forward_hook(steps.look)  # one layer of many: its cost is not measurable
        trainer.train()
        hook.remove()
    memory.stop()
    kept = slice(args.warmup, None)
    seconds = [end - begin for begin, end in zip(steps.began, steps.ended, strict=True)][kept]
    sampling = [end - begin for begin, end in zip(steps.began, steps.sampled, strict=True)][kept]
    lengths = steps.lengths[kept]
    flat = [length for step in lengths for length in step]
    grad_norms = [log["grad_norm"] for log in steps.logs if "grad_norm" in log][kept]
    return {
        "peer": "trl",
        "versions": {
            "python": sys.version.split()[0],
            **{module.__name__: module.__version__ for module in (torch, transformers, trl, datasets, accelerate)},
        },
        "seconds_per_step": seconds,
        "median": statistics.median(seconds),
        "sampling_seconds_per_step": sampling,
        "training_seconds_per_step": [total - part for total, part in zip(seconds, sampling, strict=True)],
        "peak_memory_bytes": memory.peaks(),
        "tokens_generated_per_step": [sum(step) for step in lengths],
        "mean_completion_length": statistics.mean(flat),
        "completions_ended_by_eos_per_step": steps.ended_by_eos[kept],
        "reward_per_step": [statistics.mean(rewards) for rewards in steps.rewards[kept]],
        "groups_with_spread_per_step": steps.groups_with_spread[kept],
        "grad_norm_per_step": grad_norms,
        "load_average": {"before": load, "after": os.getloadavg()},
        "settings": settings_in_force(args, trainer, steps),
    }


def answer_with(work: Callable[[], dict[str, Any]]) -> None:
    """Print what the work returns on stdout proper; whatever libraries print goes where stderr goes."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(work()), file=answer, flush=True)


def main() -> None:
    args = arguments()
    answer_with(lambda: measure(args, REWARDS[args.reward]))


if __name__ == "__main__":
    main()
