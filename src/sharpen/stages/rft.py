"""Reinforcement fine-tuning: sample, grade, compare, learn."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch

from sharpen.config.stages import RFT
from sharpen.data.order import indices
from sharpen.data.source import read_examples
from sharpen.errors import DataError, GraderError
from sharpen.graders.pool import GraderPool
from sharpen.guards.faults import FaultGuard
from sharpen.rollout.base import Params, Request, Sampler
from sharpen.rollout.local import LocalSampler
from sharpen.runs.store import Journal, resume_command
from sharpen.stages import report
from sharpen.stages.credit import Credited, credit
from sharpen.stages.grading import grade
from sharpen.stages.routing import Router, graders
from sharpen.stages.work import Work
from sharpen.train.engine import Engine, StepResult, score
from sharpen.train.losses import PolicyGradient
from sharpen.types import Example, Group, Rollout, Sample
from sharpen.types import Sequence as Row

GAP_MEAN = 0.02
"""Mean |log-probability| gap between sampler and trainer that bfloat16 may show; float32: GAP_MAX at most."""

GAP_MAX = 1e-3

KL_GROUPS = 4
"""The KL to the stage's start is measured on so many of a step's groups."""


async def run(stage: RFT, work: Work) -> None:
    """Train on the stage's prompts; publishes the model."""
    examples = _examples(list(read_examples(stage.data, work.base)), stage)
    held_out = work.held_out.examples.get(stage.name, [])
    reference = copy.deepcopy(work.loaded.model)
    updates = stage.algorithm.num_iterations
    engine = Engine(work.loaded.model, stage.optim, stage.steps * updates, stage.tokens_per_microbatch)
    done, state = work.restore(engine)
    sampler = LocalSampler(work.loaded.model, work.loaded.stop)
    guard = FaultGuard(stage.max_fault_share, stage.max_fault_steps, **state)
    journal = Journal(work.run.path / "journal" / f"{stage.name}.jsonl")
    loss = _loss(stage)
    with Router(_pools(stage, work)) as pool:
        await pool.start()
        for step in range(done, stage.steps):
            clock = report.Clock()
            sampler.version = step
            groups = await sample(stage, work, sampler, _prompts(stage, work, examples, step), step)
            clock.lap("sample")
            groups = await grade(groups, pool, journal, step)
            clock.lap("grade")
            grades = [made for group in groups for made in group.grades]
            before = {"running": guard.running}
            if cause := guard.check(grades):
                journal.forget(step)
                work.pause(step, engine, cause, before)
                raise GraderError(cause, remedy=f"Mend the grader, then: {resume_command(work.run.path)}")
            credited = credit(stage, groups)
            if step == 0:
                _check_gap(stage, work, engine, credited.rows)
            kl = _kl(stage, reference, credited, engine)
            results = _learn(stage, engine, loss, credited.rows)
            clock.lap("train")
            line = report.rft_line(stage, credited, results, kl, clock, step)
            if held_out and ((step + 1) % stage.eval_every == 0 or step + 1 == stage.steps):
                line["validation"] = await _validate(stage, work, sampler, pool, held_out)
            work.run.rollouts(stage.name, step + 1, report.rollout_lines(credited, work.renderer))
            work.finish_step(step + 1, stage.steps, engine, line, {"running": guard.running})
    work.finish(engine)


def _pools(stage: RFT, work: Work) -> dict[str, GraderPool]:
    """The stage's grader, which may be a function handed over in Python, and those that its sources name."""
    function = work.functions.get(stage.name)
    configs = graders(stage.grader, stage.data, stage.validation)
    return {key: GraderPool(config, function=None if key else function) for key, config in configs.items()}


def _loss(stage: RFT) -> PolicyGradient:
    algorithm = stage.algorithm
    return PolicyGradient(algorithm.clip_low, algorithm.clip_high, algorithm.normalizer, algorithm.mismatch_cap)


def _examples(examples: list[Example], stage: RFT) -> list[Example]:
    if not examples:
        raise DataError("there are no prompts to train on", field=f"stages.{stage.name}.data")
    return examples


