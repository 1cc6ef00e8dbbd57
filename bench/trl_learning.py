"""The rewards of a GRPO run in TRL, step by step: the peer of `bench.learning`.

The trainer, its precision and the proof of it are those of `trl_grpo.py`, whose command line this takes; like that
it stands alone. A row of `--prompts` has the right `answer` beside its `messages`, and the reward is `exact`.
"""

from __future__ import annotations

import json

from exact import exact
from trl_grpo import Turns, answer_with, arguments, measure  # this folder is the script's own import path


def main() -> None:
    args = arguments()
    args.reward = "exact"
    answers = {}
    for line in args.prompts.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answers[row["messages"][-1]["content"]] = row["answer"]

    def score(prompt: Turns, text: str) -> float:
        return exact(text, answers[prompt[-1]["content"]])

    answer_with(lambda: measure(args, score))


if __name__ == "__main__":
    main()
