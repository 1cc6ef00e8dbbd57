"""`sharpen runs`: what is printed of runs in every state, following one, and cleaning with consent."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharpen.cli import watch
from sharpen.cli.main import main
from sharpen.cli.standing import age
from sharpen.runs.manifest import publish
from sharpen.runs.store import RunDir
from tests.cli.fakes import SUMMARY
from tests.runs.test_listing import directory, scored

RECIPE = "model: m\nstages:\n  - {name: sft, type: sft}\n  - {name: rft, type: rft}\n"
SCORES = [scored("base", 0.021, "held_out"), scored("sft", 0.273, "held_out")]
DONE: list[Any] = [{"time": 1e9, "event": "started", "model": "m"}, *SCORES]
STEP = {"stage": "sft", "type": "sft", "step": 8, "steps": 8, "loss": 0.5, "time": {"step": 0.1}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(name: str, *more: Any, state: str = "finished", metrics: list[Any] | None = None, **summary: Any) -> Path:
    """A run directory below `runs/`, with the summary of the fakes."""
    end = [{"time": 1e9 + 100, "event": state, **summary}] if state else []
    path = directory(Path("runs") / name, [*DONE, *more, *end])
    (path / "recipe.yaml").write_text(RECIPE)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics or [STEP]))
    (path / "summary.json").write_text(json.dumps(SUMMARY))
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["runs", *arguments]) == code
    return capsys.readouterr().out


# list


def test_where_there_are_no_runs_the_list_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "list")
    assert "There are no runs in runs/." in shown and "sharpen quickstart" in shown
    assert json.loads(said(capsys, "list", "--json")) == []
    assert main(["runs", "list", "elsewhere"]) == 2


def test_the_list_has_a_line_a_run_and_tells_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    run("good")
    run("stuck", state="paused", cause="40 % of the grades failed")
    run("gone", state="")
    (run("odd") / "events.jsonl").write_bytes(b"\xff\x00nonsense\n")
    Path("runs/notes").mkdir()
    shown = said(capsys, "list")
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip().startswith("runs/")}
    assert "finished" in lines["runs/good"] and "27.3% [23.6, 31.3] sft" in lines["runs/good"]
    assert "sft 8/8" in lines["runs/good"] and "1 min 40 s" in lines["runs/good"]
    assert "killed" in lines["runs/gone"] and "finished" in lines["runs/odd"]  # by its summary
    assert "runs/stuck: 40 % of the grades failed" in shown
    assert "runs/odd: 1 lines of events.jsonl cannot be read" in shown
    assert "Hold no run: runs/notes" in shown


def test_the_list_is_sorted_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    for name, began, score in (("b", 2e9, 0.5), ("a", 1e9, 0.7), ("c", 3e9, 0.6)):
        events = [{"time": began, "event": "started"}, scored("base", score), {"time": began + 9, "event": "finished"}]
        directory(Path("runs") / name, events)

    def order(*options: str) -> str:
        return "".join(entry["path"][-1] for entry in json.loads(said(capsys, "list", "--json", *options)))

    assert [order(), order("--sort", "name"), order("--sort", "best")] == ["cba", "abc", "acb"]


def test_one_line_of_json_holds_what_the_table_shows(capsys: pytest.CaptureFixture[str]) -> None:
    run("good")
    (entry,) = json.loads(said(capsys, "list", "--json"))
    assert entry["best"] == {"eval": "held_out", "model": "sft", "score": 0.273, "ci95": [0.236, 0.313]}
    assert (entry["path"], entry["state"], entry["seconds"], entry["step"]) == ("runs/good", "finished", 100.0, 8)
    assert entry["bytes"] == sum(entry["disk"].values()) > 0


# show


def test_a_run_is_shown_with_its_state_results_alerts_and_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    alerts = [{"time": 5, "event": "alert", "kind": "x", "message": f"alert {number}"} for number in range(7)]
    run("good", *alerts)
    shown = said(capsys, "show", "runs/good")
    for told in ("finished", SUMMARY["verdict"][:40], "27.3% [23.6, 31.3]", "8/8", "loss 0.5", "alert 6", "1 min 40 s"):
        assert told in shown
    assert "7, of which the last 5" in shown and "alert 1" not in shown
    assert "sharpen chat runs/good/models/rft" in shown and "sharpen runs clean runs/good" in shown
    told = json.loads(said(capsys, "show", "runs/good", "--json"))
    assert told["summary"]["verdict"] == SUMMARY["verdict"] and len(told["alerts"]) == 7


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("interrupted", ["The run was interrupted: SIGINT", "sharpen run --resume 'runs/a b'"]),
        ("paused", ["The run is paused: SIGINT", "sharpen run --resume"]),
        ("", ["was killed: its process ended without a word", "sharpen run --resume"]),
    ],
)
def test_a_stopped_run_says_why_and_how_it_goes_on(
    capsys: pytest.CaptureFixture[str], state: str, told: list[str]
) -> None:
    run("a b", state=state, cause="SIGINT")
    shown = said(capsys, "show", "runs/a b")
    assert all(each in shown for each in told)


def test_a_running_run_can_be_watched(capsys: pytest.CaptureFixture[str]) -> None:
    with RunDir(run("now", state="")):
        shown = said(capsys, "show", "runs/now")
    assert f"running (process {os.getpid()})" in shown and "sharpen runs watch runs/now" in shown


@pytest.mark.parametrize("name", ["events.jsonl", "metrics.jsonl", "summary.json", "recipe.yaml"])
@pytest.mark.parametrize(
    "content", [b"", b"[1]\n", b"\xff\xfe\n", b'{"stages": 4, "base": 3, "step": [], "time": {}}\n']
)
def test_no_damage_is_a_traceback(capsys: pytest.CaptureFixture[str], name: str, content: bytes) -> None:
    (run("odd") / name).write_bytes(content)
    for command in (["list"], ["show", "runs/odd"], ["show", "runs/odd", "--json"], ["clean", "--dry-run"]):
        assert said(capsys, *command)
    assert main(["runs", "watch", "runs/odd"]) in (0, 1)


def test_what_is_no_run_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes").mkdir()
    with RunDir(Path("refused")):
        pass
    for folder, fact in (("nowhere", "no such folder"), ("notes", "no run directory"), ("refused", "never began")):
        for command in ("show", "watch"):
            assert main(["runs", command, folder]) == 2
            assert fact in capsys.readouterr().err


# watch


@pytest.mark.parametrize(
    ("state", "code"), [("finished", 0), ("failed", 1), ("paused", 2), ("interrupted", 130), ("", 137)]
)
def test_a_run_that_has_ended_is_shown_and_its_state_is_the_exit_code(
    capsys: pytest.CaptureFixture[str], state: str, code: int
) -> None:
    run("old", state=state)
    shown = said(capsys, "watch", "runs/old", code=code)
    assert "sft 8/8  loss 0.5" in shown
    assert (SUMMARY["verdict"] in shown) == (code == 0)
    assert ("Go on with: sharpen run --resume runs/old" in shown) == (code != 0)


def test_a_run_is_followed_over_an_interruption_to_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds it, ends, and a second one goes on before the follower looks again."""
    monkeypatch.setattr(watch, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr("sharpen.cli.progress.SECONDS_BETWEEN_STEPS", 0.0)
    path = run("now", state="", metrics=[{**STEP, "step": 1}])
    seen = threading.Event()
    monkeypatch.setattr("sharpen.runs.tail.Follower.poll", _then(seen))

    def work() -> None:
        with RunDir(path) as first:
            ready.set()
            seen.wait(10)
            first.metrics({**STEP, "step": 2})
            first.event("interrupted", stage="sft", step=2, cause="SIGTERM")
            seen.clear()
            seen.wait(10)
            first.rewind("sft", 1)  # as the process that goes on does
            first.event("resumed")
            first.metrics({**STEP, "step": 2, "loss": 0.25})
            seen.clear()
            seen.wait(10)
            first.event("finished")

    ready = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(10)
    shown = said(capsys, "watch", "runs/now")
    thread.join()
    order = ["sft 1/8", "sft 2/8  loss 0.500", "interrupted sft, step 2: SIGTERM", "resumed", "sft 2/8  loss 0.250"]
    places = [shown.index(told) for told in order]
    assert places == sorted(places)
    assert SUMMARY["verdict"] in shown


def _then(seen: threading.Event) -> Callable[[Any], bool]:
    """A follower that says when it has looked."""
    from sharpen.runs.tail import Follower

    original = Follower.poll

    def poll(follower: Follower) -> bool:
        found = original(follower)
        seen.set()
        return found

    return poll


WATCHED = """
import sys
from sharpen.cli.main import main
from sharpen.cli.standing import age
sys.exit(main(["runs", "watch", "runs/now"]))
"""


@pytest.mark.parametrize("how", ["Ctrl-C", "a reader that has had enough"])
def test_who_no_longer_watches_leaves_the_run_alone(how: str) -> None:
    path = run("now", state="")
    with RunDir(path) as directory_now:
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHED],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout
        process.stdout.readline()
        if how == "Ctrl-C":
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=30)
            assert process.returncode == 130
            assert "the run goes on. Look again: sharpen runs watch runs/now" in out
        else:
            process.stdout.close()
            end = time.monotonic() + 30
            while process.poll() is None and time.monotonic() < end:
                directory_now.event("note", message="x")
                time.sleep(0.1)
            assert process.returncode == 141
        assert process.stderr
        assert "Traceback" not in process.stderr.read() if not process.stderr.closed else True
        directory_now.event("finished")
    assert [json.loads(line)["event"] for line in (path / "events.jsonl").read_text().splitlines()][-1] == "finished"


