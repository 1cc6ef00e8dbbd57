"""From the grades of a step to the trainer's rows, and from an algorithm to its loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from sharpen.config.stages import RFT
from sharpen.rl.advantages import group_centered, group_normalized, leave_one_out
from sharpen.rl.lengths import overlong_penalty
from sharpen.train.losses import KLTerm, PolicyGradient
from sharpen.types import Group, Rollout, Segment
from sharpen.types import Sequence as Row

ADVANTAGES = {"normalized": group_normalized, "centered": group_centered, "leave_one_out": leave_one_out}


@dataclass
class Credited:
    """A step's groups with the rewards and advantages that learning reads from their grades."""

    groups: list[Group]
    rewards: list[list[float | None]]
    advantages: list[list[float] | None]
    """None marks a dropped group: fewer than two valid grades."""

    rows: list[Row] = field(default_factory=list)


def loss_of(stage: RFT) -> PolicyGradient:
    """The loss that the stage's algorithm describes."""
    algorithm, kl = stage.algorithm, stage.algorithm.kl
    term = None
    if kl.coef and kl.estimator != "k1_reward":
        term = KLTerm(kl.coef, kl.estimator, kl.importance_weighted)
    return PolicyGradient(
        clip_low=algorithm.clip_low or 0.0,  # a clip without this bound does not read it
        clip_high=algorithm.clip_high or 0.0,
        normalizer=algorithm.normalizer,
        mismatch_cap=algorithm.mismatch_cap,
        ratio=algorithm.ratio,
        clip=algorithm.clip,
        max_tokens=stage.sampling.max_tokens,
        kl=term,
        entropy_coef=algorithm.entropy_coef,
    )


def credit(
    stage: RFT, groups: Sequence[Group], with_reference: Callable[[list[Row]], list[Row]] | None = None
) -> Credited:
    """Rewards, advantages and the trainer's rows of a step.

    All segments of a rollout have its advantage. A faulty rollout has no reward and trains nothing. A group
    without spread keeps its rows: without KL and entropy they have no gradient, but their tokens count in the
    loss's denominator. `with_reference` fills in the rows' `ref_logprobs`; it is asked only where the algorithm
    has a KL.
    """
    algorithm = stage.algorithm
    rows = rows_of(groups)
    if algorithm.kl.coef:
        assert with_reference
        rows = with_reference(rows)
    strayed = _strayed(rows) if algorithm.kl.estimator == "k1_reward" else {}
    credited = Credited(list(groups), [], [])
    for place, group in enumerate(groups):
        rewards = [
            None
            if made.score is None
            else made.score + _penalty(stage, rollout, strayed.get((str(place), attempt), 0.0))
            for attempt, (made, rollout) in enumerate(zip(group.grades, group.rollouts, strict=True))
        ]
        credited.rewards.append(rewards)
        credited.advantages.append(ADVANTAGES[algorithm.advantage](rewards))
    credited.rows = _credited(stage, credited, rows)
    return credited


def rows_of(groups: Sequence[Group]) -> list[Row]:
    """The segments of the valid rollouts; a group is an atom."""
    rows: list[Row] = []
    for place, group in enumerate(groups):
        valid = [
            (attempt, segment)
            for attempt, (made, rollout) in enumerate(zip(group.grades, group.rollouts, strict=True))
            if made.score is not None
            for segment in rollout.segments
        ]
        shared = _shared([segment for _, segment in valid])
        rows += [_row(place, attempt, segment, shared) for attempt, segment in valid]
    return rows


def _shared(segments: Sequence[Segment]) -> int:
    """How many leading tokens all segments of a group have in common, before any is sampled.

    That is the prompt, unless a chat template rewrites even that, or an environment opened each attempt otherwise.
    """
    most = min((segment.mask.index(True) for segment in segments), default=0)
    alike = (len(set(column)) == 1 for column in zip(*(segment.tokens[:most] for segment in segments), strict=True))
    return sum(takewhile(bool, alike))


def _row(place: int, attempt: int, segment: Segment, shared: int) -> Row:
    return Row(
        tokens=segment.tokens,
        mask=segment.mask,
        atom=str(place),
        shared=shared,
        rollout_logprobs=segment.logprobs,
        attempt=attempt,
        support=segment.support,
    )


def _strayed(rows: Sequence[Row]) -> dict[tuple[str, int | None], float]:
    """Σ_t (log π_rollout − log π_ref) of each rollout with a reference, by atom and attempt, in nats."""
    found: dict[tuple[str, int | None], float] = {}
    for row in rows:
        key = (row.atom, row.attempt)
        found[key] = found.get(key, 0.0) + sum(row.rollout_logprobs) - sum(row.ref_logprobs)
    return found


def _penalty(stage: RFT, rollout: Rollout, strayed: float) -> float:
    """What length and distance from the reference add to a reward."""
    algorithm = stage.algorithm
    overlong = overlong_penalty(rollout.sampled, stage.sampling.max_tokens, algorithm.overlong_buffer)
    return overlong - algorithm.kl.coef * strayed


def _credited(stage: RFT, credited: Credited, rows: Sequence[Row]) -> list[Row]:
    """The rows with their advantages, less those of dropped groups and of completions that are to be masked."""
    found = []
    for row in rows:
        place, attempt = int(row.atom), row.attempt
        assert attempt is not None
        advantages = credited.advantages[place]
        truncated = credited.groups[place].rollouts[attempt].sample.finish == "length"
        if advantages is None or (truncated and stage.algorithm.mask_truncated):
            continue
        found.append(replace(row, advantages=tuple(advantages[attempt] if made else 0.0 for made in row.mask)))
    return found
