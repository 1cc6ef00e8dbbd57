"""From the grades of a step to the trainer's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

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

    All segments of a rollout have its advantage. A faulty rollout has no reward and trains nothing. A group
    without spread keeps its rows: they have no gradient, but their tokens count in the loss's denominator.
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
        valid = [rollout for rollout, reward in zip(group.rollouts, rewards, strict=True) if reward is not None]
        shared = _shared([segment for rollout in valid for segment in rollout.segments])
        for reward, advantage, rollout in zip(rewards, advantages or (), group.rollouts, strict=bool(advantages)):
            if reward is not None:
                credited.rows += [_row(place, segment, advantage, shared) for segment in rollout.segments]
    return credited


def _shared(segments: Sequence[Segment]) -> int:
    """How many leading tokens all segments of a group have in common, before any is sampled.

    That is the prompt, unless a chat template rewrites even that, or an environment opened each attempt otherwise.
    """
    most = min((segment.mask.index(True) for segment in segments), default=0)
    alike = (len(set(column)) == 1 for column in zip(*(segment.tokens[:most] for segment in segments), strict=True))
    return sum(takewhile(bool, alike))


def _row(place: int, segment: Segment, advantage: float, shared: int) -> Row:
    return Row(
        tokens=segment.tokens,
        mask=segment.mask,
        atom=str(place),
        shared=shared,
        advantages=tuple(advantage if sampled else 0.0 for sampled in segment.mask),
        rollout_logprobs=segment.logprobs,
    )
