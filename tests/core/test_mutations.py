"""The tests of the numeric core notice wrong arithmetic (all mutations: `python bench/mutations.py`)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "bench/mutations.py"


def mutations() -> Any:
    spec = importlib.util.spec_from_file_location("mutations", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutations"] = module
    spec.loader.exec_module(module)
    return module


def test_every_mutation_still_finds_its_place() -> None:
    module = mutations()
    assert len(module.MUTATIONS) >= 20
    for mutation in module.MUTATIONS:
        source = (SCRIPT.parents[1] / "src/sharpen" / mutation.file).read_text("utf-8")
        compile(module.mutated(source, mutation), mutation.file, "exec")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the mutants run in forks")
def test_a_flipped_sign_clip_side_and_normaliser_are_caught() -> None:
    chosen = ["policy: sign", "clip: sides swapped", "normaliser: swapped in the count"]
    command = [sys.executable, str(SCRIPT), *chosen]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("-> test_policy_losses_and_gradients") == 3