# clean


def checkpointed(name: str) -> Path:
    """A finished run with three checkpoints of its last stage."""
    path = run(name, metrics=[{**STEP, "stage": "rft"}])
    for folder in (*(path / f"stages/02-rft/checkpoints/step-0000{step}" for step in (1, 2, 3)), path / "models/rft"):
        with publish(folder, {}) as aside:
            (aside / "model.safetensors").write_bytes(b"x" * 1_000_000)
    return path


def left(path: Path) -> list[str]:
    return sorted(folder.name for folder in (path / "stages/02-rft/checkpoints").iterdir())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "options", "goes"),
    [
        ("y\n", [], True),
        ("yes\n", [], True),
        ("\n", [], False),
        ("n\n", [], False),
        ("", [], False),
        (None, [], False),  # no terminal: nobody can agree
        (None, ["--yes"], True),
        ("y\n", ["--dry-run"], False),
        (None, ["--dry-run", "--yes"], False),
    ],
)
def test_nothing_goes_without_consent(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: str | None,
    options: list[str],
    goes: bool,
) -> None:
    path = checkpointed("good")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n") if answer is None else Terminal(answer))
    shown = said(capsys, "clean", *options)
    assert "2 MB" in shown and "stages/02-rft/checkpoints/step-00001: step 3 is newer and verifies" in shown
    assert ("Freed 2 MB" in shown) == goes and ("Nothing was removed" in shown) == (not goes)
    assert left(path) == ([] if goes else ["step-00001", "step-00002"]) + ["step-00003"]


