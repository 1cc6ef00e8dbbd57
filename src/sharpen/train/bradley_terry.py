"""The loss of reward models: the better of two answers is to have the higher score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from sharpen.data.pack import Batch
from sharpen.train.losses import LossSum
from sharpen.types import Sequence as Row


@dataclass(frozen=True)
class BradleyTerry:
    """The mean over pairs of −log σ(r_w − r_l) (arXiv:2203.02155, eq. 1), plus `center` · (r_w + r_l)², which draws
    scores to 0 (arXiv:2312.09244, eq. 2).

    Of a pair the better answer comes first; packing keeps the two together.
    """

    center: float = 0.0

    whole: ClassVar[bool] = True

    def count(self, rows: Sequence[Row]) -> float:
        return len(rows) / 2

    def teaches(self, row: Row) -> bool:
        return True

    def __call__(self, scores: Tensor, batch: Batch, /) -> LossSum:
        """Of the scores (S,) of a batch's S texts."""
        better, worse = scores.view(-1, 2).unbind(1)
        losses = -F.logsigmoid(better - worse)
        if self.center:
            losses = losses + self.center * (better + worse).square()
        chosen, rejected = better.detach(), worse.detach()
        sums = {
            "rewards/chosen": chosen.sum(),
            "rewards/rejected": rejected.sum(),
            "rewards/margins": (chosen - rejected).sum(),
            "rewards/accuracies": (chosen > rejected).sum(),
        }
        return LossSum(losses.sum(), sums, {}, dict.fromkeys(sums, float(len(losses))))
