"""The report: one page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from sharpen.reports import about, curves, glossary, outcome, rollouts, samples, table
from sharpen.reports.markup import Html, join, tag
from sharpen.reports.numbers import duration, finite, moment, plain
from sharpen.reports.read import Run, read, text_of

STATES = {
    "finished": "finished",
    "failed": "failed",
    "interrupted": "interrupted",
    "paused": "paused",
    "unfinished": "not finished",
}


def write(run_dir: Path) -> Path:
    """Write `report.html` into a run directory, finished or not, and return its path.

    The same directory gives the same bytes. Raises `RunError` where there is no such folder.
    """
    path = run_dir / "report.html"
    replace(path, page(read(run_dir)))
    return path


def replace(path: Path, text: str) -> None:
    """Write a page, whole or not at all."""
    draft = path.with_suffix(".html.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def page(run: Run) -> str:
    """The whole document."""
    name, model = run.path.resolve().name, _model(run)
    header = _header(run, name, model)
    return document(f"{name}: {model}", header, tag("main", *_sections(run, header)), _footer(run))


def document(title: str, *body: Html) -> str:
    """A page that needs nothing but itself. Its policy lets nothing load and no script run but our own."""
    style, script = _asset("style.css"), _asset("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = join(
        [
            Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            tag("title", title),
            tag("style", Html(style)),
        ]
    )
    whole = tag("html", tag("head", head), tag("body", *body, tag("script", Html(script))), lang="en")
    return f"<!doctype html>\n{whole}\n"


def sections(contents: Iterable[tuple[str, str, Html]], header: Html) -> list[Html]:
    """The parts of a page, (title, anchor, what stands there), and what the numbers in them and the header mean."""
    shown = [tag("section", tag("h2", title), body, id=anchor) for title, anchor, body in contents]
    meanings = glossary.listing([header, *shown])
    return [*shown, tag("section", tag("h2", "What the numbers mean"), meanings, id="meanings")] if meanings else shown


def _sections(run: Run, header: Html) -> list[Html]:
    contents = (
        ("Results", "results", table.section(run)),
        ("Training", "training", curves.section(run)),
        ("Samples", "samples", join([samples.section(run), rollouts.section(run)])),
        ("What was run", "about", about.section(run)),
    )
    return sections(contents, header)


def _header(run: Run, name: str, model: str) -> Html:
    began = moment(run.last("started").get("time")) or next(
        (time for event in run.events if (time := moment(event.get("time")))), None
    )
    seconds = finite(run.summary, "cost", "seconds")
    facts = [
        tag("span", STATES[run.state], class_=f"state {run.state}"),
        tag("span", model),
        tag("span", f"{began.day} {began:%B %Y, %H:%M} UTC") if began else "",
        tag("span", duration(seconds)) if seconds is not None else "",
    ]
    return tag(
        "header",
        tag("p", *facts, class_="facts-line"),
        tag("h1", name),
        tag("p", _verdict(run), class_="verdict"),
        outcome.section(run),
        tag("button", "◐", type="button", title="light or dark", hidden=""),
    )


def _verdict(run: Run) -> str:
    """The summary's headline; on a run without one, what is known of where it stands."""
    if run.state == "finished":
        return outcome.headline(run.summary) or "The run has finished; its summary holds no verdict."
    where = _progress(run)
    event = run.last("failed", "paused", "interrupted") if run.state != "unfinished" else {}
    cause = curves.alert_text(event)
    stand = {
        "failed": f"The run failed {where}",
        "paused": f"The run is paused {where}",
        "interrupted": f"The run was interrupted {where}",
        "unfinished": f"No verdict yet: the run is at work, or was killed, {where}",
    }[run.state]
    return f"{stand}{': ' + cause if cause else ''}".rstrip(".") + "."


def _progress(run: Run) -> str:
    begun = [stage for stage in run.stages if stage.metrics]
    if not begun:
        return "before its first training step"
    last = begun[-1].metrics[-1]
    step, steps = finite(last, "step") or 0, finite(last, "steps")
    return f"at step {plain(step)}{f' of {plain(steps)}' if steps else ''} of stage {begun[-1].name}"


def _model(run: Run) -> str:
    return text_of(run.summary.get("model") or run.recipe.get("model")) or "unknown model"


def _footer(run: Run) -> Html:
    note = f" {run.unreadable} unreadable or half-written lines were left out." if run.unreadable else ""
    return tag("footer", f"Made by sharpen from {run.path.resolve().name}/ alone.{note}")


def _asset(name: str) -> str:
    return resources.files("sharpen.reports").joinpath(name).read_text(encoding="utf-8")
