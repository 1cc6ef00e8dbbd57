"""The losses. They know no model: predictions and a batch go in, sums come out; the engine divides once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from sharpen.data.pack import Batch
from sharpen.models.head import Predictions
from sharpen.types import Sequence as Row


class LossSum(NamedTuple):
    """A loss and its metrics over the batch's predictions: `sums` will be averaged, `peaks` maximised."""

    total: Tensor
    sums: dict[str, Tensor]
    peaks: dict[str, Tensor]


class Loss(Protocol):
    """What the engine asks of a loss."""

    def count(self, rows: Sequence[Row]) -> float:
        """What the total is divided by, over all rows of the step (those without gradient included)."""
        ...

    def teaches(self, row: Row) -> bool:
        """Whether the row can have a gradient; the engine leaves others out of the forward pass."""
        ...

    def __call__(self, predictions: Predictions, batch: Batch) -> LossSum:
        """The sums over one batch."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Mean negative log-likelihood of the trained tokens: SFT."""

    def count(self, rows: Sequence[Row]) -> float:
        return float(sum(row.trained for row in rows))

    def teaches(self, row: Row) -> bool:
        return row.trained > 0

    def __call__(self, predictions: Predictions, batch: Batch) -> LossSum:
        return LossSum(-predictions.logprobs.sum(), {"token_accuracy": predictions.correct.sum()}, {})


@dataclass(frozen=True)
class PolicyGradient:
    """PPO's clipped surrogate (arXiv:1707.06347) with group advantages: the GRPO family.

    A token's gain is min(ratio·A, clip(ratio, 1 − clip_low, 1 + clip_high)·A), ratio = π/π_old, times the
    detached weight min(π_old/π_rollout, mismatch_cap) that corrects sampler against trainer.
    `normalizer` is "sequence" (GRPO: mean over each sequence's tokens, then over sequences) or
    "token" (DAPO: mean over all tokens).
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    normalizer: Literal["sequence", "token"] = "token"
    mismatch_cap: float = 2.0

    def count(self, rows: Sequence[Row]) -> float:
        trained = [row.trained for row in rows if row.trained]
        return float(len(trained) if self.normalizer == "sequence" else sum(trained))

    def teaches(self, row: Row) -> bool:
        return any(row.advantages)

    def __call__(self, predictions: Predictions, batch: Batch) -> LossSum:
        logprobs = predictions.logprobs
        old = logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
        mismatch = (old - batch.rollout_logprobs).exp().clamp(max=self.mismatch_cap)
        ratio = (logprobs - old).exp()
        clipped = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        gain = torch.minimum(ratio * batch.advantages, clipped * batch.advantages)
        was_clipped = (gain < ratio * batch.advantages).float()
        weight = mismatch
        if self.normalizer == "sequence":
            weight = mismatch / batch.lengths[batch.sequence]
        gap = (old - batch.rollout_logprobs).abs()
        return LossSum(
            -(weight * gain).sum(),
            {
                "clip_fraction": was_clipped.sum(),
                "entropy": predictions.entropy.sum(),
                "logprob_gap": gap.sum(),
            },
            {"logprob_gap_max": gap.max()},
        )
