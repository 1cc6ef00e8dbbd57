"""Seconds and memory of one SFT step in TRL: the peer that `sharpen` is measured against.

Rows are `{"input_ids", "labels"}`, the very tokens that our side trains on; each step is one optimiser step on
`--rows-per-step` of them, in file order, full fine-tune.
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


def make_trainer(args: argparse.Namespace, clock: common.Clock, scratch: str) -> trl.SFTTrainer:
    size = args.rows_per_step
    chosen = common.rows(args, size * (args.warmup + args.steps))
    clock.tokens = [
        sum(len(row["input_ids"]) for row in chosen[start : start + size]) for start in range(0, len(chosen), size)
    ]
    config = trl.SFTConfig(
        **common.settings(args, size, scratch),
        max_length=max(len(row["input_ids"]) for row in chosen),
        train_sampling_strategy="sequential",
    )
    return trl.SFTTrainer(
        model=common.model(args),
        args=config,
        train_dataset=datasets.Dataset.from_list(chosen),
        processing_class=transformers.AutoTokenizer.from_pretrained(args.model, local_files_only=True),
        callbacks=[clock],
    )


def measure(args: argparse.Namespace) -> common.Measurement:
    clock = common.Clock()

    def losses(_: trl.SFTTrainer) -> dict[str, list[float]]:
        return {"loss": [log["loss"] for log in clock.logs if "loss" in log][args.warmup :]}

    return common.train(args, clock, partial(make_trainer, args, clock), losses)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rows-per-step", type=int, default=16)
    args = parser.parse_args()
    print_json(lambda: measure(args))


if __name__ == "__main__":
    main()
