"""Seconds and memory of one DPO step in TRL: the peer that `sharpen` is measured against.

Rows are `{"prompt", "chosen", "rejected"}` of messages, those that our side trains on; each step is one optimiser step
on `--pairs-per-step` of them, in file order, full fine-tune, its reference model asked in each step.
"""

from __future__ import annotations

import argparse
from functools import partial

from bench import trl_common as common  # sets what the imports below read

# isort: split

import datasets
import transformers
import trl

from bench.common import print_json


def make_trainer(args: argparse.Namespace, clock: common.Clock, scratch: str) -> trl.DPOTrainer:
    size = args.pairs_per_step
    chosen = common.rows(args, size * (args.warmup + args.steps))
    config = trl.DPOConfig(
        **common.settings(args, size, scratch),
        max_length=1024,
        beta=0.1,
        train_sampling_strategy="sequential",
    )
    trainer = trl.DPOTrainer(
        model=common.model(args),
        ref_model=common.model(args),
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
    clock = common.Clock()

    def losses(_: trl.DPOTrainer) -> dict[str, list[float]]:
        return {"loss": [log["loss"] for log in clock.logs if "loss" in log][args.warmup :]}

    return common.train(args, clock, partial(make_trainer, args, clock), losses)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--pairs-per-step", type=int, default=16)
    args = parser.parse_args()
    print_json(lambda: measure(args))


if __name__ == "__main__":
    main()
