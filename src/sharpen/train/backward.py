"""From rows to gradients of the summed loss: what any rank can do that has the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sharpen.data.order import Key, generator
from sharpen.data.pack import Batch, pack
from sharpen.models import plain, scorer
from sharpen.models.adapters import dropping, drops
from sharpen.models.attention import Packed, layout
from sharpen.models.fused import adopted, hidden
from sharpen.models.head import Head, Predictions, predict
from sharpen.models.passes import add
from sharpen.train.losses import Loss, LossSum
from sharpen.types import Sequence as Row


@dataclass(frozen=True)
class Errand:
    """Rows of a step whose loss is to be differentiated; `count` is what the sum over *all* rows is divided by.

    `key` is what the dropout of this errand is counted on.
    """

    rows: list[Row]
    loss: Loss
    temperature: float
    count: float
    tokens_per_microbatch: int
    key: Key


@dataclass
class Totals:
    """Sums over the microbatches of a step."""

    total: float = 0.0
    predictions: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def take(self, summed: LossSum, batch: Batch) -> None:
        """One microbatch more."""
        sums, peaks = ({name: float(value) for name, value in part.items()} for part in (summed.sums, summed.peaks))
        self.add(Totals(float(summed.total.detach()), len(batch.target), sums, peaks, summed.counts))

    def add(self, other: Totals) -> None:
        """Another part of the step."""
        self.total += other.total
        self.predictions += other.predictions
        for own, others in ((self.sums, other.sums), (self.counts, other.counts)):
            for name, value in others.items():
                own[name] = own.get(name, 0.0) + value
        for name, value in other.peaks.items():
            self.peaks[name] = max(self.peaks.get(name, -math.inf), value)

    def metrics(self) -> dict[str, float]:
        """Means over the predictions, or over what was counted by that name, and the peaks."""
        counted = {name: self.counts.get(name, self.predictions) for name in self.sums}
        return {**{name: self.sums[name] / count for name, count in counted.items() if count}, **self.peaks}


class Backward:
    """Takes gradients of one model, and adds them up in float32."""

    def __init__(self, model: Any) -> None:
        self.model = model
        if decoder := adopted(model):
            decoder.join()  # a merged adapter has left new weights
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._wide: dict[Tensor, Tensor] = {}
        self._room: dict[Tensor, Tensor] = {}
        self._drops = drops(model)

    def run(self, errand: Errand) -> Totals:
        """Add up the gradients of the errand's share, for `take`; returns the sums."""
        totals = Totals()
        head = head_of(self.model)
        with self._collecting():
            for microbatch, batch in enumerate(
                pack(errand.rows, errand.tokens_per_microbatch, whole=errand.loss.whole)
            ):
                with self._dropout((*errand.key, microbatch)):
                    told = said(self.model, batch, errand.temperature, head)
                summed = errand.loss(told, batch)
                (summed.total / errand.count).backward()
                totals.take(summed, batch)
        return totals

    def take(self, *, zeros: bool = False) -> list[Tensor | None]:
        """The float32 gradients since the last time, one a parameter; where there are none, None or `zeros`."""
        taken: list[Tensor | None] = []
        for parameter in self.parameters:
            found = parameter.grad if parameter.dtype == torch.float32 else self._wide.pop(parameter, None)
            none = torch.zeros(parameter.shape, device=parameter.device) if zeros and found is None else None
            taken.append(none if found is None else found)
            parameter.grad = None
        self._room.clear()
        return taken

    def _dropout(self, key: Key) -> AbstractContextManager[None]:
        """Counted on the key, so that a resumed run drops the same."""
        return dropping(self.model, int(generator(key).integers(2**63))) if self._drops else nullcontext()

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        """Inside this block each bfloat16 gradient goes into a float32 sum as soon as it is known: accumulation loses
        nothing, and the gradient is still in the caches."""
        narrow = [parameter for parameter in self.parameters if parameter.dtype != torch.float32]
        if narrow and not self._room:  # in one piece, so that memory given back between microbatches stays whole
            sizes = [parameter.numel() for parameter in narrow]
            pieces = torch.empty(sum(sizes), device=narrow[0].device).split(sizes)
            self._room = {parameter: piece.view_as(parameter) for parameter, piece in zip(narrow, pieces, strict=True)}
        hooks = [parameter.register_post_accumulate_grad_hook(self._collect) for parameter in narrow]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _collect(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        if parameter in self._wide:
            add(self._wide[parameter], parameter.grad)
        else:
            self._wide[parameter] = self._room[parameter].copy_(parameter.grad)
        parameter.grad = None


def head_of(model: Any) -> Head | None:
    """The model's output layer laid out for many batches; None where the model has a head of its own kind."""
    return None if plain.how(model) or scorer.is_scorer(model) else Head(model.lm_head.weight)


def said(model: Any, batch: Batch, temperature: float, head: Head | None = None) -> Predictions | Tensor:
    """What a loss is told: a reward model's scores (N,) at the batch's sources, or as `forward`."""
    if scorer.is_scorer(model):
        return scorer.scores(model, _states(model, batch))
    return forward(model, batch, temperature, head)


def forward(model: Any, batch: Batch, temperature: float, head: Head | None = None) -> Predictions:
    """What the model says of the batch's targets; `head` is its output layer laid out, where it is at hand."""
    states = _states(model, batch)
    if how := plain.how(model):
        return plain.predict(model, how, states, batch.target, temperature, batch.support)
    return predict(states, model.lm_head.weight, batch.target, temperature, batch.support, head)


def _states(model: Any, batch: Batch) -> Tensor:
    """The body's output (N, W) at the batch's sources."""
    if how := plain.how(model):
        return plain.hidden_states(model, how, batch.tokens, batch.spans)[batch.source]
    with layout(Packed(batch.spans)):
        return hidden(model, batch.tokens, batch.positions)[batch.source]
