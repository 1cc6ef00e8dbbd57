"""What the scripts that measure TRL share: options, settings, a clock that also sees the precision at work.

They run in the environment of requirements-trl.txt, from the repository's root, and need nothing of sharpen.
Exactly one JSON object goes to stdout, all else to stderr; exit code 2: the precision asked for was not in force.
"""

from __future__ import annotations

import argparse
import json
import os
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

from bench.common import Gauge, Measurement


def parser(doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder in save_pretrained layout")
    parser.add_argument("--rows", type=Path, required=True, help="JSONL, taken in file order")
    parser.add_argument("--steps", type=int, default=5, help="steps measured, after the warm-up")
    parser.add_argument("--warmup", type=int, default=1, help="first steps, run and not counted")
    parser.add_argument("--per-device", type=int, default=8, help="microbatch; the rest is accumulation")
    parser.add_argument(
        "--precision",
        choices=sorted(PRECISIONS),
        default="autocast",
        help="autocast: bfloat16 over float32 weights; else the type of weights and products alike",
    )
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--adam-beta2", type=float, default=0.999, help="second-moment decay")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    return parser


PRECISIONS = {
    "autocast": ("torch.float32", "torch.bfloat16", "torch.bfloat16"),
    "float32": ("torch.float32", "torch.float32", None),
    "bfloat16": ("torch.bfloat16", "torch.bfloat16", None),
}
"""Weight, output and autocast type of a linear layer under each `--precision`."""


@dataclass
class Clock(transformers.TrainerCallback):
    """Notes when steps begin and end, the trainer's logs, and what one linear layer says of the precision of all.

    The tokens of each step are for the script to note.
    """

    began: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    core_seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    layer: dict[str, set[tuple[str, str, str | None]]] = field(default_factory=dict)

    def look(self, module: torch.nn.Linear, _: object, output: torch.Tensor) -> None:
        """A forward hook: what the layer did while sampling (without gradients) and while training."""
        autocast = str(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else None
        phase = "training" if torch.is_grad_enabled() else "sampling"
        self.layer.setdefault(phase, set()).add((str(module.weight.dtype), str(output.dtype), autocast))

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.core_seconds.append(-time.process_time())
        self.began.append(time.monotonic())

    def on_step_end(self, *_: object, **__: object) -> None:
        self.ended.append(time.monotonic())
        self.core_seconds[-1] += time.process_time()
        print(f"step {len(self.ended)}: {self.ended[-1] - self.began[-1]:.2f} s", file=sys.stderr)

    def on_log(self, *_: object, logs: dict[str, Any], **__: object) -> None:
        self.logs.append(logs)


def settings(args: argparse.Namespace, batch: int, scratch: str) -> dict[str, Any]:
    """A trainer config's arguments for one optimiser step on `batch` sequences; in TRL's favour where it is slow."""
    if batch % args.per_device:
        sys.exit(f"--per-device {args.per_device} does not divide {batch}")
    return {
        "output_dir": scratch,
        "seed": args.seed,
        "max_steps": args.warmup + args.steps,
        "per_device_train_batch_size": args.per_device,
        "gradient_accumulation_steps": batch // args.per_device,
        "learning_rate": args.lr,
        "lr_scheduler_type": "constant",
        "adam_beta2": args.adam_beta2,
        "gradient_checkpointing": args.gradient_checkpointing,
        "use_cpu": True,
        "bf16": args.precision == "autocast",
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
    }


def model(args: argparse.Namespace) -> Any:
    """In the type asked for: a file may hold bfloat16, in which lr 1e-5 would be lost to rounding."""
    dtype = torch.bfloat16 if args.precision == "bfloat16" else torch.float32
    return transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, local_files_only=True)


def rows(args: argparse.Namespace, count: int) -> list[dict[str, Any]]:
    """`count` rows; a short file is repeated from its start."""
    found = [json.loads(line) for line in args.rows.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not found:
        sys.exit(f"{args.rows} holds no rows")
    return [found[place % len(found)] for place in range(count)]


def in_force(args: argparse.Namespace, clock: Clock, trainer: Any) -> dict[str, Any]:
    """Read back from the trainer after the run rather than repeated from the command line."""
    config, held = trainer.args, trainer.model
    weights = sorted({str(parameter.dtype) for parameter in held.parameters()})
    expected = PRECISIONS[args.precision]
    if weights != [expected[0]] or any(seen != {expected} for seen in clock.layer.values()) or not clock.layer:
        print(f"not {args.precision}: weights {weights}, a linear layer had {clock.layer}", file=sys.stderr)
        sys.exit(2)
    return {
        "parameters": sum(parameter.numel() for parameter in held.parameters()),
        "trained_parameters": sum(parameter.numel() for parameter in held.parameters() if parameter.requires_grad),
        "attention": held.config._attn_implementation,
        "weights_after_training": weights,
        "linear_layer": {phase: sorted(map(list, seen)) for phase, seen in clock.layer.items()},
        "device": str(trainer.accelerator.device),
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "optimizer": config.optim.value,
        "learning_rate": config.learning_rate,
        "adam_betas": [config.adam_beta1, config.adam_beta2],
        "weight_decay": config.weight_decay,
        "lr_scheduler": config.lr_scheduler_type.value,
        "max_grad_norm": config.max_grad_norm,
        "gradient_checkpointing": held.is_gradient_checkpointing,
        "seed": config.seed,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def train(
    args: argparse.Namespace, clock: Clock, make: Callable[[str], Any], more: Callable[[Any], dict[str, Any]]
) -> Measurement:
    """Train with the trainer that `make` makes in a folder; the measurement has what `more` says of it."""
    gauge = Gauge(args.warmup)
    with gauge, tempfile.TemporaryDirectory() as scratch:
        trainer = make(scratch)
        trainer.remove_callback(transformers.PrinterCallback)
        layer = trainer.model.get_submodule("model.layers.0.mlp.down_proj")
        hook = layer.register_forward_hook(clock.look)  # one layer of many: its cost is not measurable
        trainer.train()
        hook.remove()
    gauge.seconds = [end - begin for begin, end in zip(clock.began, clock.ended, strict=True)]
    gauge.core_seconds, gauge.tokens = clock.core_seconds, clock.tokens
    modules = (torch, transformers, trl, datasets, accelerate)
    versions = {module.__name__: module.__version__ for module in modules}
    return gauge.measurement(versions, settings=in_force(args, clock, trainer), **more(trainer))
