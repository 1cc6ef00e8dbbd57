"""How runs stand, as it is read from directories in every state, whole or damaged."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sharpen.runs.listing import Best, find, look, never_began
from sharpen.runs.store import LOCK, RunDir, holder


def directory(path: Path, events: Sequence[tuple[float, str] | dict[str, Any]], **files: str) -> Path:
    """A run directory with these events (time and kind), a recipe, and other files."""
    path.mkdir(parents=True)
    lines = [event if isinstance(event, dict) else {"time": event[0], "event": event[1]} for event in events]
    (path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "recipe.yaml").write_text("stages: []")
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


def scored(model: str, score: float, name: str = "held") -> dict[str, Any]:
    return {"time": 5.0, "event": "evaluated", "eval": name, "model": model, "score": score}


@pytest.mark.parametrize(
    ("events", "state", "seconds"),
    [
        ([(10, "started"), (30, "finished")], "finished", 20),
        ([(10, "started"), (30, "paused")], "paused", 20),
        ([(10, "started"), (30, "interrupted")], "interrupted", 20),
        ([(10, "started"), (30, "failed")], "failed", 20),
        ([(10, "started"), (30, "checkpoint")], "killed", 20),
        ([(10, "started"), (30, "interrupted"), (100, "resumed"), (105, "finished")], "finished", 25),
        ([(10, "started"), (30, "checkpoint"), (100, "resumed"), (105, "failed")], "failed", 25),
        ([(10, "started"), (30, "finished"), (100, "resumed"), (104, "checkpoint")], "killed", 24),
        ([], "damaged", 0),
    ],
)
def test_the_state_and_the_time_follow_from_the_events(
    tmp_path: Path, events: list[tuple[float, str]], state: str, seconds: float
) -> None:
    found = look(directory(tmp_path / "run", events))
    assert (found.state, found.seconds) == (state, seconds)


def test_a_run_whose_lock_is_held_is_running_whatever_its_events_say(tmp_path: Path) -> None:
    events: list[tuple[float, str]] = [(10, "started"), (30, "finished"), (time.time() - 50, "resumed")]
    run = directory(tmp_path / "run", events)
    assert look(run).state == "killed"
    with RunDir(run):
        found = look(run)
        assert (found.state, found.process) == ("running", str(os.getpid()))
        assert 70 <= found.seconds < 100  # 20 of the first process, and 50 so far
        assert holder(run) == str(os.getpid())
    assert look(run).state == "killed" and holder(run) == ""


def test_looking_keeps_nobody_from_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A glance at the lock takes it for an instant; whoever begins then tries once more."""
    with RunDir(tmp_path):
        pass
    with (tmp_path / LOCK).open() as glance:
        fcntl.flock(glance, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda seconds: glance.close())
        with RunDir(tmp_path):
            assert holder(tmp_path) == str(os.getpid())


def test_the_best_model_is_that_of_the_first_eval_with_the_interval_of_the_summary(tmp_path: Path) -> None:
    events: list[Any] = [
        (1, "started"),
        scored("base", 0.1),
        scored("base", 0.9, "other"),
        scored("sft", 0.6),
        scored("rft", 0.4),
    ]
    run = directory(tmp_path / "run", events)
    assert look(run).best == Best("held", "sft", 0.6, None)
    stages = [{"name": "sft", "evals": {"held": {"score": 0.6, "ci95": [0.5, 0.7]}}}]
    (run / "summary.json").write_text(json.dumps({"base": {"evals": {"held": {"score": 0.1}}}, "stages": stages}))
    assert look(run).best == Best("held", "sft", 0.6, (0.5, 0.7))
    with (run / "events.jsonl").open("a") as file:  # made anew since: the summary's interval is of another score
        file.write(json.dumps(scored("sft", 0.7)) + "\n")
    assert look(run).best == Best("held", "sft", 0.7, None)
    (run / "events.jsonl").unlink()
    assert look(run).best == Best("held", "sft", 0.6, (0.5, 0.7))


def test_disk_use_adds_up_by_what_it_is(tmp_path: Path) -> None:
    run = directory(tmp_path / "run", [])
    sizes = {
        "stages/01-sft/checkpoints/step-00002/model.safetensors": ("checkpoints", 100),
        "stages/01-sft/checkpoints/.step-00001.removed/model.safetensors": ("checkpoints", 10),
        "stages/01-sft/best/model.safetensors": ("best", 20),
        "models/sft/model.safetensors": ("models", 30),
        "rollouts/rft/step-00001.jsonl": ("rollouts", 40),
        "evals/held/base.jsonl": ("rest", 50),
    }
    for name, (_, size) in sizes.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"x" * size)
    rest = sum((run / name).stat().st_size for name in ("events.jsonl", "recipe.yaml")) + 50
    found = look(run)
    assert found.disk == {"checkpoints": 110, "best": 20, "models": 30, "rollouts": 40, "rest": rest}
    assert found.bytes == 200 + rest


@pytest.mark.parametrize("name", ["events.jsonl", "metrics.jsonl", "summary.json", "recipe.yaml"])
@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"{", b"[1]\n", b"\xff\xfe\x00\n", b'{"event": 3, "time": "x", "stages": 4}\n', b"null\n"]
)
def test_no_damage_is_a_traceback(tmp_path: Path, name: str, content: bytes) -> None:
    run = directory(tmp_path / "run", [(1, "started"), scored("base", 0.5), (2, "finished")], summary_json="{}")
    (run / name).write_bytes(content)
    found = look(run)
    assert found.state == ("damaged" if name == "events.jsonl" else "finished")
    assert ("events.jsonl" in found.trouble) == (name == "events.jsonl")


def test_lines_that_cannot_be_read_are_counted_but_not_one_that_is_being_written(tmp_path: Path) -> None:
    run = directory(tmp_path / "run", [(1, "started"), (2, "finished")])
    with (run / "events.jsonl").open("a") as file:
        file.write('nonsense\n{"event": "fin')
    assert look(run).trouble == "1 lines of events.jsonl cannot be read; there is no readable summary.json"


def test_runs_are_found_some_levels_down_and_folders_without_any_are_told(tmp_path: Path) -> None:
    for name in ("one", "sweep/lr-1", "sweep/lr-2", "a/b/deep", ".hidden/x"):
        directory(tmp_path / name, [(1, "started")])
    (tmp_path / "notes").mkdir()
    (tmp_path / "one" / "models" / "inside").mkdir(parents=True)
    with RunDir(tmp_path / "refused"):
        assert tmp_path / "refused" in find(tmp_path).runs  # it may still begin
    (tmp_path / "link").symlink_to(tmp_path / "sweep")
    found = find(tmp_path)
    assert [str(run.relative_to(tmp_path)) for run in found.runs] == ["a/b/deep", "one", "sweep/lr-1", "sweep/lr-2"]
    assert found.others == (tmp_path / "notes", tmp_path / "refused")
    assert never_began(tmp_path / "refused") and not never_began(tmp_path / "notes")
    assert find(tmp_path / "one").runs == (tmp_path / "one",)
    shutil.rmtree(tmp_path / "one")
    assert find(tmp_path / "notes") == ((), ())
