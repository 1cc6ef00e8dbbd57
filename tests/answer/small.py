"""A tiny model, in float32 on one thread, and rows to ask it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from sharpen.answer import predict
from tests.tiny import tiny_model

Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("answering") / "model", max_position_embeddings=256, vocab_size=101)


@pytest.fixture(autouse=True)
def plainly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In float32, so that answers do not hang on the processor; with one thread, which forks survive."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for module in ("sharpen.answer.predict", "sharpen.models.load"):
        monkeypatch.setattr(f"{module}.compute_dtype", lambda setting: torch.float32)
    monkeypatch.setattr(predict, "ROWS", 4)
    yield
    torch.set_num_threads(before)


def asked(count: int) -> Rows:
    """Rows with questions of several lengths, some twice."""
    return [
        {"n": number, "prompt": f"{'why ' * (number % 3)}{number % 7}?", "tag": f"t{number}"} for number in range(count)
    ]


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
