"""`sharpen runs watch`: a run that another process makes, shown as that process shows it."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sharpen.cli.boundary import BROKEN_PIPE
from sharpen.cli.progress import Plain, Plan, shown
from sharpen.cli.run import conclude
from sharpen.cli.standing import ended, one, quoted
from sharpen.errors import Interrupted, RunError
from sharpen.runs.store import resume_command

if TYPE_CHECKING:
    from sharpen.runs.listing import Entry
    from sharpen.runs.observer import Observer

SECONDS_BETWEEN_LOOKS = 0.5

CODES = {"finished": 0, "failed": 1, "damaged": 1, "paused": 2, "interrupted": 130, "killed": 137}
"""Exit codes: as a shell has them for what ended by SIGINT and SIGKILL."""


def watch(options: Namespace) -> int:
    """Follow a run until no process is at work in it; returns how it ended as an exit code."""
    from sharpen.reports.read import read

    entry, before = one(options.run), read(options.run)
    plan = Plan(options.run, entry.model, tuple(stage.name for stage in before.stages))
    try:
        with shown(plan, entry.seconds) as observer:
            last = _follow(options.run, observer)
    except KeyboardInterrupt:
        print(f"No longer watching; the run goes on. Look again: sharpen runs watch {quoted(options.run)}")
        return Interrupted.exit_code
    if last is None:
        return BROKEN_PIPE
    if last.state == "finished":
        conclude(read(options.run).summary, options.run)
    else:
        print(ended(last))
        print(f"Go on with: {resume_command(options.run)}")
    return CODES[last.state]


def _follow(run: Path, observer: Observer) -> Entry | None:
    """Tell the observer what is written, to the run's end; None once nobody reads what is printed."""
    from sharpen.runs.listing import is_run, look
    from sharpen.runs.store import holder
    from sharpen.runs.tail import Follower

    follower = Follower(run, observer)
    while True:
        free = not holder(run)  # before the last look at the files
        if not follower.poll() and free:
            if not is_run(run):
                raise RunError("the run directory is gone", value=str(run), remedy="`sharpen runs list` names the runs")
            if (entry := look(run)).state != "running":
                return entry
        if isinstance(observer, Plain) and observer.unheard:
            return None
        time.sleep(SECONDS_BETWEEN_LOOKS)
