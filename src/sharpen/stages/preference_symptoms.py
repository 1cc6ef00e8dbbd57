"""What the steps and rows of a stage that learned from preferences show, besides overfitting."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from sharpen.config.preferences import CPO, Hinge, Sigmoid
from sharpen.config.stages import DPO, RewardModeling
from sharpen.data.source import read_preferences
from sharpen.errors import SharpenError
from sharpen.runs.statistics import interval
from sharpen.stages.remarks import Remark, percent
from sharpen.stages.trained import Trained, gain_of, numbers
from sharpen.types import Message, Preference

CHANCE = 0.5
"""The accuracy of one who guesses."""

NEAR_CHANCE = 0.6
"""Accuracy that is surely below this, and may be chance, is called so."""

FALLEN = 0.1
"""Nats a token by which better answers have surely become unlikelier for it to be said: each of their tokens has lost a
tenth of its probability. In examples/dpo they become likelier; at three times its rate each token loses half, and no
reply is right."""

LONGER = 1.5
"""Better answers that are together so many times as long as the worse are called longer."""

MOSTLY = 0.75
"""Share of the pairs whose better answer must be the longer one for that."""

LOOKED_AT = 10_000
"""Pairs that are looked at for their lengths."""


def at_chance(trained: Trained) -> Iterator[Remark]:
    """The better answer is preferred about as often as not in the second half of the steps, interval over steps."""
    half = trained.lines[len(trained.lines) // 2 :]
    found = numbers(half, "rewards", "accuracies")
    if len(found) < 4:
        return
    mean, ci95 = float(np.mean(found)), interval(found)
    if ci95.low <= CHANCE and ci95.high < NEAR_CHANCE:
        text = (
            f"{trained.name} has not learned to prefer: the better answer has the higher reward in {percent(mean)} of "
            f"its later steps' pairs [{100 * ci95.low:.1f}, {100 * ci95.high:.1f}], and chance is 50 %. Look whether "
            "the labels agree with one another, use more pairs, or raise optim.lr."
        )
        yield Remark("at_chance", text, True, trained.stage.name, figures={"accuracy": mean, "ci95": list(ci95)})


def both_unlikely(trained: Trained) -> Iterator[Remark]:
    """Better answers have become unlikelier than at the stage's start, while the worse ones fell faster still.

    Against a reference their rewards say by how much. Without one the last steps' log-probabilities are held against
    the first ones', which are of other pairs, so that the interval is wider.
    """
    stage = trained.stage
    assert isinstance(stage, DPO)
    answers = stage.batch_size * (2 if stage.loss.paired else 1)
    tokens = float(np.mean(numbers(trained.lines, "tokens", "trained") or [0])) / answers
    fallen = _fallen(trained, stage)
    better, worse = (trained.recent("rewards", name) for name in ("chosen", "rejected"))
    if not fallen or not better or not worse or not tokens or np.mean(better) <= np.mean(worse):
        return
    nats, surely = fallen
    if surely / tokens < FALLEN:
        return
    likelihood = "give the likelihood more weight (cpo: loss.cpo_alpha; orpo: a smaller loss.beta)"
    if stage.loss.needs_reference:
        likelihood = "raise loss.beta, take a loss with a likelihood term (cpo, orpo)"
    text = (
        f"{trained.name} has made the better answers unlikely too: by {nats:.1f} nats an answer, or "
        f"{percent(1 - math.exp(-nats / tokens))} of each token's probability, and the worse ones by more, so that it "
        f"may say neither: lower optim.lr, {likelihood}, or begin with an SFT stage on the better answers."
    )
    yield Remark("both_unlikely", text, True, stage.name, figures={"nats": nats, "tokens": tokens})


def _fallen(trained: Trained, stage: DPO) -> tuple[float, float] | None:
    """By how many nats an answer the better ones have fallen: the mean, and the lower end of its interval."""
    if stage.loss.needs_reference:
        found = [-reward / stage.loss.beta for reward in trained.recent("rewards", "chosen")]
        return (float(np.mean(found)), interval(found).low) if len(found) >= 4 else None
    window = len(trained.late)
    if len(trained.lines) < 2 * window:
        return None
    change = gain_of(numbers(trained.lines[:window], "logps", "chosen"), trained.recent("logps", "chosen"))
    return (-change.delta, -change.ci95.high) if change else None


def longer(trained: Trained) -> Iterator[Remark]:
    """The better answers are mostly the longer ones, and the loss sums over tokens."""
    stage = trained.stage
    assert isinstance(stage, DPO | RewardModeling)
    if isinstance(stage, DPO) and not isinstance(stage.loss, Sigmoid | Hinge | CPO):
        return
    try:
        pairs = [row for row in islice(read_preferences(stage.data, Path()), LOOKED_AT) if isinstance(row, Preference)]
    except SharpenError:  # the rows have gone meanwhile
        return
    lengths = [(_length(row.chosen), _length(row.rejected)) for row in pairs]
    of_better, of_worse = (sum(side) for side in zip(*lengths, strict=True)) if lengths else (0, 0)
    share = sum(better > worse for better, worse in lengths) / max(1, len(lengths))
    if not of_worse or of_better < LONGER * of_worse or share < MOSTLY:
        return
    remedy = "shorten answers, balance the pairs, or take simpo, which goes by the mean over tokens"
    if isinstance(stage, RewardModeling):
        remedy = "balance the pairs"
    text = (
        f"The better answer is the longer one in {percent(share)} of {trained.name}'s pairs, "
        f"{of_better / of_worse:.1f} times as long in all: it may have learned length rather than what is better. "
        f"Compare the lengths of its answers; {remedy}."
    )
    yield Remark("longer", text, False, stage.name, figures={"share": share, "ratio": of_better / of_worse})


def _length(answer: tuple[Message, ...]) -> int:
    """Characters of the assistant's turns."""
    return sum(len(str(turn.get("content") or "")) for turn in answer if turn["role"] == "assistant")
