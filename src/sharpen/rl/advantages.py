"""From the rewards of a group to advantages. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SPREAD = 1e-6
"""Rewards closer than this are equal: such a group teaches nothing."""


def group_normalized(rewards: Sequence[float | None]) -> list[float] | None:
    """GRPO's advantage (arXiv:2402.03300, eq. 3): (r − mean) / std, with the sample's std (ddof 1).

    None marks a faulty rollout: it leaves mean and std, and its advantage is 0. Returns None for a
    group to drop (fewer than two valid rewards), and zeros for a group without spread.
    """
    valid = np.array([reward for reward in rewards if reward is not None], dtype=np.float64)
    if len(valid) < 2:
        return None
    if np.ptp(valid) <= SPREAD:
        return [0.0] * len(rewards)
    mean, std = valid.mean(), valid.std(ddof=1)
    return [0.0 if reward is None else float((reward - mean) / std) for reward in rewards]
