"""Reinforcement fine-tuning: sample, grade, compare, learn."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from sharpen.config.stages import RFT
from sharpen.errors import GraderError
from sharpen.guards.faults import FaultGuard
from sharpen.rollout.base import Params, Sampler
from sharpen.rollout.episodes import Answers, Attempt, make
from sharpen.runs.store import Journal, resume_command
from sharpen.stages import report
from sharpen.stages.attempts import drawn, pools, prompts, read, sample
from sharpen.stages.credit import Credited, credit, loss_of
from sharpen.stages.environment import Recalled, environment
from sharpen.stages.following import SharedSampler
from sharpen.stages.grading import grade, judge
from sharpen.stages.lag import Waiting
from sharpen.stages.probe import advice, decide, gaps, probe
from sharpen.stages.routing import Router
from sharpen.stages.work import Work
from sharpen.train.engine import Engine, StepResult
from sharpen.train.losses import PolicyGradient
from sharpen.train.reference import Reference
from sharpen.types import Example
from sharpen.types import Sequence as Row

GAP_MEAN = 0.02
"""Mean |log-probability| gap between sampler and trainer that bfloat16 may show; float32: GAP_MAX at most."""

GAP_MAX = 1e-3

KL_GROUPS = 4
"""The KL to the stage's start is measured on so many of a step's groups."""


async def run(stage: RFT, work: Work) -> None:
    """Train on the stage's prompts; publishes the model."""
    examples = read(stage, work)
    held_out = work.held_out.examples.get(stage.name, [])
    updates = stage.algorithm.num_iterations
    engine = work.engine(stage.steps * updates)
    reference = Reference(engine)
    done, state = work.restore(engine)
    sampler = SharedSampler(work.loaded, work.ranks)
    asked = partial(prompts, stage, work, examples)
    waiting = Waiting(stage.algorithm.max_lag, stage.steps, asked, state.get("waiting", ()))
    guard = FaultGuard(stage.max_fault_share, stage.max_fault_steps, state.get("running", 0))
    journal = Journal(work.run.path / "journal" / f"{stage.name}.jsonl")
    loss = loss_of(stage)
    with Router(pools(stage, work)) as pool, environment(stage.env) as env:
        episodes = Recalled(env, Journal(work.run.path / "journal" / f"{stage.name}+env.jsonl")) if env else None
        await pool.start()
        if env:
            await env.start()
        if stage.probe and not done:
            found = await probe(stage, stage.probe, work, sampler, engine, pool, env, examples)
            work.run.event("probed", stage=stage.name, message=". ".join(advice(found)), figures=found)
            decide(stage, stage.probe, found)
        for step in range(done, stage.steps):
            if work.stopped_early:
                break
            clock = report.Clock()
            sampler.version = step
            groups = await waiting.take(step, partial(sample, stage, work, sampler, env=episodes))
            if episodes:
                episodes.note()
            clock.lap("sample")
            groups = await grade(groups, pool, journal, step)
            clock.lap("grade")
            grades = [made for group in groups for made in group.grades]
            if cause := guard.check(grades):
                journal.forget(step)
                if episodes:
                    episodes.forget(step)
                work.pause(step, engine, cause, state)
                raise GraderError(cause, remedy=f"Mend it, then: {resume_command(work.run.path)}")
            credited = credit(stage, groups, partial(with_reference, stage, reference))
            if step == 0:
                _check_gap(stage, work, engine, credited.rows)
            kl = kl_to_start(stage, reference, credited)
            results = learn(stage, engine, loss, credited.rows)
            clock.lap("train")
            line = report.rft_line(stage, credited, results, kl, clock, step)
            if counts := drawn(stage, work, step):
                line["rows"] = counts
            if held_out and ((step + 1) % stage.eval_every == 0 or step + 1 == stage.steps):
                line["validation"] = await _validate(stage, work, sampler, pool, env, held_out)
            work.run.rollouts(stage.name, step + 1, report.rollout_lines(credited, work.renderer))
            state = {"running": guard.running, "waiting": waiting.state()}
            work.finish_step(step + 1, stage.steps, engine, line, state)
    work.finish(engine)


def learn(stage: RFT, engine: Engine, loss: PolicyGradient, rows: list[Row]) -> list[StepResult]:
    """One optimiser step on the batch, or several with the log-probabilities of before the first."""
    temperature, updates = stage.sampling.temperature, stage.algorithm.num_iterations
    if updates > 1:
        rows = engine.score(rows, temperature)
    return [engine.step(rows, loss, temperature) for _ in range(updates)]


def _check_gap(stage: RFT, work: Work, engine: Engine, rows: list[Row]) -> None:
    """Compare sampler and trainer on the first step's rollouts; report it, and raise an alert when too far apart."""
    scored = engine.score(rows, stage.sampling.temperature)
    if not (apart := gaps(scored)):
        return
    mean, peak = float(np.mean(apart)), max(apart)
    work.run.event("parity", stage=stage.name, logprob_gap_mean=mean, logprob_gap_max=peak, tokens=len(apart))
    bad = mean > GAP_MEAN if work.loaded.dtype == torch.bfloat16 else peak > GAP_MAX
    if bad:
        message = f"sampler and trainer disagree: mean gap {mean:.4f}, largest {peak:.4f} nats"
        work.run.event("alert", stage=stage.name, kind="logprob_gap", message=message)


def with_reference(stage: RFT, reference: Reference, rows: list[Row]) -> list[Row]:
    """The rows with `ref_logprobs`: those of the stage's starting weights."""
    scored = reference.score(rows, stage.sampling.temperature)
    return [replace(row, ref_logprobs=by.old_logprobs) for row, by in zip(rows, scored, strict=True)]


def kl_to_start(stage: RFT, reference: Reference, credited: Credited) -> float | None:
    """KL(policy ‖ stage's start) in nats a token, on the first groups; k3 of http://joschu.net/blog/kl-approx.html."""
    rows = [row for row in credited.rows if int(row.atom) < KL_GROUPS]
    if not rows:
        return None
    if not stage.algorithm.kl.coef:
        rows = with_reference(stage, reference, rows)
    ratios = np.array(
        [
            ref - policy
            for row in rows
            for ref, policy, sampled in zip(row.ref_logprobs, row.rollout_logprobs, row.mask, strict=True)
            if sampled
        ]
    )
    return float(np.mean(np.expm1(ratios) - ratios))


async def _validate(
    stage: RFT, work: Work, sampler: Sampler, pool: Router, env: Answers | None, held_out: list[Example]
) -> dict[str, float]:
    """Mean grade of the greedy answers to the held-out prompts. Raises GraderError where the grader fails too often."""
    attempts = [Attempt(example, ()) for example in held_out]
    params = Params(stage.sampling.max_tokens, 0.0, grammar=work.grammar)
    budget = stage.sampling.thinking_budget
    rollouts = await make(attempts, env, sampler, work.renderer, params, thinking_budget=budget)
    grades = await judge(list(zip(held_out, rollouts, strict=True)), pool)
    if cause := FaultGuard(stage.max_fault_share, stage.max_fault_steps).check(grades):
        # The mean of what is left would decide what is best. Steps since the last checkpoint are done over.
        raise GraderError(f"at the validation rows, {cause}", remedy=f"Mend it, then: {resume_command(work.run.path)}")
    scores = [made.score for made in grades if made.score is not None]
    return {"reward": float(np.mean(scores)), "n": len(scores)} if scores else {}
