"""The tests of the numeric core notice wrong arithmetic (all mutations: `python -m bench.mutations`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.mutations import MUTATIONS, mutated

ROOT = Path(__file__).resolve().parents[2]


def test_every_mutation_still_finds_its_place() -> None:
    assert len(MUTATIONS) >= 20
    for mutation in MUTATIONS:
        source = (ROOT / "src/sharpen" / mutation.file).read_text("utf-8")
        compile(mutated(source, mutation), mutation.file, "exec")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the mutants run in forks")
def test_a_flipped_sign_clip_side_and_normaliser_are_caught() -> None:
    chosen = ["policy: sign", "clip: sides swapped", "normaliser: swapped in the count"]
    command = [sys.executable, "-m", "bench.mutations", *chosen]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("-> test_policy_losses_and_gradients") == 3
