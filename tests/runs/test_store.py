"""The files of a run directory: whole lines, whole files, whole folders."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from sharpen.errors import CheckpointError
from sharpen.runs.manifest import publish, verify
from sharpen.runs.store import Journal, RunDir, append, read_lines, write_lines


@pytest.mark.parametrize("kept", [1, 5, 19])
def test_a_line_cut_short_is_dropped_by_the_next_append(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "lines.jsonl"
    append(path, [{"number": 1}, {"number": 2, "text": "a\u2028b\nc"}])
    second = path.read_bytes().index(b"\n") + 1
    os.truncate(path, second + kept)
    assert read_lines(path) == [{"number": 1}]
    append(path, [{"number": 3}])
    assert read_lines(path) == [{"number": 1}, {"number": 3}]


def test_a_single_line_cut_short_leaves_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"numb')
    append(path, [])
    assert path.read_bytes() == b""


def test_a_character_that_is_no_unicode_becomes_a_question_mark(tmp_path: Path) -> None:
    lines = [{"text": "a\ud800é"}]
    append(tmp_path / "one", lines)
    write_lines(tmp_path / "two", lines)
    assert read_lines(tmp_path / "one") == read_lines(tmp_path / "two") == [{"text": "a?é"}]


def test_numbers_that_json_does_not_have_become_null_in_metrics_and_events(tmp_path: Path) -> None:
    with RunDir(tmp_path) as run:
        run.metrics({"stage": "s", "step": 1, "kl": math.nan, "reward": {"mean": -math.inf, "std": 1.0}})
        run.event("parity", gap=math.nan)
    assert read_lines(tmp_path / "metrics.jsonl") == [
        {"stage": "s", "step": 1, "kl": None, "reward": {"mean": None, "std": 1.0}}
    ]
    assert read_lines(tmp_path / "events.jsonl")[0]["gap"] is None


def test_rewinding_forgets_a_stages_later_steps_and_all_after_them(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for stage, step in [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3), ("c", 1)]:
        run.metrics({"stage": stage, "step": step})
        run.rollouts(stage, step, [{"step": step}])
    run.rewind("b", 1)
    kept = [(line["stage"], line["step"]) for line in read_lines(tmp_path / "metrics.jsonl")]
    assert kept == [("a", 1), ("a", 2), ("b", 1)]
    assert sorted(path.name for path in (tmp_path / "rollouts" / "b").iterdir()) == ["step-00001.jsonl"]
    assert len(list((tmp_path / "rollouts" / "a").iterdir())) == 2
    run.rewind("b", 9)
    assert len(read_lines(tmp_path / "metrics.jsonl")) == 3
    run.rewind("a", 0)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_a_journal_gives_back_what_was_noted_and_forgets_a_step(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).note({(0, 0, "x"): {"score": 0.1}, (1, 0, "x"): {"score": 1 / 3}})
    journal = Journal(path)
    assert journal.get((1, 0, "x")) == {"score": 1 / 3}
    assert journal.get((1, 0, "y")) is None
    journal.forget(0)
    for seen in (journal, Journal(path)):
        assert seen.get((0, 0, "x")) is None and seen.get((1, 0, "x")) == {"score": 1 / 3}


def test_publishing_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with publish(folder, {"step": 1}) as aside:
        (aside / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), publish(folder, {"step": 2}) as aside:
        (aside / "a").write_text("new")
        raise ZeroDivisionError
    assert verify(folder)["step"] == 1 and (folder / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    with publish(folder, {"step": 2}) as aside:
        (aside / "b").write_text("new")
    assert verify(folder)["step"] == 2 and not (folder / "a").exists()
    (folder / "b").write_text("nEw")
    with pytest.raises(CheckpointError, match="does not match"):
        verify(folder)
    assert json.loads((folder / "manifest.json").read_text())["files"].keys() == {"b"}
