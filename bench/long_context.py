"""Seconds and memory of training on one sequence of 8,192 tokens, sharpen beside TRL with gradient checkpointing.

    python -m bench.long_context

Every token but the first is trained. A side that does not survive is reported as failed, with its exit code.
"""

from __future__ import annotations

from bench.common import Record, arguments, prepared
from bench.peer import against_best, options_for
from bench.sft import Tokenised, compare, rows

TOKENS = 8192


def sequence(model: str, length: int) -> list[int]:
    """So many tokens of rendered conversations, one after the other."""
    tokens: list[int] = []
    count = 64
    while len(tokens) < length:
        tokens = [token for row in rows(model, count) for token in row["input_ids"]]
        count *= 2
    return tokens[:length]


def main() -> None:
    """Measure what the options ask for, and print the document."""
    parser = arguments(__doc__)
    options_for(parser, (1,))
    parser.add_argument("--tokens", type=int, default=TOKENS)
    options = prepared(parser)
    record = Record(options, against_best)
    tokens = sequence(options.model, options.tokens)
    data: Tokenised = [{"input_ids": tokens, "labels": [-100, *tokens[1:]]}] * (options.warmup + options.steps)
    compare(record, options, data, 1, "--gradient-checkpointing")
    record.finish()


if __name__ == "__main__":
    main()
