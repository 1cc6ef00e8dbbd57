"""The trainer: knows a model and an optimiser, and no algorithm.

Master weights are float32. Where the hardware computes in bfloat16, the model itself holds bfloat16
copies, refreshed after each step: the sampler reads these very tensors, so sampler and trainer agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharpen.config.optim import Optim
from sharpen.data.order import Key
from sharpen.data.pack import pack
from sharpen.errors import DivergedError
from sharpen.train.backward import Backward, Errand, Totals, forward, head_of, said
from sharpen.train.losses import Loss
from sharpen.train.optim import build, restore, state_of
from sharpen.train.ranks import Ranks, shares
from sharpen.types import Sequence as Row

PATIENCE = 3
"""So many steps running without a finite loss and gradient end the run."""


@dataclass
class StepResult:
    """What one optimiser step did; `metrics` are means over the predictions that were computed."""

    loss: float
    grad_norm: float
    lr: float
    skipped: bool
    metrics: dict[str, float] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """The numbers as a metrics line has them; what is not finite is null."""
        numbers = {"loss": self.loss, "grad_norm": self.grad_norm, "lr": self.lr, **self.metrics}
        line = nested({name: value if math.isfinite(value) else None for name, value in numbers.items()})
        return {**line, "skipped": True} if self.skipped else line


def nested(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """`{"rewards/chosen": 1}` as `{"rewards": {"chosen": 1}}`."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        group, _, own = name.partition("/")
        if own:
            found.setdefault(group, {})[own] = value
        else:
            found[name] = value
    return found


