"""The engine, on a bigram model that can be differentiated by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from sharpen.config.optim import Optim
from sharpen.data.pack import Batch
from sharpen.errors import DivergedError
from sharpen.models.head import Predictions
from sharpen.train.engine import Engine
from sharpen.train.losses import CrossEntropy, LossSum, PolicyGradient
from sharpen.types import Sequence as Row
from tests.core.fakes import Bigram

FLAT: dict[str, Any] = {"schedule": "constant", "warmup_ratio": 0.0, "max_grad_norm": 1e9}


def rows_of(count: int, seed: int = 0) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index in range(count):
        tokens = tuple(torch.randint(0, 11, (3 + index % 5,), generator=generator).tolist())
        rows.append(Row(tokens, (False, *[True] * (len(tokens) - 1)), str(index)))
    return rows


def plain_gradients(model: Bigram, rows: list[Row]) -> list[Tensor]:
    """Of the mean negative log-likelihood, one token at a time."""
    total = torch.zeros(())
    for row in rows:
        for before, token in zip(row.tokens, row.tokens[1:], strict=False):
            scores = model.embedding[before].float() @ model.lm_head.weight.float().T
            total = total - scores.log_softmax(-1)[token]
    return list(torch.autograd.grad(total / sum(row.trained for row in rows), list(model.parameters())))


class Watched(Engine):
    """Keeps the gradients the optimiser was given."""

    def _update(self, lr: float) -> None:
        self.gradients = [master.grad.clone() for master in self.masters if master.grad is not None]
        super()._update(lr)


class Broken:
    """A loss that is not finite, or whose gradient is not."""

    whole: ClassVar[bool] = False

    def __init__(self, of: str) -> None:
        self.of = of

    def count(self, rows: Any) -> float:
        return 1.0

    def teaches(self, row: Row) -> bool:
        return True

    def __call__(self, predictions: Predictions, batch: Batch) -> LossSum:
        total = predictions.logprobs.sum()
        values = {"nan": total * math.nan, "inf": total * math.inf, "gradient": (total * 0).abs().sqrt()}
        return LossSum(values[self.of], {}, {})


def weights(engine: Engine) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in [*engine.parameters, *engine.masters]]


def adam(engine: Engine) -> list[Tensor]:
    return [state[name].clone() for state in engine.adam.state.values() for name in sorted(state)]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_warm_up_and_each_schedule_by_hand() -> None:
    def rates(schedule: Any, ratio: float, steps: int, at: tuple[int, ...]) -> list[float]:
        engine = Engine(Bigram(), Optim(lr=1.0, schedule=schedule, warmup_ratio=ratio), steps, 100)
        return [engine.lr(step) for step in at]

    assert rates("constant", 0.2, 10, (0, 1, 2, 9)) == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert rates("linear", 0.2, 10, (0, 1, 2, 6, 9, 10)) == pytest.approx([1 / 3, 2 / 3, 1, 0.5, 1 / 8, 0])
    assert rates("cosine", 0.2, 10, (2, 4, 6, 10)) == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0], abs=1e-12)
    assert rates("linear", 0.0, 4, (0, 1, 2, 3)) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates("cosine", 0.1, 1, (0,))[0] > 0, "a single step learns"


def test_the_rate_used_is_the_schedules() -> None:
    engine = Engine(Bigram(), Optim(lr=0.01, warmup_ratio=0.5), 6, 100)
    found = [engine.step(rows_of(3), CrossEntropy()).lr for _ in range(6)]
    assert found == pytest.approx([engine.lr(step) for step in range(6)])
    assert found == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.0075, 0.0025])


def test_steps_are_adamws_on_the_plain_gradients() -> None:
    mine, theirs = Bigram(), Bigram()
    optim = Optim(lr=0.03, beta1=0.8, beta2=0.95, weight_decay=0.1, **FLAT)
    engine = Engine(mine, optim, 10, 17)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.03, betas=(0.8, 0.95), weight_decay=0.1, fused=False)
    for step in range(4):
        rows = rows_of(7, seed=step)
        gradients = plain_gradients(theirs, rows)
        for parameter, gradient in zip(theirs.parameters(), gradients, strict=True):
            parameter.grad = gradient
        adamw.step()
        result = engine.step(rows, CrossEntropy())
        assert result.grad_norm == pytest.approx(float(torch.cat([g.flatten() for g in gradients]).norm()), rel=1e-4)
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("limit", [0.01, 1e9])
def test_gradients_are_scaled_down_to_the_limit_and_never_up(limit: float) -> None:
    engine = Watched(Bigram(), Optim(lr=0.1, **{**FLAT, "max_grad_norm": limit}), 10, 100)
    gradients = plain_gradients(Bigram(), rows_of(5))
    norm = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    result = engine.step(rows_of(5), CrossEntropy())
    assert result.grad_norm == pytest.approx(norm, rel=1e-4), "reported before it is clipped"
    for found, gradient in zip(engine.gradients, gradients, strict=True):
        torch.testing.assert_close(found, gradient * min(1.0, limit / norm), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-3)])
def test_splitting_a_step_into_microbatches_changes_neither_loss_nor_gradient(
    dtype: torch.dtype, tolerance: float
) -> None:
    found = []
    for budget in (1, 9, 1000):
        engine = Watched(Bigram(dtype=dtype), Optim(lr=0.1, **FLAT), 10, budget)
        result = engine.step(rows_of(9), CrossEntropy())
        found.append((result.loss, result.metrics["token_accuracy"], engine.gradients))
    for loss, accuracy, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6) and accuracy == found[0][1]
        for one, other in zip(gradients, found[0][2], strict=True):
            torch.testing.assert_close(one, other, atol=tolerance, rtol=10 * tolerance)


def test_scores_are_at_the_temperature() -> None:
    model, (row,) = Bigram(), rows_of(1)
    (scored,) = Engine(model, Optim(lr=1e-5), 10, 100).score([row], 0.5)
    logits = (model.embedding[list(row.tokens[:-1])] @ model.lm_head.weight.T).detach() / 0.5
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(row.tokens[1:])[:, None])[:, 0]
    assert scored.old_logprobs == pytest.approx((0.0, *expected.tolist()), abs=1e-5)


def test_evaluating_gives_the_loss_of_a_step_and_leaves_no_gradient() -> None:
    engine = Engine(Bigram(), Optim(lr=1e-5), 10, 12)
    found = engine.evaluate(rows_of(6), CrossEntropy())
    assert all(parameter.grad is None for parameter in engine.parameters)
    result = engine.step(rows_of(6), CrossEntropy())
    assert found["loss"] == pytest.approx(result.loss)
    assert found["token_accuracy"] == result.metrics["token_accuracy"]


def test_tiny_updates_add_up_in_float32_masters() -> None:
    """Weights near 1e-3 have bfloat16 neighbours 8e-6 away: updates of 1e-6 would all round back."""
    model = Bigram(dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.full_like(parameter, 0.001))
            parameter[0] = 0.5  # so that gradients are not zero
    start = [parameter.detach().clone() for parameter in model.parameters()]
    engine = Engine(model, Optim(lr=1e-6, **FLAT), 1000, 1000)
    for _ in range(100):
        engine.step(rows_of(5), CrossEntropy())
    moved = [
        (parameter.detach() - before).float().abs() for parameter, before in zip(model.parameters(), start, strict=True)
    ]
    assert max(float(part.max()) for part in moved) > 5e-5
    for parameter, master, before in zip(engine.parameters, engine.masters, start, strict=True):
        assert master.dtype == torch.float32
        assert torch.equal(parameter, master.bfloat16())
        assert torch.equal((before.float() + 1e-6).bfloat16(), before), "one update alone is lost"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_restored_engine_goes_on_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    optim = Optim(lr=0.01, warmup_ratio=0.3, weight_decay=0.1)
    engine = Engine(Bigram(dtype=dtype), optim, 8, 15)
    for step in range(3):
        engine.step(rows_of(6, seed=step), CrossEntropy())
    engine.save_state(tmp_path)
    state = engine.state()
    restored = Engine(Bigram(dtype=dtype, seed=99), optim, 8, 15)
    restored.load_state(tmp_path, state)
    assert equal(weights(restored), weights(engine)) and equal(adam(restored), adam(engine))
    for step in range(3, 8):
        rows = rows_of(6, seed=step)
        assert restored.step(rows, CrossEntropy()) == engine.step(rows, CrossEntropy())
        assert equal(weights(restored), weights(engine)) and equal(adam(restored), adam(engine))


def test_an_engine_saved_before_its_first_step_can_be_restored(tmp_path: Path) -> None:
    engine, restored = (Engine(Bigram(seed=seed), Optim(lr=1e-5), 8, 15) for seed in (0, 1))
    engine.save_state(tmp_path)
    restored.load_state(tmp_path, engine.state())
    assert restored.step(rows_of(4), CrossEntropy()) == engine.step(rows_of(4), CrossEntropy())
    assert equal(weights(restored), weights(engine))


@pytest.mark.parametrize("of", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_that_is_not_finite_changes_nothing_and_the_third_in_a_row_ends_the_run(
    of: str, dtype: torch.dtype
) -> None:
    engine = Engine(Bigram(dtype=dtype), Optim(lr=0.01), 20, 15)
    engine.step(rows_of(5), CrossEntropy())
    before, moments = weights(engine), adam(engine)
    for _ in range(2):
        result = engine.step(rows_of(5), Broken(of))
        line = result.line()
        assert result.skipped and line["skipped"] is True
        assert line["grad_norm"] is None
    assert equal(weights(engine), before) and equal(adam(engine), moments)
    assert not engine.step(rows_of(5), CrossEntropy()).skipped, "a good step in between starts the count anew"
    before = weights(engine)
    for _ in range(2):
        engine.step(rows_of(5), Broken(of))
    with pytest.raises(DivergedError, match="3 steps running"):
        engine.step(rows_of(5), Broken(of))
    assert equal(weights(engine), before)
    assert engine.step_count == 7
    assert all(parameter.grad is None for parameter in engine.parameters)


def test_the_count_of_bad_steps_outlives_a_restart(tmp_path: Path) -> None:
    engine, restored = (Engine(Bigram(), Optim(lr=0.01), 20, 15) for _ in range(2))
    for _ in range(2):
        engine.step(rows_of(5), Broken("nan"))
    engine.save_state(tmp_path)
    restored.load_state(tmp_path, engine.state())
    with pytest.raises(DivergedError):
        restored.step(rows_of(5), Broken("nan"))


def test_a_step_without_any_advantage_changes_nothing() -> None:
    engine = Engine(Bigram(), Optim(lr=0.1), 20, 15)
    before = weights(engine)
    rows = [
        Row(row.tokens, row.mask, row.atom, 0, (0.0,) * len(row.tokens), (-1.0,) * len(row.tokens))
        for row in rows_of(4)
    ]
    result = engine.step(rows, PolicyGradient())
    assert (result.loss, result.grad_norm, result.skipped) == (0.0, 0.0, False)
    assert equal(weights(engine), before)
