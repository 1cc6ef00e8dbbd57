"""SIGINT and SIGTERM: a checkpoint within one step, and a resume to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sharpen.config.load import dump
from sharpen.errors import Interrupted
from sharpen.runs.observer import Observer
from sharpen.stages import pipeline
from tests.runs.lab import World, bits, differences, events

ROOT = Path(__file__).parents[2]


class Sender(Observer):
    """Sends this process a signal as soon as `when` holds of something the run tells."""

    def __init__(self, number: int, when: Callable[[str], bool]) -> None:
        self.number = number
        self.when = when

    def metrics(self, line: Mapping[str, Any]) -> None:
        self._look(f"{line['stage']} {line['step']}")

    def progress(self, what: str, done: int, total: int) -> None:
        self._look(f"{what} {done}")

    def _look(self, what: str) -> None:
        if self.when(what):
            self.when = lambda _: False
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("stage", "step"), [("sft", 1), ("sft", 4), ("rft", 3)])
@pytest.mark.usefixtures("here")
def test_a_signal_ends_the_run_with_a_checkpoint_of_that_very_step(
    world: World, tmp_path: Path, undisturbed: dict[str, Any], number: int, stage: str, step: int
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted) as stopped:
        pipeline.run(
            world.whole(), run, base=world.folder, observer=Sender(number, lambda what: what == f"{stage} {step}")
        )
    name = signal.Signals(number).name
    assert stopped.value.exit_code == 130 and name in str(stopped.value) and "--resume" in str(stopped.value)
    last, interrupted = events(run, "checkpoint")[-1], events(run)[-1]
    assert (last["stage"], last["step"]) == (stage, step)
    assert (interrupted["event"], interrupted["step"], interrupted["cause"]) == ("interrupted", step, name)
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
    pipeline.resume(run)
    assert not differences(bits(run), undisturbed)


@pytest.mark.usefixtures("here")
def test_a_signal_during_sampling_lets_the_step_end(world: World, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    run, seen = tmp_path / "run", iter(range(1000))
    sender = Sender(signal.SIGTERM, lambda what: what.startswith("sample") and next(seen) == 20)
    with pytest.raises(Interrupted):
        pipeline.run(world.whole(), run, base=world.folder, observer=sender)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == events(run, "checkpoint")[-1]["step"]
    pipeline.resume(run)
    assert not differences(bits(run), undisturbed)


@pytest.mark.parametrize("model", ["base", "sft", "rft"])
@pytest.mark.usefixtures("here")
def test_a_signal_during_an_evaluation_does_not_wait_for_its_end(
    world: World, tmp_path: Path, undisturbed: dict[str, Any], model: str
) -> None:
    run = tmp_path / "run"
    sender = Sender(signal.SIGTERM, lambda what: what == f"eval held on {model}, greedy 0")
    with pytest.raises(Interrupted):
        pipeline.run(world.whole(), run, base=world.folder, observer=sender)
    assert not (run / "evals" / "held" / f"{model}.jsonl").exists()
    assert [event["event"] for event in events(run)][-1] == "interrupted"
    pipeline.resume(run)
    assert not differences(bits(run), undisturbed)


@pytest.mark.usefixtures("here")
def test_a_second_sigint_interrupts_at_once_and_is_noted(
    world: World, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    class Twice(Observer):
        def rollout(self, line: Mapping[str, Any]) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    run = tmp_path / "run"
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(world.whole(), run, base=world.folder, observer=Twice())
    assert signal.getsignal(signal.SIGINT) is before
    assert events(run)[-1]["event"] == "interrupted"
    pipeline.resume(run)
    assert not differences(bits(run), undisturbed)


def test_sharpen_run_ends_with_status_130_and_resumes(world: World, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump(world.recipe(world.sft_stage(epochs=60, save_every=500))))
    command = [sys.executable, "-m", "sharpen.cli.main", "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    run, metrics = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    process = subprocess.Popen(
        [*command, str(recipe), "--out", str(run)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"stopped by SIGTERM" in said and b"Traceback" not in said
    steps = metrics.read_text().count("\n")
    assert 3 <= steps < 180
    assert events(run, "checkpoint")[-1]["step"] == steps
    subprocess.run([*command, "--resume", str(run)], env=environment, check=True, capture_output=True)
    other = tmp_path / "other"
    pipeline.run(world.recipe(world.sft_stage(epochs=60, save_every=500)), other, base=world.folder)
    assert not differences(bits(run), bits(other))