class Engine:
    """Steps, scores, saves and loads one model."""

    def __init__(
        self,
        model: Any,
        optim: Optim,
        steps: int,
        tokens_per_microbatch: int,
        key: Key = (),
        ranks: Ranks | None = None,
    ) -> None:
        """`steps` is the length of the schedule, in optimiser steps; dropout is counted on `key` and the step.

        Other `ranks` have the model already.
        """
        self.model = model
        self.optim = optim
        self.steps = steps
        self.tokens_per_microbatch = tokens_per_microbatch
        self.step_count = 0
        self.bad_steps = 0
        self.ranks = ranks or Ranks()
        self.backward = Backward(model)
        self.parameters = self.backward.parameters
        self.masters = [
            parameter if parameter.dtype == torch.float32 else parameter.detach().float()
            for parameter in self.parameters
        ]
        self.adam = build(optim, self.masters)
        self.key = key

    def lr(self, step: int) -> float:
        """The learning rate of optimiser step `step` (from 0): warm-up from 0, then the schedule to 0."""
        warmup = self.optim.warmup_ratio * self.steps
        if step < warmup:
            return self.optim.peak * (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1.0, self.steps - warmup))
        factor = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
        return self.optim.peak * factor[self.optim.schedule]

    def step(self, rows: Sequence[Row], loss: Loss, temperature: float = 1.0) -> StepResult:
        """One optimiser step on all rows; gradients accumulate over microbatches.

        A step whose loss or gradient is not finite changes nothing; raises DivergedError at the third
        in a row.
        """
        count = loss.count(rows)
        totals = self._gradients([row for row in rows if loss.teaches(row)], loss, temperature, count)
        lr = self.lr(self.step_count)
        norm = self._clip()
        value = totals.total / count if count else 0.0
        skipped = not (math.isfinite(value) and math.isfinite(norm))
        if skipped:
            self.bad_steps += 1
        elif totals.predictions:
            self.bad_steps = 0
            self._update(lr)
        for master in self.masters:
            master.grad = None
        self.step_count += 1
        if self.bad_steps >= PATIENCE:
            raise DivergedError(
                f"loss or gradients were not finite for {PATIENCE} steps running",
                value=f"loss {value}, gradient norm {norm}",
                remedy=f"Lower optim.lr (now {self.optim.peak:g}), and look at the rewards and data of those steps",
            )
        return StepResult(value, norm, lr, skipped, totals.metrics())

    @torch.no_grad()
    def evaluate(self, rows: Sequence[Row], loss: Loss) -> dict[str, Any]:
        """The loss and its metrics on rows, without learning."""
        totals = Totals()
        head = head_of(self.model)
        for batch in pack(rows, self.tokens_per_microbatch, whole=loss.whole):
            totals.take(loss(said(self.model, batch, 1.0, head), batch), batch)
        return {"loss": totals.total / loss.count(rows), **nested(totals.metrics())}

    @torch.no_grad()
    def score(self, rows: Sequence[Row], temperature: float = 1.0, *, whole: bool = False) -> list[Row]:
        """The rows, with `old_logprobs` filled in by the present weights; batches are those of `step` with a loss that
        is as `whole`."""
        return score(self.model, rows, self.tokens_per_microbatch, temperature, whole=whole)

    def _gradients(self, rows: list[Row], loss: Loss, temperature: float, count: float) -> Totals:
        """Give the masters the gradients of all rows, each rank's share taken by itself; returns the sums."""
        key = (*self.key, "dropout", self.step_count)
        errands = [
            Errand(part, loss, temperature, count, self.tokens_per_microbatch, (*key, rank) if rank else key)
            for rank, part in enumerate(shares(rows, self.ranks.size))
        ]
        own = self.ranks.tell("gradients", errands)
        totals = Totals()
        for part in self.ranks.gather(self.backward.run(own)):
            totals.add(part)
        taken = self.backward.take(zeros=self.ranks.size > 1)
        self.ranks.sum([gradient for gradient in taken if gradient is not None])
        for master, gradient in zip(self.masters, taken, strict=True):
            master.grad = gradient
        return totals

    def _clip(self) -> float:
        gradients = [master.grad for master in self.masters if master.grad is not None]
        if not gradients:
            return 0.0
        norm = torch.nn.utils.get_total_norm(gradients)
        torch.nn.utils.clip_grads_with_norm_(self.masters, self.optim.max_grad_norm, norm)
        return float(norm)

    def _update(self, lr: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self._publish()

    @torch.no_grad()
    def _publish(self) -> None:
        """Round the masters into the weights that compute."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if parameter is not master:
                parameter.copy_(master)
        self.ranks.tell("weights", [None] * self.ranks.size)
        self.ranks.share(self.parameters)

    def save_state(self, folder: Path) -> None:
        """Write what the model's folder does not hold: masters, optimiser, counters."""
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        for index, master in enumerate(self.masters):
            tensors[f"master.{index}"] = master.detach()
            for name, value in state_of(self.adam, master).items():
                tensors[f"{name}.{index}"] = value.clone()  # some are shared, which safetensors refuses
        save_file(tensors, folder / "trainer.safetensors")

    def state(self) -> dict[str, Any]:
        """The counters, for JSON."""
        return {"step_count": self.step_count, "bad_steps": self.bad_steps}

    @torch.no_grad()
    def load_state(self, folder: Path, state: dict[str, Any]) -> None:
        """Restore what `save_state` and `state` wrote."""
        from safetensors import safe_open

        self.step_count = state["step_count"]
        self.bad_steps = state["bad_steps"]
        with safe_open(folder / "trainer.safetensors", framework="pt") as file:
            keys = set(file.keys())
            for index, master in enumerate(self.masters):
                master.copy_(file.get_tensor(f"master.{index}"))
                names = [key for key in keys if key.endswith(f".{index}") and not key.startswith("master.")]
                if names:
                    state_of_one = {name.split(".")[0]: file.get_tensor(name) for name in sorted(names)}
                    restore(self.adam, master, state_of_one)
        self._publish()


@torch.no_grad()
def score(model: Any, rows: Sequence[Row], budget: int, temperature: float = 1.0, *, whole: bool = False) -> list[Row]:
    """The rows, with `old_logprobs` filled in by this model."""
    scored: list[Row] = []
    remaining = iter(rows)
    head = head_of(model)
    for batch in pack(rows, budget, whole=whole):
        logprobs = iter(forward(model, batch, temperature, head).logprobs.tolist())
        for row in _take(remaining, batch.rows):
            scored.append(replace(row, old_logprobs=tuple(next(logprobs) if m else 0.0 for m in row.mask)))
    return scored


def _take(rows: Iterable[Row], count: int) -> list[Row]:
    iterator = iter(rows)
    return [next(iterator) for _ in range(count)]
