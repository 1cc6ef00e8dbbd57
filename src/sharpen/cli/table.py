"""What a run was worth, as a table: base -> SFT -> RFT, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sharpen.reports import outcome
from sharpen.reports.numbers import MISSING, at, duration, finite, plain, points, show, span
from sharpen.reports.read import label, text_of

Record = Mapping[str, Any]
WIDTH = 120  # where there is no terminal to fill

COLUMNS = (
    ("model", "left"),
    ("right", "right"),
    ("95 % interval", "left"),
    ("in form", "right"),
    ("found", "right"),
    ("change", "right"),
    ("95 %, paired", "left"),
    ("format gain", "right"),
    ("task gain", "right"),
    ("time", "right"),
)

LEGEND = (
    "Changes in percentage points against the row above, or the stage that `from` names, on the same problems. Found: "
    "the right answer stands somewhere in the completion. Task gain: it is found more often; format gain: what is "
    "found is in the form asked for more often. Bold: the paired interval is clear of zero."
)


def results(summary: Record) -> None:
    """Print a table for each eval of a run's summary."""
    names = list(at(summary, "base", "evals") or {})
    screen = console()
    for name in names:
        rows: list[tuple[str, Any, float | None]] = [("base", at(summary, "base", "evals", name), None)]
        rows += [
            (str(stage["name"]), at(stage, "evals", name), finite(stage, "seconds"))
            for stage in summary.get("stages", ())
        ]
        problems = finite(rows[0][1], "n")
        screen.print(Text.assemble("\n", (name, "bold"), f": {plain(problems or 0)} held-out problems, greedy answers"))
        screen.print(_table([_row(*row) for row in rows if row[1]], len(COLUMNS)))
        for model, result, _ in rows:
            if drawn := "   ".join(_drawn(result)):
                screen.print(f"  {label(model)}: {drawn}")
    if names and summary.get("stages"):
        screen.print(Text(LEGEND, "dim"))
        screen.print()


def verdict(summary: Record) -> None:
    """Print what the numbers come to, what else to know of them, and what a test of this size can show."""
    screen = console()
    screen.print(Text(text_of(summary.get("verdict")) or "The run has finished."))
    notes = [*(text for text, main in outcome.remarks(summary) if not main), *outcome.tests(summary)]
    listed = Table.grid(padding=(0, 1))
    for note in notes:
        listed.add_row(" \N{BULLET}", Text(note.replace("`", "")))
    if notes:
        screen.print("", listed, sep="\n")


def scores(model: str, result: Record) -> None:
    """Print what `sharpen eval` measured."""
    screen = console()
    screen.print(Text(f"\n{plain(finite(result, 'n') or 0)} problems, greedy answers"))
    screen.print(_table([_row(model, result, None)], 4))
    if drawn := "   ".join(_drawn(result)):
        screen.print(f"  {drawn}")


def console() -> Console:
    """The terminal, or a wide page where there is none."""
    found = Console(highlight=False)
    if not found.is_terminal:
        found.width = WIDTH
    return found


def simple(columns: Sequence[tuple[str, str]], *, wrap: bool = False) -> Table:
    """A table without rows yet: (name, "left" or "right") for each column."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", padding=(0, 1))
    for name, justify in columns:
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=not wrap, overflow="fold")
    return table


def _table(rows: list[tuple[Text, ...]], columns: int) -> Table:
    table = simple(COLUMNS[:columns])
    for row in rows:
        table.add_row(*row[:columns])
    return table


def _row(model: str, result: Record, seconds: float | None) -> tuple[Text, ...]:
    change = span(result, "vs_previous", "ci95")
    clear = change is not None and (change.low > 0 or change.high < 0)
    delta = finite(result, "vs_previous", "delta")
    style = "" if not clear or delta is None else "bold green" if delta > 0 else "bold red"
    return (
        Text(label(model), "bold"),
        Text(show(finite(result, "score"), "share"), "bold"),
        Text(_interval(result)),
        Text(show(finite(result, "format", "score"), "share")),
        Text(show(finite(result, "found", "score"), "share")),
        Text(_or_nothing(delta, points), style),
        Text(f"[{points(change.low)}, {points(change.high)}]" if change else "", style),
        Text(_or_nothing(finite(result, "vs_previous", "format_gain"), points)),
        Text(_or_nothing(finite(result, "vs_previous", "task_gain"), points)),
        Text(_or_nothing(seconds, duration)),
    )


def _interval(result: Record) -> str:
    found = span(result, "ci95")
    return f"[{found.low * 100:.1f}, {found.high * 100:.1f}]" if found else MISSING


def _or_nothing(value: float | None, say: Any) -> str:
    return "" if value is None else str(say(value))


def _drawn(result: Record) -> Iterator[str]:
    """avg@k and pass@k, where several answers were drawn."""
    for key, name in (("avg_at_k", "avg"), ("pass_at_k", "pass")):
        found = at(result, key)
        if found:
            yield f"{name}@{found['k']} {show(finite(found, 'score'), 'share')} {_interval(found)}"
