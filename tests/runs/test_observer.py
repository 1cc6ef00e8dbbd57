"""A run never depends on who watches it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sharpen.runs.observer import Observer
from sharpen.runs.store import RunDir, read_lines


class Breaks(Observer):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def event(self, event: Mapping[str, Any]) -> None:
        self.seen.append(str(event["event"]))
        if len(self.seen) == 2:
            raise RuntimeError("the terminal is gone")


def test_a_failing_observer_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    observer = Breaks()
    with RunDir(tmp_path, observer) as run:
        for name in ("one", "two", "three"):
            run.event(name)
    assert [line["event"] for line in read_lines(tmp_path / "events.jsonl")] == ["one", "two", "three"]
    assert observer.seen == ["one", "two"]
    assert "the terminal is gone" in capsys.readouterr().err
