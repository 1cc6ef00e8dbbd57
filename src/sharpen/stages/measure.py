"""What a recipe costs on this machine: steps of every stage and answers to every eval, on its own model and data.

There is no run directory, and nothing is kept. The learning rate is 0, so every stage finds the model that the recipe
names, not what the stage before would make of it. Every group is trained on, also those without spread, which a run
skips: how many there will be is not known beforehand.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch

from sharpen.config.adapters import Continue, Full, LowRank
from sharpen.config.recipe import Eval, Recipe
from sharpen.config.stages import DPO, RFT, SFT, AnyStage
from sharpen.data.pack import atoms, cost
from sharpen.errors import DataError, GraderError
from sharpen.guards.faults import FaultGuard
from sharpen.models.adapters import merge
from sharpen.models.load import Loaded, compute_dtype, load
from sharpen.models.load import resolve as resolve_model
from sharpen.rollout.grammar import grammar_of
from sharpen.runs.memory import Watch
from sharpen.runs.observer import Observer
from sharpen.runs.store import RunDir
from sharpen.stages import adapting, dpo, epochs, evaluate, own_graders, reward_model, rft, sft, starts
from sharpen.stages.attempts import pools, prompts, read, sample
from sharpen.stages.credit import credit, loss_of
from sharpen.stages.environment import environment
from sharpen.stages.following import SharedSampler
from sharpen.stages.grading import judge, with_grades
from sharpen.stages.heldout import HeldOut
from sharpen.stages.pipeline import blocking
from sharpen.stages.report import Clock
from sharpen.stages.resolve import placed
from sharpen.stages.routing import Router
from sharpen.stages.stopping import StopFlag
from sharpen.stages.work import Work
from sharpen.train.ranks import Ranks
from sharpen.train.reference import Reference
from sharpen.types import Sequence as Row

STEPS = 2
"""So many whole steps are measured where the time suffices for them; else a part of one: its first rows or prompts."""

WARM = 5.0
"""A first unit that took fewer seconds is done again: warming up may have been most of it."""

LOOK = 1 / 3
"""What a look at validation rows costs of a step that trains on them: forward without backward."""

RATES = (("sampled", "sample"), ("trained", "train"), ("computed", "train"))
"""Which tokens are counted against the seconds of which phase."""

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was measured, or the part of one: `units` are its rows, prompts or problems."""

    units: int
    seconds: dict[str, float]  # by phase, and their sum as "step"
    counts: Counts  # tokens sampled, trained (under the loss) and computed (through the model in training), and others


Take = Callable[[int, int], Awaitable[Taken]]
"""Does step `number` (from 0) with so many units."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured of something whose whole steps have `whole` units."""

    taken: Sequence[Taken]
    whole: int

    @property
    def units(self) -> int:
        """Of all that was measured."""
        return sum(taken.units for taken in self.taken)

    @property
    def counts(self) -> Counts:
        """Of all that was measured."""
        return {name: sum(taken.counts[name] for taken in self.taken) for name in self.taken[0].counts}

    def seconds(self, units: int) -> dict[str, float]:
        """What so many units take, by phase."""
        phases = self.taken[0].seconds
        return {phase: units * sum(taken.seconds[phase] for taken in self.taken) / self.units for phase in phases}

    def rates(self) -> dict[str, float | None]:
        """Tokens a second, in the phase that makes or reads them; None where there is no such phase."""
        counts, spent = self.counts, self.seconds(self.units)
        return {kind: counts[kind] / spent[phase] if spent.get(phase) else None for kind, phase in RATES}

    def rests_on(self, units: str) -> dict[str, Any]:
        """What the figures rest on; `units` says what the units are."""
        extrapolated = self.units < self.whole
        return {"steps": self.units / self.whole, units: self.units, **self.counts, "extrapolated": extrapolated}


