"""SIGKILL at any moment, then resume: the same bits as an undisturbed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
KILLED = (-9, -25)  # SIGKILL; SIGXFSZ, where the system stops a write half-way


def kill_points(every: int, recipe: str = "whole") -> list[dict[str, Any]]:
    """What the harness found at each of its kill points; it works in memory where it can, as a disk is slow to sync."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.runs.harness", folder, str(every), recipe],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")][1:]


def check(points: list[dict[str, Any]]) -> None:
    not_killed = [point["point"] for point in points if point["statuses"][0] not in KILLED]
    wrong = {point["point"]: point["wrong"] for point in points if point["wrong"] or point["final"] != 0}
    assert not not_killed
    assert not wrong


def test_a_run_killed_at_any_of_many_points_ends_with_the_bits_of_an_undisturbed_one() -> None:
    points = kill_points(every=6)
    check(points)
    assert len(points) >= 40
    names = " ".join(point["point"] for point in points)
    for phase in ("sft", "rft", "eval", "checkpoints", "models", "journal", "rollouts", "best", "events", "metrics"):
        assert phase in names


def test_a_run_in_an_environment_killed_between_its_turns_ends_with_the_bits_of_an_undisturbed_one() -> None:
    points = kill_points(every=1, recipe="turns")
    check(points)
    names = [point["point"] for point in points]
    assert sum("progress sample" in name for name in names) == 4 and sum("of +env" in name for name in names) == 3


@pytest.mark.long
def test_a_killed_run_with_adapters_ends_with_the_bits_of_an_undisturbed_one() -> None:
    """DoRA with dropout in SFT, continued in RFT with the 8-bit optimiser, on a bfloat16 base."""
    points = kill_points(every=40, recipe="adapted")
    check(points)
    assert len(points) >= 10


def test_a_killed_run_that_learns_from_pairs_ends_with_the_bits_of_an_undisturbed_one() -> None:
    """DPO, KTO and a reward model, killed also while the answers are scored before the first step."""
    points = kill_points(every=99, recipe="preferred")
    check(points)
    assert len(points) >= 10 and sum("scoring" in point["point"] for point in points) == 3


@pytest.mark.long
def test_a_killed_run_with_branches_ends_with_the_bits_of_an_undisturbed_one() -> None:
    points = kill_points(every=12, recipe="branched")
    check(points)
    assert len(points) >= 20


@pytest.mark.long
def test_a_run_killed_at_every_kind_of_point_ends_with_the_bits_of_an_undisturbed_one() -> None:
    check(kill_points(every=1))
