"""Does a test fail when the arithmetic is wrong? Flip signs, clip sides and normalisers, one at a time.

    OMP_NUM_THREADS=1 python -m bench.mutations            # all of them: a table, exit 1 if one survives
    OMP_NUM_THREADS=1 python -m bench.mutations clip cap   # those whose name holds one of the words

Each mutation is made in a copy of `src`; a process forked after the heavy imports runs the quick tests there.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench.mutants.base import Mutation
from bench.mutants.machinery import MACHINERY
from bench.mutants.policy import POLICY
from bench.mutants.preferences import PREFERENCES

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "test_losses.py",
    "test_preference_losses.py",
    "test_preference_pairs.py",
    "test_bradley_terry.py",
    "test_family.py",
    "test_credit.py",
    "test_head.py",
    "test_pack.py",
    "test_draw.py",
    "test_engine.py",
    "test_attention.py",
    "test_fused.py",
)
LIMIT = 60.0
"""Seconds after which a mutant counts as caught: it hangs."""

MUTATIONS: list[Mutation] = [*POLICY, *PREFERENCES, *MACHINERY]


def mutated(source: str, mutation: Mutation) -> str:
    """The file with the mutation. Raises ValueError unless the right text occurs exactly once."""
    if source.count(mutation.right) != 1:
        times = source.count(mutation.right)
        raise ValueError(f"{mutation.name}: {mutation.right!r} occurs {times} times in {mutation.file}, not once")
    return source.replace(mutation.right, mutation.wrong)


def caught_by(folder: Path, mutation: Mutation | None) -> str:
    """The first test that fails on the mutant, or an empty string. `folder` is a copy of the project."""
    path = folder / "src/sharpen" / (mutation.file if mutation else "types.py")
    right = path.read_text("utf-8")
    if mutation:
        path.write_text(mutated(right, mutation), "utf-8")
    try:
        return _test(folder, path.stem)
    finally:
        path.write_text(right, "utf-8")


def _test(folder: Path, stem: str) -> str:
    """The first test that fails; those named after the module of that stem come first."""
    names = sorted(TESTS, key=lambda name: stem.removesuffix("s") not in name)
    log = folder / "log"
    child = os.fork()
    if child == 0:
        _become_pytest(folder, log, names)
    until = time.monotonic() + LIMIT
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > until:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return f"a limit of {LIMIT:.0f} seconds"
        time.sleep(0.02)
    failed = [line for line in log.read_text("utf-8").splitlines() if line.startswith(("FAILED ", "ERROR "))]
    passed = " passed" in log.read_text("utf-8") and not failed
    return "" if passed else failed[0].split("::")[-1].split(" - ")[0] if failed else "an error before the tests"


def _become_pytest(folder: Path, log: Path, names: list[str]) -> None:
    """In the forked child: run the quick tests on the copy, and end."""
    try:
        import pytest

        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(folder)
        sys.dont_write_bytecode = True  # a mutant of the same second and size must not serve as another's cache
        sys.path.insert(0, str(folder / "src"))
        pytest.main(
            ["-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", *(f"tests/core/{name}" for name in names)]
        )
        sys.stdout.flush()
    finally:
        os._exit(0)


def copy(folder: Path) -> Path:
    """What the quick tests need of the project."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignore)
    shutil.copytree(ROOT / "tests/core", folder / "tests/core", ignore=ignore)
    shutil.copy(ROOT / "tests/tiny.py", folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def main(words: list[str]) -> int:
    """Print the table; 1 if a mutant survives."""
    import hypothesis  # noqa: F401 - imported before the forks, so that each need not
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    chosen = [mutation for mutation in MUTATIONS if not words or any(word in mutation.name for word in words)]
    survivors, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = copy(Path(temporary))
        if not words and (failure := caught_by(folder, None)):
            print(f"the tests fail without any mutation: {failure}")
            return 1
        for mutation in chosen:
            caught = caught_by(folder, mutation)
            survivors += not caught
            print(f"{mutation.name:36} -> {caught or 'SURVIVED'}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught, in {time.monotonic() - began:.0f} s")
    return 1 if survivors or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
