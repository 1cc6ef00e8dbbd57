"""`sharpen runs show`: what a person wants to know of a run, on one screen."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sharpen.cli.standing import STYLES, age, described, ended, one, percent, quoted
from sharpen.runs.store import resume_command

if TYPE_CHECKING:
    from rich.table import Table

    from sharpen.reports.read import Run
    from sharpen.runs.listing import Entry

ALERTS = 5
"""So many of the last alerts are shown."""


def show(options: Namespace) -> int:
    """Print a run's state, results, alerts, disk use and next commands."""
    from sharpen.reports.read import read

    entry = one(options.run)
    run = read(options.run)
    alerts = [event for event in run.events if event.get("event") == "alert"]
    if options.json:
        told = {"latest": entry.latest, "alerts": alerts, "next": following(entry, run), "summary": run.summary}
        print(json.dumps({**described(entry), **told}, indent=1, ensure_ascii=False))
    else:
        _print(entry, run, alerts)
    return 0


def following(entry: Entry, run: Run) -> list[str]:
    """Commands that make sense now."""
    from sharpen.reports.numbers import at

    place = quoted(entry.path)
    if entry.state == "running":
        return [f"sharpen runs watch {place}"]
    if entry.state != "finished":
        return [resume_command(entry.path), f"sharpen report {place}"]
    models = [str(at(stage.result, "model")) for stage in run.stages if at(stage.result, "model")]
    chat = [f"sharpen chat {quoted(entry.path / models[-1])}"] if models else []
    return [*chat, f"sharpen report {place}", f"sharpen runs clean {place}"]


def _print(entry: Entry, run: Run, alerts: list[Mapping[str, Any]]) -> None:
    from rich.text import Text

    from sharpen.cli.table import console
    from sharpen.cli.track import StageTrack, event_line, shorten, step_line
    from sharpen.reports.numbers import duration, memory

    screen = console()
    state = entry.state + (f" (process {entry.process})" if entry.process else "")
    screen.print(
        Text.assemble(
            "\n", (str(entry.path), "bold"), "  ", (state, STYLES.get(entry.state, "red")), f"  {entry.model}\n"
        )
    )
    stopped = "" if entry.state in ("running", "finished") else shorten(ended(entry), 400)
    for said in (stopped, entry.trouble, str(run.summary.get("verdict") or "")):
        if said:
            screen.print(Text(said))
    screen.print(_stages(run))
    begun = f"{datetime.fromtimestamp(entry.began):%d %b %Y %H:%M} ({age(entry.began)} ago)" if entry.began else "never"
    parts = ", ".join(f"{name} {memory(size)}" for name, size in entry.disk.items() if size)
    lines = [("begun", f"{begun}, took {duration(entry.seconds)}"), ("disk", f"{memory(entry.bytes)}: {parts}")]
    if entry.latest.get("stage"):
        stage = StageTrack(str(entry.latest["stage"]))
        stage.add(entry.latest)
        lines.append(("latest", step_line(stage)))
    if len(alerts) > ALERTS:
        lines.append(("alerts", f"{len(alerts)}, of which the last {ALERTS}:"))
    lines += [("", shorten(event_line(alert), 300)) for alert in alerts[-ALERTS:]]
    lines += [("next" if not place else "", command) for place, command in enumerate(following(entry, run))]
    for name, text in lines:
        screen.print(Text.assemble((f"{name:<8}", "dim"), text))


def _stages(run: Run) -> Table:
    """A row a model: its steps, its last validation, and its score in each eval."""
    from rich.text import Text

    from sharpen.cli.table import simple
    from sharpen.cli.track import headline, looked
    from sharpen.reports.numbers import at, duration, finite, plain
    from sharpen.reports.read import label

    scores = _evaluated(run)
    evals = list(dict.fromkeys([*(at(run.summary, "base", "evals") or {}), *scores]))
    columns = [("stage", "left"), ("steps", "right"), ("last step", "left"), ("validation", "left")]
    table = simple([*columns, *((name, "left") for name in evals), ("time", "right")])

    def row(model: str, result: Mapping[str, Any], *facts: str, seconds: float | None = None) -> None:
        cells = [_score(at(result, "evals", name), at(scores, name, model)) for name in evals]
        spent = duration(seconds) if seconds else ""
        table.add_row(Text(label(model), "bold"), *map(Text, (*facts, *cells, spent)))

    row("base", at(run.summary, "base") or {}, "", "", "")
    for stage in run.stages:
        last = stage.metrics[-1] if stage.metrics else {}
        looks = [line["validation"] for line in stage.metrics if isinstance(line.get("validation"), Mapping)]
        name, value = headline(last)
        steps = f"{plain(finite(last, 'step') or 0)}/{plain(finite(last, 'steps') or 0)}" if last else ""
        now = f"{name} {plain(value)}" if value is not None else ""
        seen = looked(looks[-1]) if looks else ""
        row(stage.name, stage.result, steps, now, seen, seconds=finite(stage.result, "seconds"))
    return table


def _evaluated(run: Run) -> dict[str, dict[str, float]]:
    """Scores by eval and model, as the events tell them; a run that still goes on has no others."""
    from sharpen.reports.numbers import finite

    found: dict[str, dict[str, float]] = {}
    for event in run.events:
        if event.get("event") == "evaluated" and (score := finite(event, "score")) is not None:
            found.setdefault(str(event.get("eval")), {})[str(event.get("model"))] = score
    return found


def _score(result: Any, told: float | None) -> str:
    from sharpen.reports.numbers import finite, span

    score = finite(result, "score")
    if score is None or (told is not None and told != score):  # evaluated anew since the summary was written
        return percent(told, None) if told is not None else ""
    return percent(score, span(result, "ci95"))
