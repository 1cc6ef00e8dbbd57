"""A run directory followed as it grows: each line once, in order, over resumptions and rewinds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import Interrupted
from sharpen.runs.observer import Observer
from sharpen.runs.store import RunDir
from sharpen.runs.tail import Follower, Tail
from sharpen.stages import pipeline
from tests.runs.lab import World
from tests.runs.test_damaged import Stop


def write(path: Path, *steps: int, mark: str = "") -> None:
    with path.open("a") as file:
        file.writelines(json.dumps({"step": step, "mark": mark}) + "\n" for step in steps)


def steps(tail: Tail) -> list[int]:
    return [line["step"] for line in tail.poll()]


def test_each_line_is_told_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert steps(tail) == []
    write(path, 1, 2)
    assert steps(tail) == [1, 2] and steps(tail) == []
    with path.open("a") as file:
        file.write('{"step": 3')
    assert steps(tail) == []
    with path.open("a") as file:
        file.write("}\nnonsense\n")
    write(path, 4)
    assert steps(tail) == [3, 4]


@pytest.mark.parametrize("grown", [(), (3,), (3, 4, 5, 6, 7, 8)])
def test_after_a_rewind_only_the_steps_done_over_are_told(tmp_path: Path, grown: tuple[int, ...]) -> None:
    """Whether the file is then shorter or longer than it was when it was last read."""
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    write(path, 1, 2)
    length = path.stat().st_size
    write(path, 3, 4, 5)
    assert steps(tail) == [1, 2, 3, 4, 5]
    with path.open("r+") as file:
        file.truncate(length)
    write(path, *grown, mark="again")
    assert steps(tail) == list(grown)
    write(path, 99)
    assert steps(tail) == [99]


class Heard(Observer):
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def event(self, event: Mapping[str, Any]) -> None:
        self.told.append(str(event["event"]))

    def metrics(self, line: Mapping[str, Any]) -> None:
        self.told.append(f"{line['stage']} {line['step']}")

    def rollout(self, line: Mapping[str, Any]) -> None:
        self.told.append(f"answer {line['version']}")


class Both(Heard):
    """Is told by the run itself, and lets a follower look every few things."""

    def __init__(self, run: Path, every: int) -> None:
        super().__init__()
        self.followed = Heard()
        self._follower = Follower(run, self.followed)
        self._every = every
        self._count = 0

    def _look(self) -> None:
        self._count += 1
        if self._count % self._every == 0:
            self._follower.poll()

    def event(self, event: Mapping[str, Any]) -> None:
        super().event(event)
        self._look()

    def metrics(self, line: Mapping[str, Any]) -> None:
        super().metrics(line)
        self._look()

    def end(self) -> None:
        self._follower.poll()


@pytest.mark.parametrize("every", [1, 4, 1000])
@pytest.mark.usefixtures("here")
def test_a_follower_hears_what_the_runs_own_observer_hears(world: World, tmp_path: Path, every: int) -> None:
    """However seldom it looks; of the answers only the newest, as they are examples."""
    both = Both(tmp_path / "run", every)
    recipe = world.recipe(world.sft_stage(), world.rft_stage(steps=3), evals=[world.eval_config()])
    pipeline.run(recipe, tmp_path / "run", base=world.folder, observer=both)
    both.end()
    own = [told for told in both.told if not told.startswith("answer")]
    followed = [told for told in both.followed.told if not told.startswith("answer")]
    if every == 1:
        assert both.followed.told == both.told
    assert sorted(followed) == sorted(own)
    for told in ("stage_finished", "finished"):  # all that came before these did so for the follower too
        place = len(own) - own[::-1].index(told)
        assert set(own[:place]) == set(followed[: len(followed) - followed[::-1].index(told)])


@pytest.mark.usefixtures("here")
def test_of_a_resumed_run_all_steps_are_told_but_events_only_since_then(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        pipeline.run(world.recipe(world.sft_stage()), run, base=world.folder, observer=Stop(monkeypatch, "sft", 3))
    early = Heard()
    follower = Follower(run, early)
    follower.poll()
    assert early.told[-1] == "interrupted"
    pipeline.resume(run)
    late = Heard()
    Follower(run, late).poll()
    assert late.told[0] == "resumed" and late.told.count("stage_started") == 1
    assert [told for told in late.told if told.startswith("sft")] == [f"sft {step}" for step in range(1, 7)]
    before = len(early.told)
    follower.poll()
    assert early.told[before:] == [told for told in late.told if told not in ("sft 1", "sft 2", "sft 3")]


def test_rollouts_that_are_gone_or_damaged_are_passed_over(tmp_path: Path) -> None:
    directory, heard = RunDir(tmp_path), Heard()
    line = {"stage": "rft", "step": 1, "reward": {"mean": 0.5}}
    directory.metrics(line)
    follower = Follower(tmp_path, heard)
    follower.poll()
    directory.rollouts("rft", 2, [{"version": 7}, {"version": 8}])
    directory.metrics({**line, "step": 2})
    follower.poll()
    (tmp_path / "rollouts/rft/step-00003.jsonl").write_text("{{\n")
    directory.metrics({**line, "step": 3})
    follower.poll()
    assert heard.told == ["rft 1", "answer 7", "rft 2", "rft 3"]
