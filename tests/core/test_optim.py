"""The 8-bit optimiser beside float32 AdamW, and beside its paper's quantisation written out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sharpen.config.optim import Optim
from sharpen.errors import ConfigError
from sharpen.models.load import load
from sharpen.train.engine import Engine
from sharpen.train.losses import CrossEntropy
from sharpen.train.optim import build
from sharpen.types import Sequence as Row
from tests.tiny import tiny_model

ROWS = [Row(tuple(range(5, 30 + n)), (False, *[True] * (24 + n)), str(n)) for n in range(4)]


def optim(kind: str, **changes: float) -> Optim:
    return Optim.model_validate({"type": kind, "lr": 0.01, "schedule": "constant", "warmup_ratio": 0, **changes})


def descend(kind: str, steps: int) -> tuple[Tensor, Tensor, torch.optim.Optimizer]:
    """Gradient descent on |x − target|² / 2 of 64 × 256 numbers: the start, the end, the optimiser."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(64, 256, generator=generator)
    x = torch.randn(64, 256, generator=generator).requires_grad_()
    start = (x - target).detach()
    optimizer = build(optim(kind), [x])
    for _ in range(steps):
        x.grad = (x - target).detach()
        optimizer.step()
    return start, (x - target).detach(), optimizer


def test_on_a_quadratic_the_way_is_that_of_float32() -> None:
    start, wide, _ = descend("adamw", 60)
    _, narrow, _ = descend("adamw_8bit", 60)
    way = (wide - start).norm()
    assert (narrow - wide).norm() < 0.05 * way
    assert way > 0.3 * start.norm()


def test_the_moments_take_a_quarter_of_the_memory() -> None:
    def held(kind: str) -> int:
        (state,) = descend(kind, 1)[2].state.values()
        large = [value for value in state.values() if torch.is_tensor(value) and value.numel() > 256]
        small = [value for name, value in state.items() if "absmax" in name]
        assert not small or all(value.numel() == 64 for value in small), "a scale for each block of 256"
        return sum(value.numel() * value.element_size() for value in large)

    assert held("adamw_8bit") == 64 * 256 * 2
    assert held("adamw") == 64 * 256 * 8


def engine(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> Engine:
    """On a model whose matrices are large enough to be quantised."""
    path = folder if folder.exists() else tiny_model(folder, hidden_size=64, intermediate_size=128, head_dim=16)
    return Engine(load(path, dtype).model, optim(kind, lr=3e-3), 20, 200)


def test_a_tiny_model_learns_as_with_float32_moments(tmp_path: Path) -> None:
    losses = {}
    for kind in ("adamw", "adamw_8bit"):
        trained = engine(tmp_path / "model", kind)
        losses[kind] = [trained.step(ROWS, CrossEntropy()).loss for _ in range(15)]
        types = {value.dtype for state in trained.adam.state.values() for value in map(torch.as_tensor, state.values())}
        assert (torch.uint8 in types) == (kind == "adamw_8bit")
    assert losses["adamw_8bit"] == pytest.approx(losses["adamw"], rel=0.05)
    assert losses["adamw_8bit"] != losses["adamw"]
    assert losses["adamw"][-1] < 0.5 * losses["adamw"][0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_restored_8_bit_engine_goes_on_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    first = engine(tmp_path / "model", "adamw_8bit", dtype)
    for _ in range(3):
        first.step(ROWS, CrossEntropy())
    first.save_state(tmp_path)
    second = engine(tmp_path / "model", "adamw_8bit", dtype)
    second.load_state(tmp_path, first.state())
    for _ in range(4):
        assert second.step(ROWS, CrossEntropy()) == first.step(ROWS, CrossEntropy())
    assert all(torch.equal(one, other) for one, other in zip(first.masters, second.masters, strict=True))
    for one, other in zip(first.adam.state.values(), second.adam.state.values(), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(other[name])) for name in one)


def test_without_bitsandbytes_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim.adamw", None)
    with pytest.raises(ConfigError, match=r"optim\.type.*pip install 'sharpen\[8bit\]'"):
        build(optim("adamw_8bit"), [torch.zeros(1, requires_grad=True)])
