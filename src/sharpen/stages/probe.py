"""The trial before an RFT stage: what its input model gets on its prompts, and what training would come to.

Nothing is trained, and no random number of the training is used up. A group teaches only where its rewards differ
(GRPO's advantages are zero else), so the share of such groups is what decides.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sharpen.config.stages import RFT, Probe
from sharpen.data.render import Renderer
from sharpen.errors import GraderError, ProbeError
from sharpen.guards.faults import FaultGuard, count
from sharpen.rl.advantages import SPREAD
from sharpen.rollout.base import Sampler
from sharpen.rollout.episodes import Answers
from sharpen.runs.memory import peak_memory, tree_bytes
from sharpen.runs.statistics import interval
from sharpen.stages.attempts import prompts, sample
from sharpen.stages.credit import rows_of
from sharpen.stages.evaluate import CORRECT
from sharpen.stages.grading import judge, with_grades
from sharpen.stages.routing import Router
from sharpen.stages.work import Work
from sharpen.train.engine import Engine
from sharpen.types import Example, Grade, Group
from sharpen.types import Sequence as Row

AGAIN = 16
"""So many completions are graded twice."""
SCORED_GROUPS = 4
"""Sampler and trainer are compared on the first so many groups."""
BACKWARD = 3.0
"""What training on a row takes, against looking at it: forward, and backward twice that."""
ADAM_BYTES = 12
"""A trained weight's gradient and two moments, in float32: what the first step adds to the memory in use."""

Figures = dict[str, Any]


@dataclass
class _Tried:
    groups: list[Group] = field(default_factory=list)
    sampling: float = 0.0  # seconds
    grading: float = 0.0

    @property
    def grades(self) -> list[Grade]:
        return [grade for group in self.groups for grade in group.grades]


async def probe(
    stage: RFT,
    config: Probe,
    work: Work,
    sampler: Sampler,
    engine: Engine,
    pool: Router,
    env: Answers | None,
    examples: list[Example],
) -> Figures:
    """The figures of the stage's model as it is now. Raises GraderError where its grader fails too often."""
    began = time.monotonic()
    tried = _Tried()
    while not tried.groups or _undecided(config, tried.groups):
        await _try(stage, config, work, sampler, pool, env, examples, tried)
        if cause := FaultGuard(stage.max_fault_share, stage.max_fault_steps).check(tried.grades):
            raise GraderError(f"in the trial before {stage.name}, {cause}", remedy="Mend it before anything is trained")
    changed, again = await _graded_again(work, pool, tried.groups)
    rows = rows_of(tried.groups[:SCORED_GROUPS])
    now = time.monotonic()
    apart = gaps(engine.score(rows, stage.sampling.temperature))
    scoring = time.monotonic() - now
    outcomes = [outcome(group.grades) for group in tried.groups]
    rollouts = [rollout for group in tried.groups for rollout in group.rollouts]
    scores = [grade.score for grade in tried.grades if grade.score is not None]
    forms = [grade.metrics["format"] for grade in tried.grades if "format" in grade.metrics]
    learnable = _share(outcomes, "mixed")
    computed = sum(len(row.tokens) for row in rows)
    per_group = sum(len(row.tokens) for row in rows_of(tried.groups)) / len(tried.groups)
    train = BACKWARD * scoring / max(computed, 1) * per_group * learnable["share"]
    each = (tried.sampling + tried.grading) / len(tried.groups) + train * stage.algorithm.num_iterations
    trained = sum(weight.numel() for weight in work.loaded.model.parameters() if weight.requires_grad)
    return {
        "prompts": len(tried.groups),
        "group_size": stage.group_size,
        "reward": {"mean": float(np.mean(scores)), "variance": float(np.var(scores))} if scores else None,
        "learnable": learnable,
        "always_right": _share(outcomes, "right"),
        "always_wrong": _share(outcomes, "wrong"),
        "alike": _share(outcomes, "alike"),
        "in_form": float(np.mean(forms)) if forms and len(forms) == len(tried.grades) else None,
        "faults": {"share": float(np.mean([not grade.valid for grade in tried.grades])), "kinds": count(tried.grades)},
        "graded_again": {"n": again, "changed": changed},
        "grade_seconds": tried.grading / len(rollouts),
        "tokens": float(np.mean([rollout.sampled for rollout in rollouts])),
        "truncated_share": float(np.mean([rollout.sample.finish == "length" for rollout in rollouts])),
        "max_tokens": stage.sampling.max_tokens,
        "mask": mask_faults(work.renderer, tried.groups),
        "logprob_gap": {"mean": float(np.mean(apart)), "max": max(apart)} if apart else None,
        "forecast": {
            "step_seconds": each * stage.prompts_per_step,
            "steps": stage.steps,
            "seconds": each * stage.prompts_per_step * stage.steps,
            "memory_bytes": max(peak_memory(), tree_bytes(os.getpid()) + ADAM_BYTES * trained),
        },
        "seconds": time.monotonic() - began,
    }


