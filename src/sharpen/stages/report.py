"""What a step of RFT reports: its metrics line and its rollouts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sharpen.config.graders import Grader, Multi
from sharpen.config.stages import RFT
from sharpen.data.render import Renderer
from sharpen.guards.faults import count
from sharpen.rl.advantages import SPREAD
from sharpen.stages.credit import Credited, loss_of
from sharpen.stages.routing import graders
from sharpen.train.engine import StepResult
from sharpen.types import Group, Rollout


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.began = self._last = time.monotonic()
        self.phases: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """What passed since the last lap belongs to this phase."""
        now = time.monotonic()
        self.phases[phase] = now - self._last
        self._last = now

    def line(self) -> dict[str, float]:
        """All phases, and the whole step."""
        return {"step": self._last - self.began, **self.phases}


def rft_line(
    stage: RFT, credited: Credited, results: list[StepResult], kl: float | None, clock: Clock, step: int
) -> dict[str, Any]:
    """The metrics of step `step` (from 0)."""
    result = results[-1].line()
    gap = {"mean": result.pop("logprob_gap", None), "max": result.pop("logprob_gap_max", None)}
    if len(results) > 1:  # the gap is between sampler and trainer before the first update
        gap = {"mean": results[0].metrics.get("logprob_gap"), "max": results[0].metrics.get("logprob_gap_max")}
    grades = [made for group in credited.groups for made in group.grades]
    rollouts = [rollout for group in credited.groups for rollout in group.rollouts]
    rewards = [reward for group in credited.rewards for reward in group if reward is not None]
    lengths = [rollout.sampled for rollout in rollouts]
    truncated = [rollout.sample.finish == "length" for rollout in rollouts]
    spread = [_spread(group) for group in credited.rewards]
    teaches = loss_of(stage).teaches
    return {
        **result,
        "reward": {"mean": _mean(rewards), "std": _std(rewards), "by_grader": _by_grader(stage, credited.groups)},
        "no_spread_share": _mean([float(value <= SPREAD) for value in spread]),
        "dropped_groups": sum(advantages is None for advantages in credited.advantages),
        "kl": kl,
        "entropy": result.get("entropy"),
        "clip_fraction": result.get("clip_fraction"),
        "length": {"mean": _mean(lengths), "max": max(lengths), "truncated_share": _mean(truncated)},
        "logprob_gap": gap,
        "policy_lag": step - min((part.version for rollout in rollouts for part in rollout.segments), default=step),
        "faults": count(grades),
        "time": clock.line(),
        "tokens": {
            "sampled": sum(lengths),
            "trained": sum(row.trained for row in credited.rows if teaches(row)),
        },
    }


def rollout_lines(credited: Credited, renderer: Renderer) -> list[dict[str, Any]]:
    """One line a completion."""
    lines = []
    for group, rewards, advantages in zip(credited.groups, credited.rewards, credited.advantages, strict=True):
        for place, (rollout, made) in enumerate(zip(group.rollouts, group.grades, strict=True)):
            lines.append(
                {
                    "example": group.example.id,
                    "prompt": list(rollout.prompt or group.example.messages),
                    **({"tools": list(group.example.tools)} if group.example.tools else {}),
                    "text": rollout.sample.text,
                    **thoughts(rollout),
                    **episode(rollout),
                    "tokens": _sampled(rollout),
                    "finish": rollout.sample.finish,
                    "scores": {"score": made.score, **made.metrics},
                    "explanation": made.explanation,
                    "fault": made.fault.kind if made.fault else None,
                    "reward": rewards[place],
                    "advantage": advantages[place] if advantages else None,
                    "version": rollout.segments[-1].version if rollout.segments else None,
                }
            )
    return lines


def _by_grader(stage: RFT, groups: Sequence[Group]) -> dict[str, float | None]:
    """The mean score by each grader, under its name; of a `multi`, also those of its parts."""
    configs: dict[str, Grader | None] = {"": stage.grader, **graders(stage.grader, stage.data)}
    scores: dict[str, list[float]] = {column: [] for config in configs.values() for column in _columns(config)}
    for group in groups:
        name, *parts = _columns(configs[group.example.grader])
        for made in group.grades:
            if made.score is not None:
                scores[name].append(made.score)
                for part in parts:
                    scores[part].append(made.metrics[part])
    return {name: _mean(own) for name, own in scores.items()}


def _columns(config: Grader | None) -> list[str]:
    """The grader's name, and those of its parts; without a grader the environment gives the reward."""
    if config is None:
        return ["environment"]
    return [config.name or config.type, *(config.graders if isinstance(config, Multi) else ())]


def thoughts(rollout: Rollout) -> dict[str, str]:
    """What a line tells of a reasoning model's thoughts; nothing where there are none."""
    return {"reasoning": rollout.sample.reasoning} if rollout.sample.reasoning else {}


def episode(rollout: Rollout) -> dict[str, Any]:
    """What a line tells of a rollout in an environment: its turns, the environment's state and reward."""
    sample = rollout.sample
    if not (sample.messages or rollout.prompt):
        return {}
    return {"messages": list(sample.messages), "env_state": sample.env_state, "env_reward": rollout.reward}


def _sampled(rollout: Rollout) -> list[int]:
    """The tokens that the policy made, over all turns."""
    return [
        token
        for segment in rollout.segments
        for token, sampled in zip(segment.tokens, segment.mask, strict=True)
        if sampled
    ]


def _spread(rewards: list[float | None]) -> float:
    valid = [reward for reward in rewards if reward is not None]
    return max(valid) - min(valid) if valid else 0.0


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _std(values: list[float]) -> float | None:
    return float(np.std(values)) if values else None
