"""From the grades of a step to the trainer's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sharpen.config.stages import RFT
from sharpen.rl.advantages import group_normalized
from sharpen.rl.lengths import overlong_penalty
from sharpen.types import Group, Segment
from sharpen.types import Sequence as Row


@dataclass
class Credited:
    """A step's groups with the rewards and advantages that learning reads from their grades."""

    groups: list[Group]
    rewards: list[list[float | None]]
    advantages: list[list[float] | None]
    """None marks a dropped group: fewer than two valid grades."""

    rows: list[Row] = field(default_factory=list)


def credit(stage: RFT, groups: Sequence[Group]) -> Credited:
    """Rewards, advantages and the trainer's rows of a step.

    A faulty rollout has no reward and trains nothing. A group without spread keeps its rows: they have no
    gradient, but their tokens count in the loss's denominator.
    """
    algorithm, limit = stage.algorithm, stage.sampling.max_tokens
    credited = Credited(list(groups), [], [])
    for place, group in enumerate(groups):
        rewards = [
            None
            if made.score is None
            else made.score + overlong_penalty(rollout.sampled, limit, algorithm.overlong_buffer)
            for made, rollout in zip(group.grades, group.rollouts, strict=True)
        ]
        advantages = group_normalized(rewards)
        credited.rewards.append(rewards)
        credited.advantages.append(advantages)
        for reward, advantage, rollout in zip(rewards, advantages or (), group.rollouts, strict=bool(advantages)):
            if reward is not None:
                credited.rows += [_row(place, segment, advantage) for segment in rollout.segments]
    return credited


def _row(place: int, segment: Segment, advantage: float) -> Row:
    return Row(
        tokens=segment.tokens,
        mask=segment.mask,
        atom=str(place),
        shared=segment.mask.index(True),
        advantages=tuple(advantage if sampled else 0.0 for sampled in segment.mask),
        rollout_logprobs=segment.logprobs,
    )
