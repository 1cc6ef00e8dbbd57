"""What a crash leaves behind is detected, cut away, or never seen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import CheckpointError, RunError
from sharpen.runs.manifest import publish, verify
from sharpen.runs.store import Journal, RunDir, append, read_lines, write_lines
from sharpen.train.checkpoint import Restored, newest


def published(folder: Path, content: bytes = b"weights", **facts: Any) -> Path:
    with publish(folder, facts) as aside:
        (aside / "model.bin").write_bytes(content)
        (aside / "inner").mkdir()
        (aside / "inner/template").write_bytes(content[::-1])
    return folder


def test_a_published_folder_is_whole_and_carries_its_facts(tmp_path: Path) -> None:
    folder = published(tmp_path / "a/b/model", step=3, tokens={"sampled": 2})
    manifest = verify(folder)
    assert manifest["schema_version"] == 1 and manifest["step"] == 3 and manifest["tokens"] == {"sampled": 2}
    assert set(manifest["files"]) == {"model.bin", "inner/template"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_every_single_bit_flip_is_detected(tmp_path: Path) -> None:
    folder = published(tmp_path / "model", b"ab", step=40, metrics_offset=1234)
    verify(folder)
    for name in ("model.bin", "inner/template", "manifest.json"):
        path = folder / name
        good = path.read_bytes()
        for place in range(len(good)):
            for bit in range(8):
                bad = bytearray(good)
                bad[place] ^= 1 << bit
                path.write_bytes(bad)
                with pytest.raises(CheckpointError):
                    verify(folder)
        path.write_bytes(good)
    verify(folder)


def test_every_truncation_is_detected(tmp_path: Path) -> None:
    folder = published(tmp_path / "model", b"abc", step=40)
    for name in ("model.bin", "inner/template", "manifest.json"):
        path = folder / name
        good = path.read_bytes()
        for length in range(len(good)):
            path.write_bytes(good[:length])
            with pytest.raises(CheckpointError):
                verify(folder)
        path.unlink()
        with pytest.raises(CheckpointError):
            verify(folder)
        path.write_bytes(good)
    verify(folder)


def test_a_failure_while_writing_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    folder = published(tmp_path / "model", b"old", step=1)
    with pytest.raises(RuntimeError), publish(folder, {"step": 2}) as aside:
        (aside / "model.bin").write_bytes(b"half")
        raise RuntimeError
    assert verify(folder)["step"] == 1 and (folder / "model.bin").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_publishing_replaces_the_old_folder_and_a_crashs_leftovers(tmp_path: Path) -> None:
    folder = published(tmp_path / "model", b"old", step=1)
    (tmp_path / ".model.writing").mkdir()
    (tmp_path / ".model.writing/half").write_bytes(b"")
    published(folder, b"new", step=2)
    assert verify(folder)["step"] == 2 and (folder / "model.bin").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        with publish(tmp_path / f"step-{step:05d}", {"step": step}) as aside:
            (aside / "state.json").write_text(json.dumps({"stage": {"at": step}}))
    (tmp_path / ".step-00020.writing").mkdir()
    (tmp_path / "step-00015/state.json").write_text("{}")
    damaged, good = newest(tmp_path)
    assert isinstance(damaged, CheckpointError) and "step-00015" in str(damaged)
    assert isinstance(good, Restored) and good.checkpoint.step == 10 and good.state == {"stage": {"at": 10}}
    assert list(newest(tmp_path / "nowhere")) == []


def test_appending_cuts_a_partial_line_away(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for partial in (b"", b'{"a": 3', b"\xff", b'{"a"' * 9999):
        path.write_bytes(b'{"a": 1}\n{"a": 2}\n' + partial)
        assert read_lines(path) == [{"a": 1}, {"a": 2}], "readers do not see it either"
        append(path, [{"a": "ü"}, {"a": 4}], sync=True)
        assert read_lines(path) == [{"a": 1}, {"a": 2}, {"a": "ü"}, {"a": 4}]
    path.write_bytes(b'{"a": 3')
    append(path, [{"a": 4}])
    assert read_lines(path) == [{"a": 4}]


def test_lines_are_written_to_new_folders_and_absent_files_have_none(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "x/y.jsonl") == []
    write_lines(tmp_path / "x/y.jsonl", [{"a": 1}])
    append(tmp_path / "x/z.jsonl", [{"a": "line\nbreak\u2028"}])
    assert read_lines(tmp_path / "x/y.jsonl") == [{"a": 1}]
    assert read_lines(tmp_path / "x/z.jsonl") == [{"a": "line\nbreak\u2028"}]
    with pytest.raises(ValueError, match="JSON"):
        append(tmp_path / "x/y.jsonl", [{"a": float("nan")}])


def metrics(run: RunDir) -> list[tuple[str, int]]:
    return [(line["stage"], line["step"]) for line in read_lines(run.path / "metrics.jsonl")]


def test_rewinding_forgets_later_metrics_and_rollouts(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for stage, step in (("sft", 1), ("sft", 2), ("rft", 1), ("rft", 2), ("rft", 10)):
        run.metrics({"stage": stage, "step": step, "loss": 0.5})
        run.rollouts(stage, step, [{"text": "a"}])
    run.rewind("rft", 1)
    assert metrics(run) == [("sft", 1), ("sft", 2), ("rft", 1)]
    left = sorted(str(path.relative_to(tmp_path / "rollouts")) for path in (tmp_path / "rollouts").rglob("*.jsonl"))
    assert left == ["rft/step-00001.jsonl", "sft/step-00001.jsonl", "sft/step-00002.jsonl"]
    run.rewind("rft", 0)
    assert metrics(run) == [("sft", 1), ("sft", 2)]
    run.rewind("sft", 2)
    assert metrics(run) == [("sft", 1), ("sft", 2)]


def test_rewinding_cuts_a_torn_line_away(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.rewind("rft", 0)
    run.metrics({"stage": "rft", "step": 1})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"stage": "rft", "st')
    run.rewind("rft", 3)
    assert (tmp_path / "metrics.jsonl").stat().st_size == run.offset()
    assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"}\n")
    assert metrics(run) == [("rft", 1)]


def test_metrics_that_are_not_finite_are_null(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.metrics({"stage": "rft", "step": 1, "loss": float("nan"), "reward": {"mean": float("inf"), "n": 3}})
    (line,) = read_lines(tmp_path / "metrics.jsonl")
    assert line == {"stage": "rft", "step": 1, "loss": None, "reward": {"mean": None, "n": 3}}


def test_a_run_directory_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with RunDir(tmp_path):
        with pytest.raises(RunError, match=f"process {os.getpid()}"), RunDir(tmp_path):
            pass
    with RunDir(tmp_path) as again:
        again.event("started", seed=1)
    (line,) = read_lines(tmp_path / "events.jsonl")
    assert (line["event"], line["seed"]) == ("started", 1)


def test_the_journal_remembers_over_a_restart_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "journal/rft.jsonl"
    journal = Journal(path)
    journal.note({(0, 1, 2): {"score": 0.5}, (1, 0, 0): {"score": None}})
    journal.note({})
    with path.open("ab") as file:
        file.write(b'{"key": [1, 0, 1], "gra')
    restarted = Journal(path)
    assert restarted.get((0, 1, 2)) == {"score": 0.5} and restarted.get((1, 0, 0)) == {"score": None}
    assert restarted.get((1, 0, 1)) is None
    restarted.note({(1, 0, 1): {"score": 1.0}})
    assert Journal(path).get((1, 0, 1)) == {"score": 1.0}


def test_the_journal_forgets_one_step_for_good(tmp_path: Path) -> None:
    path = tmp_path / "rft.jsonl"
    journal = Journal(path)
    journal.note({(step, place, 0): {"score": float(step)} for step in (1, 2, 11) for place in (1, 2)})
    journal.forget(1)
    for each in (journal, Journal(path)):
        assert [each.get((step, 1, 0)) is None for step in (1, 2, 11)] == [True, False, False]


def test_an_empty_journal_writes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal/rft.jsonl")
    journal.note({})
    assert journal.get((0, 0, 0)) is None and not (tmp_path / "journal").exists()
