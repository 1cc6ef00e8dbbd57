"""Progress: what a log holds, and what a terminal shows."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sharpen.cli.live import Live
from sharpen.cli.progress import Plain
from sharpen.cli.track import Plan, StageTrack, event_line, shorten, sparkline, step_line
from sharpen.runs.observer import Observer
from tests.cli.fakes import metrics, rollout, story

PLAN = Plan(Path("runs/x"), "tiny", ("sft", "rft"))


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def tell(observer: Observer, seconds: float, clock: Clock, **lengths: int) -> None:
    """A whole run, with so many seconds between steps."""
    for kind, told in story(**lengths):
        if kind == "metrics":
            clock.now += seconds
        if kind == "progress":
            observer.progress(*told)
        else:
            getattr(observer, kind)(told)


def plain(seconds: float, **lengths: int) -> list[str]:
    file, clock = io.StringIO(), Clock()
    tell(Plain(PLAN, file, clock), seconds, clock, **lengths)
    return file.getvalue().splitlines()


def test_slow_steps_have_a_line_each() -> None:
    steps = [line.split()[1] for line in plain(3.0) if line.startswith("rft ")]
    assert steps == [f"{step}/12" for step in range(1, 13)]


def test_of_fast_steps_the_first_the_last_and_the_validations_have_a_line() -> None:
    steps = [line.split()[1] for line in plain(0.0) if line.startswith("rft ")]
    assert steps == ["1/12", "5/12", "10/12", "12/12"]


def test_a_line_says_where_a_step_stands() -> None:
    track = StageTrack("rft")
    line: dict[str, Any] = metrics(random.Random(0), "rft", 10, 12)
    line["reward"]["mean"] = 0.4712
    track.add(line)
    assert step_line(track) == (
        "rft 10/12  reward 0.471  kl 0.020  length 14.2  529 tokens/s  3.40 s/step  "
        "validation reward 0.310, n 64  ETA 6.8 s"
    )


def test_a_log_has_events_samples_and_no_control_characters() -> None:
    lines = plain(3.0)
    assert all(sign.isprintable() for line in lines for sign in line)
    assert "alert rft, step 6: 2 grades were left out: timeout" in lines
    assert "held_out on rft: 45.7% right" in lines
    assert "held-out problems left out, as training has them: 3 of held_out" in lines
    assert sum(line.startswith("    answer") for line in lines) == 3  # steps 1, 6 and 11
    assert "    reward  1.00" in lines


def test_a_long_silence_is_broken_by_what_is_going_on() -> None:
    file, clock = io.StringIO(), Clock()
    observer = Plain(PLAN, file, clock)
    for done in range(10):
        clock.now += 1
        observer.progress("eval held_out on base", done, 10)
    assert file.getvalue().splitlines() == ["eval held_out on base 4/10", "eval held_out on base 9/10"]


def test_a_closed_pipe_does_not_stop_the_run() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    clock = Clock()
    tell(Plain(PLAN, Closed(), clock), 3.0, clock)


def live(width: int) -> tuple[Live, Console]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    return Live(PLAN, 5, console), console


def screen(observer: Live, console: Console) -> str:
    with console.capture() as capture:
        console.print(observer.picture())
    return capture.get()


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_terminal_shows_stages_work_and_the_last_answer(width: int) -> None:
    observer, console = live(width)
    rng = random.Random(0)
    observer.event({"event": "stage_started", "stage": "sft"})
    for step in range(1, 9):
        observer.metrics(metrics(rng, "sft", step, 8))
    observer.event({"event": "stage_finished", "stage": "sft"})
    observer.event({"event": "stage_started", "stage": "rft"})
    for step in range(1, 4):
        observer.rollout(rollout(rng, step))
        observer.metrics(metrics(rng, "rft", step, 12))
    observer.progress("sample", 64, 128)
    seen = screen(observer, console)
    assert "✓ sft" in seen and "● rft" in seen
    assert "8/8" in seen and "3/12" in seen
    assert "64/128" in seen
    assert "reward  1.00   rft, step 1" in seen
    assert "\x1b[31m" not in seen  # the model's own escape sequence
    assert max(map(len, seen.splitlines())) <= width


def test_a_resumed_run_shows_earlier_stages_as_done() -> None:
    observer, console = live(100)
    observer.event({"event": "resumed"})
    observer.event({"event": "stage_started", "stage": "rft"})
    assert "✓ sft" in screen(observer, console)


def test_a_whole_run_can_be_drawn_live() -> None:
    observer, console = live(100)
    with observer:
        tell(observer, 0.0, Clock())
    assert isinstance(console.file, io.StringIO)
    seen = console.file.getvalue()
    assert "alert sft, step 4: 2 grades were left out: timeout" in seen
    assert "12/12" in seen


def test_text_is_shortened_in_its_middle() -> None:
    assert shorten("a\n b", 10) == "a b"
    short = shorten("begin " + "x" * 500 + " end?", 60)
    assert short.startswith("begin") and short.endswith("end?") and len(short) <= 60


def test_a_sparkline_spans_its_values() -> None:
    assert sparkline((0.0, 0.5, 1.0)) == "▁▅█"
    assert sparkline((2.0, 2.0)) == "▁▁"
    assert sparkline(()) == ""


def test_an_unknown_event_is_still_told() -> None:
    assert event_line({"time": 1, "event": "new_kind", "stage": "rft", "step": 4, "loss": 0.5}) == (
        "new kind rft, step 4: loss 0.500"
    )
