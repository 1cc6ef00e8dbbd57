"""`sharpen runs`: what runs there are, one of them looked at or followed, and the disk they need no more."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.cli.standing import HOME, STYLES, age, below, described, percent

if TYPE_CHECKING:
    from sharpen.runs.listing import Entry

SHOWN = 8
"""So many folders without a run are named."""

BEGIN = """Begin with one of
  sharpen quickstart                   about seven minutes, from a small model to a report
  sharpen init --data rows.csv         a recipe for rows of your own
  sharpen run recipe.yaml              a recipe that you have"""

SORTS: Mapping[str, Callable[[Entry], Any]] = {
    "newest": lambda entry: -(entry.began or 0.0),
    "name": lambda entry: str(entry.path),
    "state": lambda entry: entry.state,
    "best": lambda entry: -entry.best.score if entry.best else 1.0,
    "time": lambda entry: -entry.seconds,
    "disk": lambda entry: -entry.bytes,
}


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen runs` is told."""
    actions = parser.add_subparsers(dest="what", required=True, title="actions", metavar="list|show|watch|clean")
    listing = actions.add_parser("list", help="the runs below a folder: state, best score, time, disk use")
    listing.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="where to look (default: runs/)")
    listing.add_argument("--sort", choices=SORTS, default="newest", help="what comes first (default: newest)")
    listing.add_argument("--json", action="store_true", help="print a JSON list")
    showing = actions.add_parser("show", help="one run on a screen: state, verdict, stages, alerts, what to do next")
    showing.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    showing.add_argument("--json", action="store_true", help="print one JSON object")
    watching = actions.add_parser("watch", help="follow a run that another process makes; Ctrl-C leaves it alone")
    watching.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    cleaning = actions.add_parser("clean", help="free disk of what nothing needs any more; asks first")
    cleaning.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="runs, or folders of runs (default: runs/)")
    cleaning.add_argument(
        "--keep-last",
        type=int,
        metavar="N",
        help="checkpoints that stay of each stage (default: 1; 0 where a later stage stands on its model)",
    )
    cleaning.add_argument(
        "--keep-every", type=int, metavar="K", help="those of each K-th step stay too (default: the recipe's; 0: none)"
    )
    cleaning.add_argument("--rollouts", action="store_true", help="the completions go as well")
    cleaning.add_argument("--dry-run", action="store_true", help="only show what would go")
    cleaning.add_argument("--yes", action="store_true", help="do not ask")


def runs(options: Namespace) -> int:
    """List runs, show or follow one, or free their disk."""
    if options.what == "show":
        from sharpen.cli import run_page

        return run_page.show(options)
    if options.what == "watch":
        from sharpen.cli import watch

        return watch.watch(options)
    if options.what == "clean":
        from sharpen.cli import clean

        return clean.clean(options)
    return _list(options)


def _list(options: Namespace) -> int:
    from sharpen.runs.listing import look

    found = below(options.folders)
    entries = sorted((look(run) for run in found.runs), key=SORTS[options.sort])
    if options.json:
        print(json.dumps([described(entry) for entry in entries], indent=1, ensure_ascii=False))
        return 0
    if entries:
        _table(entries)
    else:
        print(f"There are no runs in {', '.join(f'{folder}/' for folder in options.folders or [HOME])}.")
    for line in (*_told(entries), *_no_runs(found.others)):
        print(line)
    if not entries:
        print(BEGIN)
    return 0


def _table(entries: Sequence[Entry]) -> None:
    from rich.text import Text

    from sharpen.cli.table import console, simple
    from sharpen.reports.numbers import duration, memory

    evals = {entry.best.eval for entry in entries if entry.best}
    best = f"best in {', '.join(evals)}" if len(evals) == 1 else "best"
    columns = (("run", "left"), ("state", "left"), ("at", "left"), (best, "left"))
    table = simple((*columns, ("time", "right"), ("age", "right"), ("disk", "right")))
    table.columns[0].no_wrap = False  # only names may be broken where the terminal is narrow
    for entry in entries:
        table.add_row(
            Text(str(entry.path), "bold"),
            Text(entry.state, STYLES.get(entry.state, "red")),
            Text(_at(entry)),
            Text(_best(entry, named=len(evals) > 1)),
            Text(duration(entry.seconds)),
            Text(age(entry.began)),
            Text(memory(entry.bytes)),
        )
    console().print(table)


def _at(entry: Entry) -> str:
    stage, step, steps = (entry.latest.get(name) for name in ("stage", "step", "steps"))
    return f"{stage} {step}/{steps}" if stage else ""


def _best(entry: Entry, *, named: bool) -> str:
    """The best model's score, with its eval's name if asked; without an eval, what the last step was about."""
    from sharpen.cli.track import headline
    from sharpen.reports.numbers import plain

    if entry.best:
        name = f"{entry.best.eval} " if named else ""
        return f"{name}{percent(entry.best.score, entry.best.ci95)} {entry.best.model}"
    name, value = headline(entry.latest)
    return f"{name} {plain(value)}" if value is not None else ""


def _told(entries: Sequence[Entry]) -> list[str]:
    """What is to be known of single runs: why they stopped, and what is damaged."""
    from sharpen.cli.track import shorten

    lines = []
    for entry in entries:
        for said in (entry.cause, entry.trouble):
            if said:
                lines.append(f"{entry.path}: {shorten(said, 160)}")
    return lines


def _no_runs(folders: Sequence[Path]) -> list[str]:
    from sharpen.runs.listing import never_began

    begun = [str(folder) for folder in folders if never_began(folder)]
    foreign = [str(folder) for folder in folders if not never_began(folder)]
    lines = [f"Never began, and can be deleted: {', '.join(begun)}"] if begun else []
    more = f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else ""
    return lines + ([f"Hold no run: {', '.join(foreign[:SHOWN])}{more}"] if foreign else [])
