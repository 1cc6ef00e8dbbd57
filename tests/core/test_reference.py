"""The reference is the model as it was when the stage began, whatever has been trained since."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from sharpen.config.optim import Optim
from sharpen.models import adapters
from sharpen.models.load import load
from sharpen.train.engine import Engine, score
from sharpen.train.losses import CrossEntropy
from sharpen.train.reference import Reference
from sharpen.types import Sequence as Row
from tests.core.test_engine import equal, weights
from tests.tiny import tiny_model

ROWS = [Row(tuple(range(5, 20 + n)), (False, *[True] * (14 + n)), str(n)) for n in range(3)]
STEEP = Optim(lr=0.02, warmup_ratio=0.0, schedule="constant")


def made(folder: Path, dtype: torch.dtype, kind: str) -> Any:
    """A model to be trained whole, with a new adapter, or with one that has been trained before."""
    model = load(tiny_model(folder), dtype).model
    if kind != "full":
        targets = adapters.target_names(model, "all-linear")
        adapters.attach(model, LoraConfig(r=4, target_modules=targets, use_dora=kind == "dora"), 0)
    if kind == "continued":
        Engine(model, STEEP, 10, 100).step(ROWS, CrossEntropy())
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["full", "new", "dora", "continued"])
def test_it_scores_as_a_copy_made_at_the_start_and_puts_the_present_weights_back(
    tmp_path: Path, dtype: torch.dtype, kind: str
) -> None:
    model = made(tmp_path, dtype, kind)
    frozen = copy.deepcopy(model)
    engine = Engine(model, STEEP, 10, 100)
    reference = Reference(engine)
    for _ in range(3):
        engine.step(ROWS, CrossEntropy())
    present, state = engine.score(ROWS, 0.7), weights(engine)
    found = reference.score(ROWS, 0.7)
    assert found == score(frozen, ROWS, 100, 0.7)
    assert engine.score(ROWS, 0.7) == present != found
    assert equal(weights(engine), state)
    assert engine.step(ROWS, CrossEntropy()).grad_norm > 0
    assert reference.score(ROWS, 0.7) == found, "training on does not move it"


def test_the_present_weights_come_back_when_scoring_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(made(tmp_path, torch.float32, "new"), STEEP, 10, 100)
    reference = Reference(engine)
    engine.step(ROWS, CrossEntropy())
    present, state = engine.score(ROWS), weights(engine)

    def fails(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(engine, "score", fails)
        with pytest.raises(MemoryError):
            reference.score(ROWS)
    assert equal(weights(engine), state) and engine.score(ROWS) == present


def test_under_an_adapter_only_the_adapter_is_kept(tmp_path: Path) -> None:
    engine = Engine(made(tmp_path, torch.float32, "new"), STEEP, 10, 100)
    kept = sum(weight.numel() for weight in Reference(engine)._weights)
    trained, whole = adapters.trainable(engine.model)
    assert kept == trained < 0.4 * whole