def measure(recipe: Recipe, base: Path, seconds: float, observer: Observer) -> dict[str, Any]:
    """Figures of the recipe's stages and evals, for JSON, after about so many seconds.

    The time is shared among stages and evals; however little it is, each is measured on one row, prompt or problem at
    least. Raises what a run of the recipe would.
    """
    began = time.monotonic()
    own_graders.check_trained(recipe)
    recipe = placed(recipe, base)
    assert recipe.threads
    torch.set_num_threads(recipe.threads)
    tell = partial(_tell, observer)
    resolve_model(recipe.model, tell)
    with Watch() as memory:
        tell("reading the data")
        held_out = HeldOut.read(recipe, base, Path(gettempdir()))
        tell(f"loading {recipe.model}")
        loaded = load(recipe.model, compute_dtype(recipe.dtype), recipe.chat_template_kwargs)
        ready = time.monotonic() - began
        parts = len(recipe.stages) + len(recipe.evals)
        bench = _Bench(recipe, base, loaded, held_out, observer, memory, began + seconds, parts)
        stages, evals = blocking(bench.all())
    return {
        "model": recipe.model,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "threads": recipe.threads,
        "start_seconds": ready,
        "stages": stages,
        "evals": evals,
        "forecast_seconds": ready + sum(part["forecast"]["seconds"] for part in (*stages, *evals)),
        "peak_memory_bytes": max((part["peak_memory_bytes"] for part in (*stages, *evals)), default=memory.take()),
    }


def _tell(observer: Observer, doing: str) -> None:
    observer.event({"event": "measuring", "message": doing})


