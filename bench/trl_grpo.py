"""Seconds and memory of one GRPO step in TRL: the peer that `sharpen` is measured against.

The work is 8 prompts x 8 completions of at most 128 new tokens at temperature 1, one optimiser step a batch,
full fine-tune, no gradient checkpointing (which GRPOConfig switches on by default), no reference model.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench import trl_common as common  # sets what the imports below read

# isort: split

import datasets
import transformers
import trl

from bench.common import print_json

Turns = list[dict[str, str]]
"""A conversation up to the assistant's answer."""

Score = Callable[[Turns, str], float]
"""The reward of a completion, from its prompt and its text."""


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--prompts-per-step", type=int, default=8)
    parser.add_argument("--completions", type=int, default=8, help="completions per prompt")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--loss-type", choices=["dapo", "grpo"], default="dapo", help="normaliser of the loss")
    parser.add_argument("--reward", choices=sorted(REWARDS), default="vowels")
    return parser.parse_args()


def share_of(characters: str) -> Score:
    """A reward that costs nothing: the share of a text's characters that are among these."""
    return lambda _, text: sum(character in characters for character in text) / max(len(text), 1)


REWARDS = {
    "digits": share_of("0123456789"),  # a group without any digit has no spread
    "vowels": share_of("aeiouAEIOU"),  # spread in practically every group
}


def prompt(row: dict[str, Any]) -> Turns:
    """The conversation of a row, less an assistant's answer at its end."""
    messages = [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]]
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    return messages


@dataclass
class Clock(common.Clock):
    """Notes when sampling ends and what was sampled, too."""

    score: Score = REWARDS["vowels"]
    completions_per_prompt: int = 8
    sampling_seconds: list[float] = field(default_factory=list)
    rewards: list[list[float]] = field(default_factory=list)
    ended_by_eos: list[int] = field(default_factory=list)
    groups_with_spread: list[int] = field(default_factory=list)
    eos_token_ids: tuple[int, ...] = ()

    def reward(
        self, prompts: list[Turns], completions: list[Turns], completion_ids: list[list[int]], **_: object
    ) -> list[float]:
        """TRL's reward function; the moment it is called is the end of sampling."""
        self.sampling_seconds.append(time.monotonic() - self.began[-1])
        self.tokens.append(sum(map(len, completion_ids)))
        self.ended_by_eos.append(sum(ids[-1] in self.eos_token_ids for ids in completion_ids))
        pairs = zip(prompts, completions, strict=True)
        rewards = [self.score(prompt, completion[0]["content"]) for prompt, completion in pairs]
        self.rewards.append(rewards)
        size = self.completions_per_prompt
        groups = [rewards[start : start + size] for start in range(0, len(rewards), size)]
        self.groups_with_spread.append(sum(max(group) > min(group) for group in groups))
        return rewards


def make_trainer(args: argparse.Namespace, clock: Clock, scratch: str) -> trl.GRPOTrainer:
    config = trl.GRPOConfig(
        **common.settings(args, args.prompts_per_step * args.completions, scratch),
        num_generations=args.completions,
        max_completion_length=args.max_new_tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=0.0,
        loss_type=args.loss_type,
        epsilon_high=0.28 if args.loss_type == "dapo" else None,
        shuffle_dataset=False,
    )
    count = args.prompts_per_step * (args.warmup + args.steps)
    trainer = trl.GRPOTrainer(
        model=common.model(args),
        reward_funcs=clock.reward,
        args=config,
        train_dataset=datasets.Dataset.from_list([{"prompt": prompt(row)} for row in common.rows(args, count)]),
        processing_class=transformers.AutoTokenizer.from_pretrained(args.model, local_files_only=True),
        callbacks=[clock],
    )
    clock.eos_token_ids = tuple(trainer.eos_token_ids)
    return trainer


def figures(args: argparse.Namespace, clock: Clock, trainer: trl.GRPOTrainer) -> dict[str, Any]:
    """Of the steps that count, and what GRPO adds to the settings in force."""
    kept = slice(args.warmup, None)
    config, generation = trainer.args, trainer.generation_config
    return {
        "sampling_seconds": clock.sampling_seconds[kept],
        "sampling_median": statistics.median(clock.sampling_seconds[kept]),
        "completions_ended_by_eos": clock.ended_by_eos[kept],
        "reward": [statistics.mean(rewards) for rewards in clock.rewards[kept]],
        "groups_with_spread": clock.groups_with_spread[kept],
        "grad_norm": [log["grad_norm"] for log in clock.logs if "grad_norm" in log][kept],
        "grpo": {
            "prompts_per_step": config.generation_batch_size // trainer.num_generations,
            "num_generations": trainer.num_generations,
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
        },
    }


def measure(args: argparse.Namespace, score: Score) -> common.Measurement:
    clock = Clock(score=score, completions_per_prompt=args.completions)
    return common.train(args, clock, partial(make_trainer, args, clock), partial(figures, args, clock))


def main() -> None:
    args = arguments()
    print_json(lambda: measure(args, REWARDS[args.reward]))


if __name__ == "__main__":
    main()