def test_what_is_kept_and_what_is_lost_follows_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpointed("good")
    (path / "rollouts/rft").mkdir(parents=True)
    said(capsys, "clean", "runs/good", "--keep-last", "2", "--yes")
    assert left(path) == ["step-00002", "step-00003"]
    shown = said(capsys, "clean", "runs/good", "--keep-last", "0", "--keep-every", "2", "--rollouts", "--yes")
    assert "you lose: rft can then be trained further only from step 2 on" in shown
    assert "you lose: a report written anew shows no completions" in shown
    assert left(path) == ["step-00002"] and not (path / "rollouts").exists()
    assert "Nothing is to go" in said(capsys, "clean", "--yes")


def test_a_run_that_is_held_is_left_alone_and_the_others_are_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    held, free = checkpointed("held"), checkpointed("free")
    with RunDir(held):
        shown = said(capsys, "clean", "--yes")
    assert "runs/held: left alone, another process is at work" in shown
    assert (len(left(held)), len(left(free))) == (3, 1)


@pytest.mark.parametrize("option", ["--keep-last", "--keep-every"])
def test_a_number_below_zero_is_refused(capsys: pytest.CaptureFixture[str], option: str) -> None:
    checkpointed("good")
    assert main(["runs", "clean", option, "-1"]) == 2
    assert f"{option}: must be 0 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "shown"), [(5, "5 s"), (90, "2 min"), (7200, "2 h"), (86_400, "1 d"), (864_000, "10 d"), (-5, "0 s")]
)
def test_ages(monkeypatch: pytest.MonkeyPatch, seconds: float, shown: str) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert age(1e9 - seconds) == shown
