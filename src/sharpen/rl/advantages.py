"""From the rewards of a group to advantages. Pure functions.

Each takes a group's rewards, None for a faulty rollout: that leaves the group's statistics, and its advantage
is 0. Each returns None for a group to drop (fewer than two valid rewards), and zeros for one without spread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Rewards = Sequence[float | None]
Values = NDArray[np.float64]

SPREAD = 1e-6
"""Rewards closer than this are equal: such a group teaches nothing."""


def group_normalized(rewards: Rewards) -> list[float] | None:
    """GRPO's advantage (arXiv:2402.03300, eq. 3): (r − mean) / std, with the sample's std (ddof 1)."""
    return _of_valid(rewards, lambda valid: (valid - valid.mean()) / valid.std(ddof=1))


def group_centered(rewards: Rewards) -> list[float] | None:
    """Dr. GRPO's advantage (arXiv:2503.20783, eq. 3): r − mean."""
    return _of_valid(rewards, lambda valid: valid - valid.mean())


def leave_one_out(rewards: Rewards) -> list[float] | None:
    """RLOO's advantage (arXiv:2402.14740, eq. 8): r − the mean of the other rewards."""
    return _of_valid(rewards, lambda valid: valid - (valid.sum() - valid) / (len(valid) - 1))


def _of_valid(rewards: Rewards, formula: Callable[[Values], Values]) -> list[float] | None:
    valid = np.array([reward for reward in rewards if reward is not None], dtype=np.float64)
    if len(valid) < 2:
        return None
    if np.ptp(valid) <= SPREAD:
        return [0.0] * len(rewards)
    advantages = iter(formula(valid).tolist())
    return [0.0 if reward is None else next(advantages) for reward in rewards]
