"""What a stage is given to work with: the run directory, the model, and the duties of every step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sharpen.config.stages import Stage
from sharpen.data.order import Key
from sharpen.data.render import Renderer
from sharpen.errors import CheckpointError, Interrupted
from sharpen.guards.plateau import Plateau
from sharpen.models import scorer
from sharpen.models.adapter_files import load_adapter
from sharpen.models.adapters import attached, merge, merged
from sharpen.models.load import Loaded, load, save
from sharpen.rollout.grammar import Grammar, grammar_of
from sharpen.runs import lineage
from sharpen.runs.ledger import Ledger
from sharpen.runs.manifest import publish, verify
from sharpen.runs.store import RunDir, read_lines, resume_command
from sharpen.stages.adapting import own_adapter, save_adapters
from sharpen.stages.heldout import HeldOut
from sharpen.stages.stopping import StopFlag
from sharpen.train import checkpoint
from sharpen.train.engine import Engine
from sharpen.train.ranks import Ranks


def stage_folder(run: Path, index: int, stage: Stage) -> Path:
    """`stages/01-sft` of a run directory; `index` counts from 0."""
    return run / "stages" / f"{index + 1:02d}-{stage.name}"


@dataclass
class Work:
    """One stage's share of a run."""

    run: RunDir
    index: int
    stage: Stage
    seed: int
    base: Path
    loaded: Loaded
    stop: StopFlag
    held_out: HeldOut
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)
    last: bool = False
    """Nothing is trained after this stage: what it needs to go on is kept, should the run be extended."""

    ranks: Ranks = field(default_factory=Ranks)
    ledger: Ledger = field(default_factory=Ledger)
    origin: Mapping[str, Any] = field(default_factory=dict)
    """What the model's lineage says of where it comes from (`starts.origin`)."""

    best: float | None = None
    tokens: dict[str, int] = field(default_factory=lambda: {"sampled": 0, "trained": 0})
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.renderer = Renderer(self.loaded.tokenizer, self.loaded.stop)
        self._since = time.monotonic()
        stopping = self.stage.early_stopping
        self.plateau = Plateau(stopping.patience, stopping.min_delta) if stopping else None

    @property
    def stopped_early(self) -> bool:
        """Whether validation has stopped to improve, so that no step is to follow."""
        return self.plateau is not None and self.plateau.reached

    @property
    def folder(self) -> Path:
        """`stages/01-sft`, where the stage keeps what it needs to go on."""
        return stage_folder(self.run.path, self.index, self.stage)

    @cached_property
    def grammar(self) -> Grammar | None:
        """What the stage's completions are held to. Raises ConfigError and ModelError."""
        return grammar_of(getattr(self.stage, "response_format", None), self.loaded)

    @property
    def key(self) -> Key:
        """What the stage's random numbers are counted on."""
        return (self.seed, self.stage.name)

    def engine(self, steps: int) -> Engine:
        """The trainer of the stage, for a schedule of so many optimiser steps."""
        stage = self.stage
        return Engine(self.loaded.model, stage.optim, steps, stage.tokens_per_microbatch, self.key, self.ranks)

    def restore(self, engine: Engine) -> tuple[int, dict[str, Any]]:
        """Go on from the newest good checkpoint: the steps done, and the stage's own state; else (0, {})."""
        for found in checkpoint.newest(self.folder / "checkpoints"):
            if isinstance(found, CheckpointError):
                self.run.event("alert", stage=self.stage.name, kind="damaged_checkpoint", message=found.describe())
                continue
            engine.load_state(found.checkpoint.path, found.state["engine"])
            self.best, self.tokens, self.seconds = (found.state[name] for name in ("best", "tokens", "seconds"))
            self._since = time.monotonic()
            if self.plateau and (state := found.state.get("plateau")):  # none, if stopping was asked for since
                self.plateau.restore(state)
            self.run.rewind(self.stage.name, found.checkpoint.step)
            return found.checkpoint.step, found.state["stage"]
        self.run.rewind(self.stage.name, 0)
        return 0, {}

    def finish_step(self, step: int, steps: int, engine: Engine, line: dict[str, Any], state: dict[str, Any]) -> None:
        """Report a step (from 1), keep the best model, checkpoint when due, at the run's end, or when asked to stop.

        `state` is the stage's own, for `restore`. Raises Interrupted after the checkpoint.
        """
        for name in self.tokens:
            self.tokens[name] += line["tokens"][name]
        self.run.metrics({"stage": self.stage.name, "type": self.stage_type, "step": step, "steps": steps, **line})
        self._judge(step, engine, line.get("validation"))
        if step == steps or self.stopped_early:
            if self.last:
                self._checkpoint(step, engine, state)
            return
        if self._due(step) or self.stop.cause:
            self._checkpoint(step, engine, state)
        if self.stop.cause:
            self.run.event("interrupted", stage=self.stage.name, step=step, cause=self.stop.cause)
            raise Interrupted(
                f"stopped by {self.stop.cause} after step {step} of {steps} of {self.stage.name}",
                remedy=f"Go on with: {resume_command(self.run.path)}",
            )

    def stop_here(self) -> None:
        """Before the first step: raise Interrupted where the run is to stop."""
        if self.stop.cause:
            self.run.event("interrupted", stage=self.stage.name, step=0, cause=self.stop.cause)
            remedy = f"Go on with: {resume_command(self.run.path)}"
            raise Interrupted(f"stopped by {self.stop.cause} before the first step of {self.stage.name}", remedy=remedy)

    def pause(self, step: int, engine: Engine, cause: str, state: dict[str, Any]) -> None:
        """Checkpoint what is done and note why the run cannot go on."""
        if step:
            self._checkpoint(step, engine, state)
        self.run.event("paused", stage=self.stage.name, step=step, cause=cause)

    def finish(self, engine: Engine) -> None:
        """Publish the stage's model; from then on the stage is done, and its adapter merged.

        Raises DivergedError for weights that are not finite.
        """
        checkpoint.check_finite(engine)
        taken = self._return_to_best() if self.stage.final == "best" else None
        with publish(self.run.path / "models" / self.stage.name, self._facts()) as aside:
            save_adapters(self.loaded.model, aside)
            merge(self.loaded.model)  # layer by layer: no second set of dense weights
            save(self.loaded.model, self.loaded.tokenizer, aside, self.loaded.dtype)
            lineage.write(aside, {**self.origin, "metrics": self._came_to(taken)})

    @property
    def stage_type(self) -> str:
        """`sft`, `dpo`, `reward_model` or `rft`."""
        return str(getattr(self.stage, "type"))  # noqa: B009 - each stage has its own literal

    def _judge(self, step: int, engine: Engine, validation: dict[str, float] | None) -> None:
        """Compare a look at the validation rows with those before."""
        if not validation:
            return
        score = validation["reward"] if "reward" in validation else -validation["loss"]
        self._keep_best(step, engine, validation, score)
        if self.plateau:
            self.plateau.look(score)
            if self.plateau.reached:
                cause = f"no improvement in the last {self.plateau.looks} looks at the validation rows"
                self.run.event("early_stopped", stage=self.stage.name, step=step, cause=cause)

    def _keep_best(self, step: int, engine: Engine, validation: dict[str, float], score: float) -> None:
        if not math.isfinite(score) or (self.best is not None and score <= self.best):
            return
        checkpoint.check_finite(engine)
        self.best = score
        with publish(self.folder / "best", {"step": step, "validation": validation}) as aside:
            self._save(aside)

    def _save(self, folder: Path) -> None:
        """The whole model, its adapters merged, and they beside it."""
        save_adapters(self.loaded.model, folder)
        with merged(self.loaded.model):
            save(self.loaded.model, self.loaded.tokenizer, folder, self.loaded.dtype)

    def _return_to_best(self) -> int | None:
        """Give the model the weights that did best on the validation rows; they hold what it computed with.

        Returns their step; None where no look gave a score.
        """
        folder, name = self.folder / "best", self.stage.name
        if self.best is None:
            message = "no look at the validation rows gave a score, so the last weights are the stage's model"
            self.run.event("alert", stage=name, kind="no_best", message=message)
            return None
        manifest = verify(folder)
        if attached(self.loaded.model):
            load_adapter(self.loaded.model, own_adapter(folder))
        else:
            self.loaded.model.load_state_dict(self._weights(folder))
        self.run.event("best_taken", stage=name, step=manifest["step"], validation=manifest["validation"])
        return int(manifest["step"])

    def _came_to(self, step: int | None) -> dict[str, Any]:
        """What the metrics say of the step (None: the last), less what is of its time; and all tokens of the stage."""
        lines = [line for line in read_lines(self.run.path / "metrics.jsonl") if line["stage"] == self.stage.name]
        line: dict[str, Any] = next((line for line in reversed(lines) if step in (None, line["step"])), {})
        return {**{name: line[name] for name in line if name not in ("stage", "type", "time")}, "tokens": self.tokens}

    def _weights(self, folder: Path) -> dict[str, Any]:
        """Those of a model that the stage saved."""
        if scorer.is_scorer(self.loaded.model):
            return scorer.weights(folder, self.loaded.dtype)
        state: dict[str, Any] = load(folder, self.loaded.dtype).model.state_dict()
        return state

    def _due(self, step: int) -> bool:
        """Whether a checkpoint belongs after the step."""
        return any(every and step % every == 0 for every in (self.stage.save_every, self.stage.keep_every))

    def _checkpoint(self, step: int, engine: Engine, state: dict[str, Any]) -> None:
        shared = {
            "best": self.best,
            "plateau": self.plateau and self.plateau.state(),
            "tokens": self.tokens,
            "seconds": self._seconds(),
            "stage": state,
        }
        folder = self.folder / "checkpoints"
        saved = checkpoint.write(folder, step, engine, self.loaded, shared, self._facts())
        try:
            checkpoint.thin(folder, step, self.stage.keep_last, self.stage.keep_every)
        except CheckpointError as error:
            message = f"{error.describe()}, just after it was written; all before it stay"
            self.run.event("alert", stage=self.stage.name, kind="damaged_checkpoint", message=message)
            return
        self.run.event("checkpoint", stage=self.stage.name, step=step, path=str(saved.path.relative_to(self.run.path)))

    def _seconds(self) -> float:
        return self.seconds + time.monotonic() - self._since

    def _facts(self) -> dict[str, Any]:
        return {
            "metrics_offset": self.run.offset(),
            "stage": self.stage.name,
            "seconds": round(self._seconds(), 3),
            "tokens": self.tokens,
        }
