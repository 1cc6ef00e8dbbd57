"""A recipe goes in, a run directory comes out: the stages in order, evaluations between, resumable anywhere."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from sharpen.config.graders import parts
from sharpen.config.graders.remote import Remote
from sharpen.config.recipe import BASE, Recipe
from sharpen.config.stages import DPO, RFT, SFT, RewardModeling
from sharpen.errors import GraderError, Interrupted, ProbeError, RunError, SharpenError
from sharpen.models import scorer
from sharpen.models.load import Loaded, compute_dtype, load
from sharpen.runs.ledger import Ledger
from sharpen.runs.observer import Observer, Several
from sharpen.runs.reporting import Reporting
from sharpen.runs.store import RunDir, resume_command, write_lines
from sharpen.runs.trackers import check_installed
from sharpen.sandbox import plan
from sharpen.stages import adapting, dpo, reward_model, rft, sft, starts, summary
from sharpen.stages.attempts import check_budgets
from sharpen.stages.done import done, forget_all_but, owed
from sharpen.stages.evaluate import evaluate
from sharpen.stages.extend import extended, reopen_models
from sharpen.stages.following import follow, hand_out
from sharpen.stages.functions import Functions, handed_over
from sharpen.stages.heldout import HeldOut
from sharpen.stages.resolve import (
    Resolved,
    changed_graders,
    grader_versions,
    reopen,
    resolve,
    rewrite,
    settle_rates,
    versions,
)
from sharpen.stages.routing import all_graders, leaving
from sharpen.stages.stopping import StopFlag, stopping
from sharpen.stages.work import Work
from sharpen.train.ranks import Ranks, joined

T = TypeVar("T")

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

STATUS: dict[type[BaseException], str] = {
    Interrupted: "interrupted",
    KeyboardInterrupt: "interrupted",
    GraderError: "paused",
    ProbeError: "paused",
}


def run(
    recipe: Recipe,
    out: Path,
    *,
    base: Path,
    observer: Observer | None = None,
    functions: Functions | None = None,
) -> dict[str, Any]:
    """Run a recipe into the new directory `out`; returns the summary.

    Paths in the recipe are relative to `base`. SIGINT and SIGTERM end the run with a checkpoint after the
    step under way (Interrupted). Raises RunError when `out` already holds a run or is in use.
    """
    check_installed(recipe.report_to)
    adapting.check_installed(recipe)
    with joined() as ranks, _full_disk(out):
        if ranks.rank:
            follow(ranks)
            return {}
        with RunDir(out, observer) as directory:
            return _begin(recipe, directory, base, dict(functions or {}), ranks)


def _begin(
    recipe: Recipe, directory: RunDir, base: Path, functions: dict[str, Callable[..., Any]], ranks: Ranks
) -> dict[str, Any]:
    out = directory.path
    if (out / "recipe.yaml").exists():
        raise RunError(
            "this directory already holds a run",
            value=str(out),
            remedy=f"Go on with it ({resume_command(out)}), or choose another --out",
        )
    functions = handed_over(recipe, functions)
    resolved = resolve(recipe, out, base)
    directory.event("started", model=recipe.model, stages=[stage.name for stage in recipe.stages])
    return _Run(directory, resolved, functions, ranks).guarded()


def resume(
    out: Path, overrides: Sequence[str] = (), *, observer: Observer | None = None, functions: Functions | None = None
) -> dict[str, Any]:
    """Go on with the run in `out`, from its newest good checkpoint; returns the summary.

    `overrides`, such as `stages.1.steps=200`, extend it. Raises ConfigError for what may not change by then.
    """
    if not (out / "recipe.yaml").exists():
        raise RunError("there is no run to resume", value=str(out), remedy="Give the directory of an earlier run")
    with joined() as ranks, _full_disk(out):
        if ranks.rank:
            follow(ranks)
            return {}
        with RunDir(out, observer) as directory:
            return _go_on(directory, overrides, dict(functions or {}), ranks)


def _go_on(
    directory: RunDir, overrides: Sequence[str], functions: dict[str, Callable[..., Any]], ranks: Ranks
) -> dict[str, Any]:
    out = directory.path
    resolved, changed = reopen(out)
    functions = handed_over(resolved.recipe, functions)
    recipe, changes = extended(resolved.recipe, out, overrides)
    check_installed(recipe.report_to)
    directory.event("resumed")
    if changes:
        reopen_models(recipe, out, changes)  # first: killed in between, the run would only be finished again
        rewrite(out, recipe)
        resolved = resolved._replace(recipe=recipe)
        directory.event("recipe_changed", message=", ".join(f"{c.path} {c.before} -> {c.after}" for c in changes))
    if changed:
        directory.event(
            "alert", kind="versions_changed", message=f"other versions than at the start, so other bits: {changed}"
        )
    if edited := changed_graders(out, recipe):
        directory.event(
            "alert", kind="grader_changed", message=f"graders are not what they were at the start: {edited}"
        )
    return _Run(directory, resolved, functions, ranks).guarded()


@dataclass
class _Run:
    directory: RunDir
    resolved: Resolved
    functions: dict[str, Callable[..., Any]]
    ranks: Ranks
    stop: StopFlag = field(default_factory=StopFlag)
    reporting: Reporting | None = None

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.directory.path / "judges.jsonl")
        self._here = ""  # the name of the plain model in memory; empty: there is none

    def guarded(self) -> dict[str, Any]:
        """Run, and whatever happens leave a truthful directory behind."""
        self._began = time.monotonic()
        status, cause = "failed", ""
        try:
            with stopping(self.stop, self._tell_of_stop), _full_disk(self.directory.path):
                blocking(self._all())
                status = "finished"
                self.directory.event("finished")
                return self._close(status)
        except BaseException as error:
            status = STATUS.get(type(error), "failed")
            cause = error.describe() if isinstance(error, SharpenError) else f"{type(error).__name__}: {error}"
            raise
        finally:
            if status != "finished":
                self._note_end(status, cause)

    async def _all(self) -> None:
        recipe, run = self.resolved.recipe, self.directory
        torch.set_num_threads(recipe.threads or 1)
        self.ranks.tell("threads", [recipe.threads or 1] * self.ranks.size)
        self._look_at_graders()
        held_out = HeldOut.read(recipe, Path(), run.path)
        run.event("held_out_checked", dropped=held_out.dropped)
        dtype = compute_dtype(recipe.dtype)
        stand = done(recipe, run)
        forget_all_but(stand, recipe, run)
        unmeasured = owed(stand, recipe, run)
        self._here = starts.model_of(recipe, unmeasured[0], run.path)
        loaded = load(self._here, dtype, recipe.chat_template_kwargs)
        check_budgets(recipe, loaded)
        if not all(stage.makes_policy for stage in recipe.stages):
            scorer.check(loaded.model)
        if loaded.notice:
            run.event("alert", kind="slow_path", message=loaded.notice)
        self._settle_rates(loaded)
        recipe = self.resolved.recipe
        self._report_to_trackers(recipe)
        for policy in unmeasured:
            self._put(starts.model_of(recipe, policy, run.path), loaded)
            await self._evaluate(BASE if policy is None else recipe.stages[policy].name, loaded, held_out)
        for index, stage in enumerate(recipe.stages):
            if index in stand:
                continue
            self._put(starts.start(recipe, index, run.path), loaded)
            await self._stage(index, loaded, held_out)
            self._here = starts.model_of(recipe, index, run.path) if stage.makes_policy else ""
            if stage.makes_policy:
                await self._evaluate(stage.name, loaded, held_out)

    def _put(self, name: str, loaded: Loaded) -> None:
        """Have the model of that name in memory."""
        if name == self._here:
            return
        told = loaded.notice
        starts.put(name, loaded, self.resolved.recipe)
        self._here = name
        if loaded.notice not in ("", told):
            self.directory.event("alert", kind="slow_path", message=loaded.notice)

    def _look_at_graders(self) -> None:
        """What leaves this machine, and behind which walls graders run; the run says so.

        Raises SandboxUnavailable, and ConfigError where a server's key is missing: before anything is trained.
        """
        configs = all_graders(self.resolved.recipe)
        for told in leaving(configs):
            self.directory.event(**told)
        single = [part for config in configs for part in parts(config).values()]
        for part in single:
            if isinstance(part, Remote) and part.place == "here":
                part.build()
        if not any(part.place in ("jail", "parent") for part in single):
            return
        isolation = plan.isolation()
        self.directory.event("sandbox", isolation=isolation, message=plan.WORDS[isolation])
        if isolation == "none":
            self.directory.event("alert", kind="unsafe", message=plan.WORDS[isolation])

    def _settle_rates(self, loaded: Loaded) -> None:
        """Choose the learning rates that the recipe leaves open; recipe.yaml then says them."""
        recipe, chosen = settle_rates(self.resolved.recipe, sum(weight.numel() for weight in loaded.model.parameters()))
        if chosen:
            rewrite(self.directory.path, recipe)
            self.resolved = self.resolved._replace(recipe=recipe)
        for stage, choice in chosen.items():
            self.directory.event("lr_chosen", stage=stage, lr=choice.lr, message=choice.reason)

    def _report_to_trackers(self, recipe: Recipe) -> None:
        """From here on; the recipe has all its numbers."""
        if recipe.report_to:
            names = [stage.name for stage in recipe.stages]
            self.reporting = Reporting(self.directory, recipe.report_to, names, recipe.model_dump(mode="json"))
            self.directory.observer = Several(self.directory.observer, self.reporting)

    async def _stage(self, index: int, loaded: Loaded, held_out: HeldOut) -> None:
        stage, run = self.resolved.recipe.stages[index], self.directory
        run.event("stage_started", stage=stage.name, type=stage.type)
        recipe = self.resolved.recipe
        trains = adapting.prepare(recipe, index, loaded, run.path)
        run.event("trains", stage=stage.name, message=trains)
        last = not any(index in starts.needs(recipe, other, run.path) for other in range(len(recipe.stages)))
        work = Work(
            run,
            index,
            stage,
            recipe.seed,
            Path(),
            loaded,
            self.stop,
            held_out,
            self.functions,
            last,
            self.ranks,
            self.ledger,
            origin=self._origin(index, trains),
        )
        hand_out(self.ranks, loaded)
        match stage:
            case SFT():
                await sft.run(stage, work)
            case DPO():
                await dpo.run(stage, work)
            case RewardModeling():
                await reward_model.run(stage, work)
            case RFT():
                await rft.run(stage, work)
        run.event("stage_finished", stage=stage.name)

    def _origin(self, index: int, trains: str) -> dict[str, Any]:
        """What the lineage of the stage's model says of where it comes from."""
        recipe = self.resolved.recipe
        graders = grader_versions(recipe, index)
        known = starts.origin(recipe, index, self.directory.path, trains, self.resolved.data)
        return {**known, "graders": graders, "versions": versions()}

    async def _evaluate(self, name: str, loaded: Loaded, held_out: HeldOut) -> None:
        """Every eval that this model has not had; a finished one is never repeated."""
        hand_out(self.ranks, loaded)
        for config in self.resolved.recipe.evals:
            path = summary.eval_path(self.directory.path, config.name, name)
            if path.exists():
                continue
            lines = await evaluate(
                config,
                held_out.evals[config.name],
                loaded,
                self.resolved.recipe.seed,
                self.directory.observer,
                f"eval {config.name} on {name}",
                self._raise_if_stopped,
                self.ranks,
                self.ledger,
                self.functions.get(f"evals.{config.name}"),
            )
            write_lines(path, lines)
            self.directory.event("evaluated", eval=config.name, model=name, score=summary.score(lines)["score"])
            self._raise_if_stopped()

    def _tell_of_stop(self) -> None:
        self.directory.observer.progress("stopping with a checkpoint after this step", 0, 1)

    def _raise_if_stopped(self) -> None:
        if self.stop.cause:
            self.directory.event("interrupted", cause=self.stop.cause)
            raise Interrupted(
                f"stopped by {self.stop.cause}", remedy=f"Go on with: {resume_command(self.directory.path)}"
            )

    def _close(self, status: str) -> dict[str, Any]:
        from sharpen.reports.html import write  # only now: a run needs no report to train

        seconds = time.monotonic() - self._began
        result = summary.write(self.directory.path, self.resolved.recipe, status, seconds)
        write(self.directory.path)
        if self.reporting:
            self.reporting.finish(status, result)
        return result

    def _note_end(self, status: str, cause: str) -> None:
        """The truth about an unfinished run, as far as the disk still takes it."""
        try:
            if self.directory.last_event != status:
                self.directory.event(status, cause=cause)
            self._close(status)
        except Exception:
            pass  # the disk may be full, the report unwritable: the cause is being raised, and nothing may hide it


@contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    """Turn a full disk into a clear error. Checkpoints are written aside, so the last one is intact."""
    try:
        yield
    except SharpenError:
        raise
    except Exception as error:
        no_space = isinstance(error, OSError) and error.errno in NO_SPACE
        if no_space or "os error 28" in str(error) or "os error 27" in str(error):  # safetensors' own error
            raise RunError(
                "the disk is full; the last checkpoint is intact",
                value=str(error),
                remedy=f"Make room, then: {resume_command(path)}",
            ) from error
        raise


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where an event loop is already running (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1, thread_name_prefix="sharpen-run") as executor:
        return executor.submit(asyncio.run, work).result()
