"""The losses of preferences: DPO and its family, on the summed log-probabilities of whole answers.

Of a pair the better answer comes first; packing keeps the two together. What a loss needs to know of a whole step (the
tokens of its better answers, KTO's z₀) it is told when it is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.config.preferences import CPO, IPO, KTO, ORPO, Hinge, PreferenceLoss, Sigmoid, SimPO
from sharpen.data.pack import Batch
from sharpen.models.head import Predictions
from sharpen.train.losses import LossSum
from sharpen.types import Sequence as Row


@dataclass(frozen=True)
class PairLoss:
    """The mean over pairs of what `config` says; `chosen_tokens` is the mean length of the step's better answers."""

    config: PreferenceLoss
    chosen_tokens: float

    whole: ClassVar[bool] = True

    @classmethod
    def of_step(cls, config: PreferenceLoss, rows: Sequence[Row]) -> PairLoss:
        """The loss for the pairs of one step: better and worse in turn."""
        return cls(config, sum(row.trained for row in rows[::2]) / max(1, len(rows) // 2))

    def count(self, rows: Sequence[Row]) -> float:
        return len(rows) / 2

    def teaches(self, row: Row) -> bool:
        return True

    def __call__(self, predictions: Predictions, batch: Batch) -> LossSum:
        policy = _per_answer(predictions.logprobs, batch)
        reference = torch.zeros_like(policy)
        sums: dict[str, Tensor] = {}
        counts: dict[str, float] = {}
        if self.config.needs_reference:
            assert batch.ref_logprobs is not None
            reference = _per_answer(batch.ref_logprobs, batch)
            sums["kl"], counts["kl"] = _strayed(predictions, batch)
        chosen, rejected = (policy - reference).view(-1, 2).unbind(1)
        lengths = batch.lengths.view(-1, 2).unbind(1)
        losses, rewards = self._losses(chosen, rejected, *lengths)
        better, worse = (reward.detach() for reward in rewards)
        logps = policy.detach().view(-1, 2).sum(0)
        of_pairs = {
            "rewards/chosen": better.sum(),
            "rewards/rejected": worse.sum(),
            "rewards/margins": (better - worse).sum(),
            "rewards/accuracies": (better > worse).sum(),
            "logps/chosen": logps[0],
            "logps/rejected": logps[1],
        }
        counts |= dict.fromkeys(of_pairs, float(len(losses)))
        return LossSum(losses.sum(), sums | of_pairs, {}, counts)

    def _losses(
        self, chosen: Tensor, rejected: Tensor, chosen_length: Tensor, rejected_length: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The loss of each pair (P,), and the rewards of its answers, from log π − log π_ref (or log π) (P,) of each
        and their lengths (P,) in tokens."""
        config = self.config
        beta = config.beta
        match config:
            case Sigmoid():
                return _smoothed(beta * (chosen - rejected), config.label_smoothing), (beta * chosen, beta * rejected)
            case Hinge():
                return F.relu(1 - beta * (chosen - rejected)), (beta * chosen, beta * rejected)
            case IPO():
                margin = chosen / chosen_length - rejected / rejected_length
                return (margin - 1 / (2 * beta)).square(), (beta * chosen, beta * rejected)
            case SimPO():
                means = chosen / chosen_length, rejected / rejected_length
                margin = beta * (means[0] - means[1]) - config.simpo_gamma
                return _smoothed(margin, config.label_smoothing), (beta * means[0], beta * means[1])
            case ORPO():
                means = chosen / chosen_length, rejected / rejected_length
                odds = -F.logsigmoid(_log_odds(means[0]) - _log_odds(means[1]))
                return beta * odds + self._nll(chosen), (beta * means[0], beta * means[1])
            case CPO():
                losses = _smoothed(beta * (chosen - rejected), config.label_smoothing)
                return losses + config.cpo_alpha * self._nll(chosen), (beta * chosen, beta * rejected)
        raise TypeError(f"{type(config).__name__} compares no pairs")

    def _nll(self, chosen: Tensor) -> Tensor:
        """Of which the mean over pairs is the negative log-likelihood of a token of the step's better answers."""
        return -chosen / self.chosen_tokens


@dataclass(frozen=True)
class KTOLoss:
    """The mean over answers of KTO's loss; rows have advantages of 1 where desirable, and of −1 where not.

    `z0` is the step's, in nats an answer (`z0_of`).
    """

    config: KTO
    z0: float

    whole: ClassVar[bool] = False

    def count(self, rows: Sequence[Row]) -> float:
        return float(len(rows))

    def teaches(self, row: Row) -> bool:
        return True

    def __call__(self, predictions: Predictions, batch: Batch) -> LossSum:
        assert batch.ref_logprobs is not None
        config = self.config
        logps = _per_answer(predictions.logprobs, batch)
        ratios = logps - _per_answer(batch.ref_logprobs, batch)
        signs = _per_answer(batch.advantages, batch) / batch.lengths
        desirable = signs > 0
        weights = torch.where(desirable, config.desirable_weight, config.undesirable_weight)
        losses = weights * (1 - torch.sigmoid(signs * config.beta * (ratios - self.z0)))
        rewards, right = (config.beta * ratios).detach(), signs * (ratios - self.z0) > 0
        answers = float(len(losses))
        sums = {"kl": losses.new_tensor(answers * self.z0), "rewards/accuracies": right.sum()}
        counts = dict.fromkeys(sums, answers)
        for name, own in (("chosen", desirable), ("rejected", ~desirable)):
            for what, values in (("rewards", rewards), ("logps", logps.detach())):
                sums[f"{what}/{name}"] = values[own].sum()
                counts[f"{what}/{name}"] = float(own.sum())
        return LossSum(losses.sum(), sums, {}, counts)


def z0_of(rows: Sequence[Row]) -> float:
    """KTO's z₀: how much likelier the policy finds answers to other prompts than its start, in nats an answer; at least
    0. The mismatched rows have `old_logprobs` by the policy and `ref_logprobs` by its start."""
    ratios = [
        math.fsum(by - start for by, start in zip(row.old_logprobs, row.ref_logprobs, strict=True)) for row in rows
    ]
    return max(0.0, math.fsum(ratios) / len(ratios))


def _per_answer(values: Tensor, batch: Batch) -> Tensor:
    """The sums (S,) over the tokens (N,) of each answer."""
    return torch.zeros_like(batch.lengths, dtype=values.dtype).index_add(0, batch.sequence, values)


def _strayed(predictions: Predictions, batch: Batch) -> tuple[Tensor, float]:
    """The sum over the tokens of the better answers of exp(d) − 1 − d, d = log π_ref − log π, and their number.

    It is 0 only where policy and start agree; on the policy's own samples its mean would be their KL
    (http://joschu.net/blog/kl-approx.html, k3).
    """
    assert batch.ref_logprobs is not None
    difference = (batch.ref_logprobs - predictions.logprobs.detach())[batch.sequence % 2 == 0]
    return (difference.expm1() - difference).sum(), float(len(difference))


def _smoothed(margin: Tensor, smoothing: float) -> Tensor:
    """−log σ(margin), of which a share is for the other order."""
    return -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)


def _log_odds(mean: Tensor) -> Tensor:
    """log p/(1 − p) of a token's mean log-probability log p (P,); p = 1 to rounding is taken as just below it."""
    mean = mean.clamp(max=-torch.finfo(mean.dtype).tiny)
    return mean - torch.log(-torch.expm1(mean))