@dataclass
class _Bench:
    """The measuring of one recipe, until `deadline`, which `parts` stages and evals still share."""

    recipe: Recipe
    base: Path
    loaded: Loaded
    held_out: HeldOut
    observer: Observer
    memory: Watch
    deadline: float
    parts: int

    async def all(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The figures of each stage and of each eval."""
        stages = [await self._stage(index) for index in range(len(self.recipe.stages))]
        return stages, [await self._eval(config) for config in self.recipe.evals]

    async def _stage(self, index: int) -> dict[str, Any]:
        policy = self.loaded.model
        work, trains = without_run(self.recipe, index, self.base, self.loaded, self.held_out, self.observer)
        stage = self.recipe.stages[index].model_copy(update={"optim": work.stage.optim})
        figures = await (self._rft(stage, work) if isinstance(stage, RFT) else self._epochs(stage, work))
        self.loaded.model = policy  # a reward model is another, on the same body
        return {
            "name": stage.name,
            "type": stage.type,
            "trains": trains,
            **figures,
            "peak_memory_bytes": self.memory.take(),
        }

    async def _epochs(self, stage: epochs.Taught, work: Work) -> dict[str, Any]:
        total = epochs.seen(stage, work)
        whole = min(stage.batch_size, total)
        steps = math.ceil(total / stage.batch_size)
        engine = work.engine(steps)

        async def take(number: int, size: int) -> Taken:
            clock = Clock()
            part = stage.model_copy(update={"batch_size": size})
            lesson = _lesson(part, work)
            place = number % (total // size)
            lesson.look_at(engine, [place])  # what the stage starts from is scored as often as there are epochs: once
            batch, loss = lesson.at(place)
            engine.step(batch, loss)
            clock.lap("train")
            counts = {**_trained(batch), "trained": epochs.learned_from(stage, batch)}
            return Taken(size, clock.line(), {"sampled": 0, **counts})

        found = await self._within(take, stage.name, "rows", whole)
        watched = len(self.held_out.labelled.get(stage.name, ()))
        return _figures(found, "rows", total, steps, stage, LOOK * found.seconds(watched)["step"])

    async def _rft(self, stage: RFT, work: Work) -> dict[str, Any]:
        examples = read(stage, work)
        engine = work.engine(stage.steps * stage.algorithm.num_iterations)
        reference, loss = Reference(engine), loss_of(stage)
        sampler = SharedSampler(self.loaded, work.ranks)
        guard = FaultGuard(stage.max_fault_share, stage.max_fault_steps)
        with Router(pools(stage, work)) as pool, environment(stage.env) as env:
            await pool.start()
            if env:
                await env.start()

            async def take(number: int, size: int) -> Taken:
                clock = Clock()
                part = stage.model_copy(update={"prompts_per_step": size})
                groups = await sample(part, work, sampler, prompts(part, work, examples, number), number, env)
                clock.lap("sample")
                attempts = [(group.example, rollout) for group in groups for rollout in group.rollouts]
                grades = await judge(attempts, pool)
                clock.lap("grade")
                if cause := guard.check(grades):
                    raise GraderError(cause, remedy="Mend it: a run would pause here")
                groups = with_grades(groups, grades)
                credited = credit(stage, groups, partial(rft.with_reference, stage, reference))
                rft.kl_to_start(stage, reference, credited)
                batch = [_teaching(row) for row in credited.rows]
                rft.learn(stage, engine, loss, batch)
                clock.lap("train")
                counts = {
                    "sampled": sum(rollout.sampled for _, rollout in attempts),
                    **_trained(batch),
                    "completions": len(attempts),
                    "cut_off": sum(rollout.sample.finish == "length" for _, rollout in attempts),
                    "groups_without_spread": sum(not any(advantages or ()) for advantages in credited.advantages),
                }
                return Taken(size, clock.line(), counts)

            found = await self._within(take, stage.name, "prompts", stage.prompts_per_step)
        watched = len(self.held_out.examples.get(stage.name, ())) / stage.group_size
        spent = found.seconds(1)
        look = watched * (spent["sample"] + spent["grade"])
        return _figures(found, "prompts", stage.steps * stage.prompts_per_step, stage.steps, stage, look)

    async def _eval(self, config: Eval) -> dict[str, Any]:
        merge(self.loaded.model)
        examples = self.held_out.evals[config.name]
        if not examples:
            raise DataError("there are no held-out problems", field=f"evals.{config.name}.data")
        sampler, grammar = SharedSampler(self.loaded, Ranks()), grammar_of(config.response_format, self.loaded)
        models = 1 + sum(stage.makes_policy for stage in self.recipe.stages)
        answers = len(examples) * (1 + config.samples) * models
        with Router(evaluate.pools(config)) as pool, environment(config.env) as env:
            await pool.start()
            if env:
                await env.start()

            async def take(number: int, size: int) -> Taken:
                clock = Clock()
                first = number % (len(examples) // size) * size
                part = examples[first : first + size]
                progress = partial(self.observer.progress, "answers")
                rollouts = await evaluate.answers(
                    config, part, self.loaded, sampler, 0.0, [(0,)], env, progress, grammar
                )
                clock.lap("sample")
                await evaluate.graded(pool, part, rollouts, 1)
                clock.lap("grade")
                counts = {"sampled": sum(rollout.sampled for rollout in rollouts), "trained": 0, "computed": 0}
                cut_off = sum(rollout.sample.finish == "length" for rollout in rollouts)
                return Taken(size, clock.line(), {**counts, "completions": size, "cut_off": cut_off})

            found = await self._within(take, config.name, "problems", min(len(examples), sampler.max_rows))
        return {
            "name": config.name,
            "problems": len(examples),
            "seconds": found.seconds(1),
            "tokens_per_second": found.rates(),
            "rests_on": {**found.rests_on("problems"), "extrapolated": found.units < len(examples)},
            "forecast": {"answers": answers, "seconds": found.seconds(answers)["step"]},
            "peak_memory_bytes": self.memory.take(),
        }

    async def _within(self, take: Take, name: str, units: str, whole: int) -> Found:
        """Measure steps of `whole` units within this part's share of the time."""
        now = time.monotonic()
        deadline = now + (self.deadline - now) / self.parts
        self.parts -= 1
        self.memory.take()  # only now: a worker that is just being started counts as much as this process

        async def told(number: int, size: int) -> Taken:
            _tell(self.observer, f"{name}: {size} of {whole} {units}" if size < whole else f"{name}: a step")
            return await take(number, size)

        return Found(await within(told, whole, deadline), whole)


def without_run(
    recipe: Recipe, index: int, base: Path, loaded: Loaded, held_out: HeldOut, observer: Observer
) -> tuple[Work, str]:
    """A stage's work where there is no run directory, with a learning rate of 0, and what it would train in words."""
    stage = recipe.stages[index]
    stage = stage.model_copy(update={"optim": stage.optim.model_copy(update={"lr": 0.0})})
    if isinstance(recipe.trains(index), Continue) and recipe.parent(index) == index - 1:  # its adapter is in the model
        trains = adapting.finished(recipe, index, loaded)
    else:
        merge(loaded.model)
        trains = adapting.prepare(unstacked(recipe, index), index, loaded, Path())
    nowhere = RunDir(Path(os.devnull), observer)  # never entered: nothing can be written there
    return Work(nowhere, index, stage, recipe.seed, base, loaded, StopFlag(), held_out), trains


def unstacked(recipe: Recipe, index: int) -> Recipe:
    """The recipe with the stage's adapter new, and on merged weights: without a run there is no other to continue or to
    stack it on, and what that one adds to the work is little."""
    stage, trained = recipe.stages[index], recipe.trains(index)
    if isinstance(trained, Full) or (isinstance(trained, LowRank) and not trained.stack):
        return recipe
    new = starts.maker(recipe, index).model_copy(update={"stack": False})
    alone = stage.model_copy(update={"adapter": new})
    return recipe.model_copy(update={"stages": (*recipe.stages[:index], alone, *recipe.stages[index + 1 :])})


async def within(take: Take, whole: int, deadline: float, clock: Callable[[], float] = time.monotonic) -> list[Taken]:
    """STEPS steps of `whole` units, or fewer; where time does not suffice for one, the largest part that was done.

    Begins with a single unit, and goes on with what surely fits: no unit takes longer for having company. A larger part
    is done only where it has twice the units of the one before.
    """
    last = await take(0, 1)
    if last.seconds["step"] < WARM:
        last = await take(0, 1)
    done: list[Taken] = []
    while len(done) < STEPS:
        fit = int(last.units * (deadline - clock()) / max(last.seconds["step"], 1e-9))
        size = min(whole, fit)
        if size < min(whole, 2 * last.units):
            break
        last = await take(len(done), size)
        if size == whole:
            done.append(last)
    return done or [last]


def _lesson(stage: epochs.Taught, work: Work) -> epochs.Lesson:
    match stage:
        case SFT():
            return sft.Imitation(stage, work)
        case DPO():
            return dpo.lesson(stage, work)
    return reward_model.Comparisons(stage, work)


def _teaching(row: Row) -> Row:
    """The row, with some advantage where it has none, so that it is not left out."""
    return row if any(row.advantages) else replace(row, advantages=tuple(map(float, row.mask)))


def _trained(rows: Sequence[Row]) -> Counts:
    return {"trained": sum(row.trained for row in rows), "computed": sum(map(cost, atoms(rows)))}


def _figures(found: Found, units: str, total: int, steps: int, stage: AnyStage, look: float) -> dict[str, Any]:
    """What a stage's line says: of steps with so many `units`, `total` over all, and of `look` seconds a validation."""
    looks = math.ceil(steps / stage.eval_every) if stage.validation else 0
    training, watching = found.seconds(total)["step"], looks * look
    return {
        "seconds": found.seconds(found.whole),
        "tokens_per_second": found.rates(),
        "rests_on": found.rests_on(units),
        "forecast": {
            "steps": steps,
            "steps_seconds": training,
            "looks": looks,
            "looks_seconds": watching,
            "seconds": training + watching,
        },
    }
