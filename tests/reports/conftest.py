"""Runs to report on; all of them synthetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports import synthetic_run


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    """A small finished run of SFT and RFT."""
    return synthetic_run.write(tmp_path / "quickstart", rft_steps=24, items=60)


@pytest.fixture
def unfinished_run(tmp_path: Path) -> Path:
    """The same, killed in the middle of RFT: no summary, and a last line half-written."""
    path = synthetic_run.write(tmp_path / "killed", rft_steps=24, items=60, finished=False)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "rft", "type": "rft", "step": 25, "rew')
    return path
