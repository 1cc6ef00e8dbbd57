"""The rewards of a GRPO run in TRL, step by step: the peer of `bench.learning`.

Trainer, precision and command line are those of `trl_grpo`. A row has the right `answer` beside its `messages`, and the
reward is `exact`, whatever `--reward` says.
"""

from __future__ import annotations

from bench.common import print_json
from bench.exact import exact
from bench.trl_common import rows
from bench.trl_grpo import Turns, arguments, measure, prompt


def main() -> None:
    args = arguments()
    count = args.prompts_per_step * (args.warmup + args.steps)
    answers = {prompt(row)[-1]["content"]: row["answer"] for row in rows(args, count)}

    def score(asked: Turns, text: str) -> float:
        return exact(text, answers[asked[-1]["content"]])

    print_json(lambda: measure(args, score))


if __name__ == "__main__":
    main()