def _prompts(stage: RFT, work: Work, examples: list[Example], step: int) -> list[Example]:
    first = step * stage.prompts_per_step
    chosen = indices(len(examples), first, first + stage.prompts_per_step, (work.seed, stage.name, "order"))
    return [examples[index] for index in chosen]


async def sample(stage: RFT, work: Work, sampler: Sampler, examples: Sequence[Example], step: int) -> list[Group]:
    """A group of completions for each example; random numbers are counted on (seed, stage, step, place, sample)."""
    requests = [
        Request(prompt, (work.seed, stage.name, step, place, attempt))
        for place, prompt in enumerate(work.renderer.example(example) for example in examples)
        for attempt in range(stage.group_size)
    ]
    params = Params(stage.sampling.max_tokens, stage.sampling.temperature)
    total = len(requests) * params.max_tokens
    segments = await sampler.sample(requests, params, lambda made: work.run.observer.progress("sample", made, total))
    rollouts = [Rollout((segment,), work.renderer.sample(segment)) for segment in segments]
    size = stage.group_size
    return [
        Group(example, tuple(rollouts[place * size : (place + 1) * size])) for place, example in enumerate(examples)
    ]


def _learn(stage: RFT, engine: Engine, loss: PolicyGradient, rows: list[Row]) -> list[StepResult]:
    """One optimiser step on the batch, or several with the log-probabilities of before the first."""
    temperature, updates = stage.sampling.temperature, stage.algorithm.num_iterations
    if updates > 1:
        rows = engine.score(rows, temperature)
    return [engine.step(rows, loss, temperature) for _ in range(updates)]


def _check_gap(stage: RFT, work: Work, engine: Engine, rows: list[Row]) -> None:
    """Compare sampler and trainer on the first step's rollouts; report it, and raise an alert when too far apart."""
    scored = engine.score(rows, stage.sampling.temperature)
    gaps = [
        abs(new - old)
        for row in scored
        for new, old, sampled in zip(row.old_logprobs, row.rollout_logprobs, row.mask, strict=True)
        if sampled
    ]
    if not gaps:
        return
    mean, peak = float(np.mean(gaps)), max(gaps)
    work.run.event("parity", stage=stage.name, logprob_gap_mean=mean, logprob_gap_max=peak, tokens=len(gaps))
    bad = mean > GAP_MEAN if work.loaded.dtype == torch.bfloat16 else peak > GAP_MAX
    if bad:
        message = f"sampler and trainer disagree: mean gap {mean:.4f}, largest {peak:.4f} nats"
        work.run.event("alert", stage=stage.name, kind="logprob_gap", message=message)


def _kl(stage: RFT, reference: torch.nn.Module, credited: Credited, engine: Engine) -> float | None:
    """KL(policy ‖ stage's start) in nats a token, on the first groups; k3 of http://joschu.net/blog/kl-approx.html."""
    rows = [row for row in credited.rows if int(row.atom) < KL_GROUPS]
    if not rows:
        return None
    scored = score(reference, rows, engine.tokens_per_microbatch, stage.sampling.temperature)
    ratios = np.array(
        [
            ref - policy
            for row in scored
            for ref, policy, sampled in zip(row.old_logprobs, row.rollout_logprobs, row.mask, strict=True)
            if sampled
        ]
    )
    return float(np.mean(np.expm1(ratios) - ratios))


async def _validate(
    stage: RFT, work: Work, sampler: Sampler, pool: Router, held_out: list[Example]
) -> dict[str, float]:
    """Mean grade of the greedy answers to the held-out prompts."""
    requests = [Request(work.renderer.example(example), ()) for example in held_out]
    segments = await sampler.sample(requests, Params(stage.sampling.max_tokens, 0.0))
    pairs: list[tuple[Example, Sample]] = [
        (example, work.renderer.sample(segment)) for example, segment in zip(held_out, segments, strict=True)
    ]
    scores = [made.score for made in await pool.grade_many(pairs) if made.score is not None]
    return {"reward": float(np.mean(scores)), "n": len(scores)} if scores else {}
