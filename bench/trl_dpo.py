"""Seconds and memory of one DPO step in TRL: the peer that `sharpen` is measured against.

Rows are `{"prompt", "chosen", "rejected"}` of messages, those that our side trains on; each step is one optimiser step
on `--pairs-per-step` of them, in file order, full fine-tune. The reference model is asked in each step; with
`--precompute` the model is asked before the first one, and each step has its share of the time that took.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench import trl_common as common  # sets what the imports below read

# isort: split

import datasets
import transformers
import trl

from bench.common import print_json


@dataclass
class Clock(common.Clock):
    """Steps began so many seconds and core-seconds earlier than they did: what was done for them before the first."""

    seconds: float = 0.0
    cores: float = 0.0

    def on_step_begin(self, *args: object, **more: object) -> None:
        super().on_step_begin(*args, **more)
        self.began[-1] -= self.seconds
        self.core_seconds[-1] += self.cores


def make_trainer(args: argparse.Namespace, clock: Clock, scratch: str) -> trl.DPOTrainer:
    class Timed(trl.DPOTrainer):
        def _precompute_ref_logps(self, *given: Any, **more: Any) -> Any:
            began, cores = time.monotonic(), time.process_time()
            found = super()._precompute_ref_logps(*given, **more)
            clock.seconds = (time.monotonic() - began) / config.max_steps
            clock.cores = (time.process_time() - cores) / config.max_steps
            return found

    size = args.pairs_per_step
    chosen = common.rows(args, size * (args.warmup + args.steps))
    config = trl.DPOConfig(
        **common.settings(args, size, scratch),
        max_length=1024,
        beta=0.1,
        train_sampling_strategy="sequential",
        precompute_ref_log_probs=args.precompute,
    )
    trainer = Timed(
        model=common.model(args),
        ref_model=None if args.precompute else common.model(args),
        args=config,
        train_dataset=datasets.Dataset.from_list(chosen),
        processing_class=transformers.AutoTokenizer.from_pretrained(args.model, local_files_only=True),
        callbacks=[clock],
    )
    lengths = [
        2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in trainer.train_dataset
    ]
    clock.tokens = [sum(lengths[start : start + size]) for start in range(0, len(lengths), size)]
    return trainer


def measure(args: argparse.Namespace) -> common.Measurement:
    clock = Clock()

    def more(_: trl.DPOTrainer) -> dict[str, Any]:
        losses = [log["loss"] for log in clock.logs if "loss" in log]
        return {"loss": losses[args.warmup :], "scoring_seconds": clock.seconds if args.precompute else None}

    return common.train(args, clock, partial(make_trainer, args, clock), more)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--pairs-per-step", type=int, default=16)
    parser.add_argument("--precompute", action="store_true", help="the reference is asked before the first step")
    args = parser.parse_args()
    print_json(lambda: measure(args))


if __name__ == "__main__":
    main()
