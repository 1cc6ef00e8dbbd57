"""How much training fits into the minutes given: epochs, rows, test rows, and steps of RFT.

The speeds are those of the quickstart's forecast (`cli/forecast.py`): smollm2-135m-instruct on 2 cores without matrix
units. `sharpen bench recipe.yaml` measures the recipe itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from sharpen.project.parts import Parts
from sharpen.project.rows import Row

START_SECONDS = 15.0
"""Imports, loading the model, the report."""

SECONDS_PER_TRAINED_TOKEN = 0.0027
"""A token of a labelled row, forward and backward, once."""

SECONDS_PER_ANSWER, SECONDS_PER_ANSWER_TOKEN = 0.04, 0.0025
"""An answer to a test row, and each token that it may have."""

SECONDS_PER_ATTEMPT, SECONDS_PER_ATTEMPT_TOKEN = 0.03, 0.006
"""An attempt in RFT, and each token of it: sampled, graded, trained on."""

BYTES_PER_TOKEN, TOKENS_PER_MESSAGE = 3.5, 6
SPARE = 0.8
"""Share of the minutes that is planned for: machines differ."""

BATCH = 8
WANTED_STEPS = 60
FEWEST_EPOCHS, MOST_EPOCHS = 3, 10
"""Few rows are seen more often, so that there are about so many steps."""

PROMPTS, GROUP = 8, 8
FEWEST_RFT_STEPS, MOST_RFT_STEPS = 8, 30
"""Fewer steps of RFT teach nothing that an interval would show."""

EVAL_SHARE, SFT_SHARE = 0.3, 0.4
"""Shares of the time for evaluations, and for SFT where RFT follows."""

FEWEST_TEST = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recipe is told; a limit of 0 means all rows."""

    seconds: float
    epochs: int
    train_limit: int
    test_limit: int
    eval_every: int
    max_tokens: int
    rft_steps: int
    """0: no RFT, or no time for it."""


def plan(parts: Parts, minutes: float, *, reinforced: bool) -> Plan:
    """Fit training and evaluation into the minutes."""
    budget = SPARE * 60 * minutes - START_SECONDS
    longest = max(len(row.answer.encode()) for part in parts for row in part)
    max_tokens = 8 * ceil((longest / 2 + 8) / 8)  # two bytes a token and some spare: no right answer is cut off
    answer = SECONDS_PER_ANSWER + SECONDS_PER_ANSWER_TOKEN * max_tokens
    rounds = 3 if reinforced else 2
    tested = min(len(parts.test), max(FEWEST_TEST, int(EVAL_SHARE * budget / rounds / answer)))
    left = budget - rounds * tested * answer
    row = SECONDS_PER_TRAINED_TOKEN * _tokens(parts.train)
    affordable = max(BATCH, int((SFT_SHARE if reinforced else 1) * left / row))
    trained = min(len(parts.train), affordable)
    wanted = min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(WANTED_STEPS * BATCH / trained)))
    epochs = max(1, min(wanted, affordable // trained))
    left -= trained * epochs * row
    said = sum(len(one.answer) for one in parts.train) / len(parts.train) / BYTES_PER_TOKEN
    step = PROMPTS * GROUP * (SECONDS_PER_ATTEMPT + SECONDS_PER_ATTEMPT_TOKEN * said)
    steps = min(MOST_RFT_STEPS, int(left / step) - 2) if reinforced else 0  # the trial takes as long as two steps
    steps = steps if steps >= FEWEST_RFT_STEPS else 0
    if reinforced and not steps:
        return plan(parts, minutes, reinforced=False)
    return Plan(
        seconds=START_SECONDS + budget - left + (steps + 2) * step * bool(steps),
        epochs=epochs,
        train_limit=trained if trained < len(parts.train) else 0,
        test_limit=tested if tested < len(parts.test) else 0,
        eval_every=ceil(trained / BATCH),
        max_tokens=max_tokens,
        rft_steps=steps,
    )


def _tokens(rows: list[Row]) -> float:
    """Tokens of a row, on average."""
    messages = [str(message["content"]) for row in rows for message in row.messages] + [row.answer for row in rows]
    return sum(len(text.encode()) / BYTES_PER_TOKEN + TOKENS_PER_MESSAGE for text in messages) / len(rows)