def advice(found: Figures) -> list[str]:
    """What the figures mean, in words; the first sentence is the verdict."""
    share, (low, high) = found["learnable"]["share"], found["learnable"]["ci95"]
    said = [f"{_percent(share)} [{_percent(low)}, {_percent(high)}] of groups have different rewards; only those teach"]
    wrong, right, alike = (found[name]["share"] for name in ("always_wrong", "always_right", "alike"))
    if wrong >= 0.5:
        unformed = found["in_form"] is not None and found["in_form"] < 0.5
        form = f" ({found['in_form']:.0%} of completions have the form that the grader reads)" if unformed else ""
        first = "an SFT stage on format" if unformed else "an SFT stage"
        said.append(f"{wrong:.0%} of groups are all wrong{form}: {first}, an easier set or partial credit would help")
    if right >= 0.5:
        said.append(f"{right:.0%} of groups are all right already: harder prompts would teach more")
    if alike >= 0.5:
        said.append(f"{alike:.0%} of groups have equal scores between: a grader that tells answers apart would help")
    if found["truncated_share"] > 0.25:
        said.append(
            f"{found['truncated_share']:.0%} of completions are cut off at {found['max_tokens']} tokens: "
            "raise sampling.max_tokens, or ask for shorter answers"
        )
    if changed := found["graded_again"]["changed"]:
        said.append(
            f"the grader gave {changed} of {found['graded_again']['n']} completions another score the second time: "
            "rewards are noisy, so groups need to be larger, or the grader steadier"
        )
    if found["faults"]["share"]:
        kinds = ", ".join(found["faults"]["kinds"])
        said.append(f"the grader failed on {found['faults']['share']:.1%} of completions ({kinds}): they are left out")
    said += found["mask"]
    return said


def decide(stage: RFT, config: Probe, found: Figures) -> None:
    """Raises ProbeError where the stage could learn nothing, unless it is forced."""
    if config.force or found["learnable"]["ci95"][1] >= config.min_learnable:
        return
    verdict, *reasons = advice(found)
    raise ProbeError(
        f"{stage.name} has nothing to learn from: of {found['prompts']} groups of {found['group_size']} completions, "
        f"{verdict}. {'. '.join(reason[0].upper() + reason[1:] for reason in reasons)}",
        remedy=f"To train all the same: --set stages.{stage.name}.probe.force=true",
    )


def outcome(grades: Sequence[Grade]) -> str:
    """What a group's grades come to: `mixed`, all `right`, all `wrong`, `alike` in between; `none`: under two valid."""
    scores = [grade.score for grade in grades if grade.score is not None]
    if len(scores) < 2:
        return "none"
    if max(scores) - min(scores) > SPREAD:
        return "mixed"
    return "right" if min(scores) >= CORRECT else "wrong" if max(scores) <= 0 else "alike"


def mask_faults(renderer: Renderer, groups: Sequence[Group]) -> list[str]:
    """What is wrong with what would be trained: empty where it is the completion, and nothing of the prompt.

    Attempts of one segment are looked at: in an environment a template may rewrite earlier turns.
    """
    for group in groups:
        for rollout in group.rollouts:
            if len(rollout.segments) != 1 or rollout.sample.messages:
                continue
            (segment,) = rollout.segments
            prompt = segment.tokens[: segment.mask.index(True)]
            if prompt != tuple(renderer.example(group.example)):
                return [f"the prompt of {group.example.id} is not what the chat template makes of it"]
            if renderer.sample(segment).text != rollout.sample.text:
                return [f"what would be trained of {group.example.id} is not the completion that was graded"]
    return []


def _undecided(config: Probe, groups: Sequence[Group]) -> bool:
    """Whether nothing was found to learn from, in too few groups to be sure of it."""
    if config.min_learnable == 0 or any(outcome(group.grades) == "mixed" for group in groups):
        return False
    needed = math.log(0.025) / math.log(1 - config.min_learnable)  # Clopper and Pearson's bound of none in n
    return len(groups) < needed


async def _try(
    stage: RFT,
    config: Probe,
    work: Work,
    sampler: Sampler,
    pool: Router,
    env: Answers | None,
    examples: list[Example],
    tried: _Tried,
) -> None:
    """Another `config.prompts` groups, in the order of training."""
    now = time.monotonic()
    batch = len(tried.groups) // config.prompts
    chosen = prompts(stage.model_copy(update={"prompts_per_step": config.prompts}), work, examples, batch)
    groups = await sample(stage, work, sampler, chosen, f"probe {batch}", env)
    sampled = time.monotonic()
    grades = await judge([(group.example, rollout) for group in groups for rollout in group.rollouts], pool)
    tried.groups += with_grades(groups, grades)
    tried.sampling += sampled - now
    tried.grading += time.monotonic() - sampled


async def _graded_again(work: Work, pool: Router, groups: Sequence[Group]) -> tuple[int, int]:
    """On how many completions the grader changed its mind, of how many; environments give no second reward."""
    pairs = [
        (group.example, rollout, grade)
        for group in groups
        for rollout, grade in zip(group.rollouts, group.grades, strict=True)
        if pool.grades(group.example) and not rollout.fault
    ][:: max(1, len(groups) * len(groups[0].rollouts) // AGAIN)][:AGAIN]
    with work.ledger.forgetful():
        second = await pool.grade_many([(example, rollout.sample) for example, rollout, _ in pairs])
    scored = [
        (first.score, grade.score)
        for (_, _, first), grade in zip(pairs, second, strict=True)
        if first.valid and grade.valid  # a fault says nothing of the grader's mind
    ]
    return sum(first != again for first, again in scored), len(scored)


def gaps(scored: Sequence[Row]) -> list[float]:
    """|log-probability of sampler − trainer| of each sampled token, in nats."""
    return [
        abs(new - old)
        for row in scored
        for new, old, made in zip(row.old_logprobs, row.rollout_logprobs, row.mask, strict=True)
        if made
    ]


def _percent(share: float) -> str:
    """A tenth matters where there is little."""
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def _share(outcomes: Sequence[str], kind: str) -> Figures:
    flags = [float(found == kind) for found in outcomes]
    return {"share": float(np.mean(flags)), "ci95": list(interval(flags))}
