"""`sharpen runs clean`: disk that nothing needs any more, shown, asked for, and freed."""

from __future__ import annotations

import sys
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sharpen.cli.standing import below
from sharpen.errors import ConfigError, RunError

if TYPE_CHECKING:
    from sharpen.runs.cleaning import Keep, Plan


def clean(options: Namespace) -> int:
    """Show what may go of each run, ask, and remove it."""
    from sharpen.reports.numbers import memory
    from sharpen.runs.cleaning import Keep, carry_out

    last, every = _count(options.keep_last, "--keep-last"), _count(options.keep_every, "--keep-every")
    keep = Keep(last, every, not options.rollouts)
    found = below(options.runs)
    if not found.runs:
        print("There are no runs here, so there is nothing to clean.")
        return 0
    with ExitStack() as held:
        plans = [plan for run in found.runs if (plan := _planned(run, keep, held))]
        for plan in plans:
            _show(plan)
        going = [plan for plan in plans if plan.parts]
        if not going:
            print("Nothing is to go: all that lies there may be needed again.")
            return 0
        total = memory(sum(plan.bytes for plan in going))
        if options.dry_run or not (options.yes or _agreed(total)):
            print(f"Nothing was removed; this would free {total}.")
            return 0
        for plan in going:
            try:
                carry_out(plan)
            except OSError as error:
                raise RunError(
                    f"could not be removed: {error.strerror}",
                    value=str(error.filename or plan.run),
                    remedy="Look at the folder's permissions, then clean again",
                ) from error
    print(f"Freed {total}.")
    return 0


def _count(value: int | None, option: str) -> int | None:
    if value is not None and value < 0:
        raise ConfigError("must be 0 or more", path=option, value=value)
    return value


def _planned(run: Path, keep: Keep, held: ExitStack) -> Plan | None:
    """What may go of a run, which is then held; of one that another process holds, or that cannot be read, nothing."""
    from rich.console import Console

    from sharpen.runs.cleaning import plan
    from sharpen.runs.store import RunDir

    try:
        held.enter_context(RunDir(run))
        with Console(stderr=True).status("") as status:
            return plan(run, keep, lambda what: status.update(f"reading the checkpoints of {what}"))
    except RunError as error:
        print(f"{run}: left alone, {error.fact} (got {error.seen})")
        return None


def _show(plan: Plan) -> None:
    from sharpen.reports.numbers import memory

    if plan.parts or plan.notes:
        print(plan.run)
    for part in plan.parts:
        print(f"  {memory(part.bytes):>8}  {part.path.relative_to(plan.run)}: {part.why}")
    for note in plan.notes:
        print(f"  note: {note}")
    for loss in plan.losses:
        print(f"  you lose: {loss}")


def _agreed(total: str) -> bool:
    """Ask on a terminal; elsewhere nobody can agree."""
    if not sys.stdin.isatty():
        print("Nobody is here to ask; --yes removes it.")
        return False
    try:
        return input(f"Remove this for good, {total}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
