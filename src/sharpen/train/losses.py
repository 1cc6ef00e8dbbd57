"""The losses. They know no model: predictions and a batch go in, sums come out; the engine divides once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from sharpen.config.algorithms import Normalizer
from sharpen.data.pack import Batch, sequences
from sharpen.models.head import Predictions
from sharpen.types import Sequence as Row


class LossSum(NamedTuple):
    """A loss and its metrics over the batch: `sums` will be averaged, over the predictions or what `counts` says of a
    name; `peaks` maximised."""

    total: Tensor
    sums: dict[str, Tensor]
    peaks: dict[str, Tensor]
    counts: dict[str, float] = {}  # noqa: RUF012 - never changed


class Loss(Protocol):
    """What the engine asks of a loss."""

    whole: ClassVar[bool]
    """Whether the rows of an atom must come in one batch."""

    def count(self, rows: Sequence[Row]) -> float:
        """What the total is divided by, over all rows of the step (those without gradient included)."""
        ...

    def teaches(self, row: Row) -> bool:
        """Whether the row can have a gradient; the engine leaves others out of the forward pass."""
        ...

    def __call__(self, predictions: Any, batch: Batch, /) -> LossSum:
        """The sums over one batch, of what the model says of it: `Predictions`, or a reward model's scores."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Mean negative log-likelihood of the trained tokens: SFT."""

    whole: ClassVar[bool] = False

    def count(self, rows: Sequence[Row]) -> float:
        return float(sum(row.trained for row in rows))

    def teaches(self, row: Row) -> bool:
        return row.trained > 0

    def __call__(self, predictions: Predictions, batch: Batch) -> LossSum:
        return LossSum(-predictions.logprobs.sum(), {"token_accuracy": predictions.correct.sum()}, {})


@dataclass(frozen=True)
class KLTerm:
    """What straying from the reference costs, in the loss: `coef` times k2 or k3 of each token
    (http://joschu.net/blog/kl-approx.html), `importance_weighted` as config.algorithms.KL says."""

    coef: float
    estimator: Literal["k2", "k3"] = "k3"
    importance_weighted: bool = False

    def __call__(self, logprobs: Tensor, reference: Tensor, weight: Tensor) -> Tensor:
        """The cost of each token (N,), from log π, log π_ref and the token's weight (with its gradient)."""
        difference = reference - logprobs
        penalty = difference.square() / 2 if self.estimator == "k2" else difference.expm1() - difference
        return self.coef * (weight * penalty if self.importance_weighted else penalty)


@dataclass(frozen=True)
class PolicyGradient:
    """Clipped surrogates (PPO, arXiv:1707.06347) with group advantages: the GRPO family of config.algorithms.

    A token's gain is that of its `clip`, from the `ratio` π/π_old of the token or of its whole rollout, times
    the detached weight min(π_old/π_rollout, mismatch_cap) that corrects sampler against trainer. From it goes
    the KL to the reference, to it comes `entropy_coef` times the entropy; the sum is averaged by `normalizer`.
    A sequence is one rollout, of as many rows as it has segments.
    """

    whole: ClassVar[bool] = False

    clip_low: float = 0.2
    clip_high: float = 0.28
    normalizer: Normalizer = "token"
    mismatch_cap: float = 2.0
    ratio: Literal["token", "sequence"] = "token"
    clip: Literal["ppo", "cispo", "none"] = "ppo"
    max_tokens: int | None = None  # of the normaliser that bears its name, which cannot do without
    kl: KLTerm | None = None
    entropy_coef: float = 0.0

    def count(self, rows: Sequence[Row]) -> float:
        if self.normalizer == "token":
            return float(sum(row.trained for row in rows))
        rollouts = sum(any(row.trained for row in rollout) for rollout in sequences(rows))
        if self.normalizer == "max_tokens":
            assert self.max_tokens
            return float(rollouts * self.max_tokens)
        return float(rollouts)

    def teaches(self, row: Row) -> bool:
        """KL and entropy have a gradient on every token; without them only tokens with an advantage do."""
        return row.trained > 0 if self.kl or self.entropy_coef else any(row.advantages)

    def __call__(self, predictions: Predictions, batch: Batch) -> LossSum:
        logprobs = predictions.logprobs
        old = logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
        mismatch = (old - batch.rollout_logprobs).exp().clamp(max=self.mismatch_cap)
        change = logprobs - old
        gain, was_clipped = self._gain(change, logprobs, batch)
        objective = mismatch * gain
        if self.kl:
            assert batch.ref_logprobs is not None
            objective = objective - self.kl(logprobs, batch.ref_logprobs, mismatch * change.exp())
        if self.entropy_coef:
            objective = objective + self.entropy_coef * predictions.entropy
        if self.normalizer == "sequence":
            objective = objective / batch.lengths[batch.sequence]
        gap = (old - batch.rollout_logprobs).abs()
        return LossSum(
            -objective.sum(),
            {
                "clip_fraction": was_clipped.sum(),
                "entropy": predictions.entropy.detach().sum(),
                "logprob_gap": gap.sum(),
            },
            {"logprob_gap_max": gap.max()},
        )

    def _gain(self, change: Tensor, logprobs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The gain of each token and whether it was clipped, (N,) both, from log π/π_old (N,)."""
        if self.ratio == "sequence":  # arXiv:2507.18071, eq. 7
            sums = torch.zeros_like(batch.lengths, dtype=change.dtype).index_add(0, batch.sequence, change)
            change = (sums / batch.lengths)[batch.sequence]
        ratio, advantages = change.exp(), batch.advantages
        plain = ratio * advantages
        if self.clip == "ppo":
            gain = torch.minimum(plain, ratio.clamp(1 - self.clip_low, 1 + self.clip_high) * advantages)
            return gain, gain < plain
        if self.clip == "cispo":  # arXiv:2506.13585, eq. 4
            return ratio.detach().clamp(max=self.clip_high) * advantages * logprobs, ratio > self.clip_high
        return plain, torch.zeros_like(plain)
