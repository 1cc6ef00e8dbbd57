"""The memory of this process and its children."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sharpen.runs import memory

MB = 1_000_000
HOLDS = "import sys; held = bytearray(b'x' * int(sys.argv[1])); print('ready', flush=True); sys.stdin.read()"

needs_proc = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="no proportional set sizes here")


@needs_proc
def test_what_a_child_holds_counts_until_it_is_taken() -> None:
    with memory.Watch(seconds=0.01) as watch:
        before = watch.take()
        command = [sys.executable, "-c", HOLDS, str(100 * MB)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout and child.stdin
            assert child.stdout.readline() == b"ready\n"
            watch.take()  # a child on its way to exec still has its parent's pages, which count twice
            time.sleep(0.1)
            child.stdin.close()
            child.wait()
        assert before + 95 * MB < watch.take() < before + 160 * MB
        assert abs(watch.take() - before) < 50 * MB


def test_without_proportional_sizes_the_peak_is_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "tree_bytes", lambda pid: 0)
    with memory.Watch() as watch:
        assert watch.take() == memory.peak_memory() > 10 * MB


def test_a_process_that_is_gone_counts_nothing() -> None:
    assert memory.tree_bytes(2**22 + 1) == 0
