"""A full disk ends the run cleanly, with the last checkpoint intact; after making room it goes on to the same bits."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import RunError
from sharpen.runs.manifest import verify
from sharpen.runs.observer import Observer
from sharpen.stages import pipeline
from tests.runs.lab import World, bits, differences, events, forked, one_thread

pytestmark = [pytest.mark.usefixtures("here"), pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")]


class Fill(Observer):
    """From one step on, no file may grow past `limit` bytes."""

    def __init__(self, stage: str, step: int, limit: int) -> None:
        self.at = (stage, step)
        self.limit = limit

    def metrics(self, line: Any) -> None:
        if (line["stage"], line["step"]) == self.at:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.RLIM_INFINITY))


@pytest.mark.parametrize(
    ("stage", "step", "limit"),
    [("sft", 4, 20_000), ("sft", 4, 100), ("sft", 5, 30_000), ("rft", 3, 60_000), ("rft", 4, 60_000), ("rft", 1, 500)],
)
def test_where_files_cannot_grow_the_run_says_so_and_resumes_to_the_same_bits(
    world: World, tmp_path: Path, undisturbed: dict[str, Any], stage: str, step: int, limit: int
) -> None:
    run = tmp_path / "run"
    one_thread()
    status, said = forked(
        lambda: pipeline.run(world.whole(), run, base=world.folder, observer=Fill(stage, step, limit)),
        tmp_path / "log",
    )
    assert status == RunError.exit_code, said
    assert said.startswith("RunError: the disk is full; the last checkpoint is intact") and "--resume" in said
    for saved in run.glob("stages/*/checkpoints/step-*"):
        verify(saved)
    assert not list(run.glob("stages/*/checkpoints/.*"))
    pipeline.resume(run)
    assert not differences(bits(run), undisturbed)


@pytest.mark.parametrize("limit", [0, 300])
def test_a_disk_that_is_full_from_the_start_is_named_too(world: World, tmp_path: Path, limit: int) -> None:
    def start() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        pipeline.run(world.whole(), tmp_path / "run", base=world.folder)

    one_thread()
    status, said = forked(start, tmp_path / "log")
    assert status == RunError.exit_code and said.startswith("RunError: the disk is full"), said
    pipeline.run(world.recipe(), tmp_path / "run", base=world.folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 500 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # lazy: weights may still be mapped


def test_a_full_disk_is_survived_too(world: World, small_disk: Path, undisturbed: dict[str, Any]) -> None:
    run = small_disk / "run"
    with pytest.raises(RunError, match="the disk is full"):
        pipeline.run(world.whole(), run, base=world.folder)
    saved = list(run.glob("stages/*/checkpoints/step-*"))
    assert saved
    for path in saved:
        verify(path)
    with pytest.raises(RunError, match="the disk is full"):
        pipeline.resume(run)
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    pipeline.resume(run)
    assert events(run)[-1]["event"] == "finished"
    assert not differences(bits(run), undisturbed)
