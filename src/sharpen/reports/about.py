"""What was run: enough to judge it, pay for it and run it again."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sharpen.reports import probed
from sharpen.reports.curves import alert_text
from sharpen.reports.glossary import term
from sharpen.reports.markup import Html, definitions, folded, join, tag
from sharpen.reports.meanings_of_results import TRIAL
from sharpen.reports.numbers import MISSING, at, count, duration, finite, memory, moment, plain
from sharpen.reports.read import Record, Run, fault_of, faults, label, text_of

EVENTS = 200  # shown at most: the first few and the latest
TRIED = {meaning.name: key for key, meaning in TRIAL.items()} | {"sampler, trainer": "logprob_gap"}
"""By the name of a trial's figure: its meaning."""
RECIPE = 60_000  # characters of the recipe shown at most; inline rows can make it long


def section(run: Run) -> Html:
    """Cost, surroundings, events, faults, the recipe, and how to repeat it."""
    return join(
        [
            tag("div", _facts("Cost", _cost(run)), _facts("Surroundings", _surroundings(run)), class_="facts"),
            _trials(run),
            _faults(run),
            _events(run),
            folded("Recipe, every default written out", tag("pre", _recipe(run))) if run.recipe_text else "",
            tag("h3", "To run it again"),
            tag("pre", _commands(run), class_="commands"),
        ]
    )


def _facts(title: str, rows: Iterable[tuple[str, str]]) -> Html:
    listed = list(rows)
    return tag("div", tag("h3", title), definitions(listed)) if listed else Html("")


def _trials(run: Run) -> Html:
    """What the model got on the prompts of each RFT stage before it was trained on them."""
    last = {text_of(event.get("stage")): event for event in run.events if event.get("event") == "probed"}
    parts: list[Html] = []
    for stage, event in last.items():
        parts += [
            _facts(f"Before {label(stage)}", map(_tried, probed.rows(at(event, "figures") or {}))),
            tag("p", alert_text(event)),
        ]
    return join(parts)


def _tried(row: tuple[str, str]) -> tuple[str, str]:
    return term(TRIED[row[0]], row[0]), row[1]


def _cost(run: Run) -> Iterable[tuple[str, str]]:
    cost: Any = run.summary.get("cost")
    for key in ("seconds", "core_seconds"):
        seconds = finite(cost, key)
        if seconds is not None:
            yield term(key), duration(seconds)
    tokens = at(cost, "tokens")
    for kind in tokens if isinstance(tokens, Mapping) else ():
        yield term("tokens", f"Tokens {kind}"), count(finite(tokens, kind))
    peak = finite(run.summary, "peak_memory_bytes")
    if peak is not None:
        yield term("memory"), memory(peak)


def _surroundings(run: Run) -> Iterable[tuple[str, str]]:
    """The recipe's seed, threads, versions and hardware, wherever its top two levels hold them."""
    for key in ("seed", "threads", "dtype"):
        value = run.recipe.get(key)
        if value is not None:
            yield key.capitalize(), text_of(value)
    isolation = run.summary.get("isolation")
    if isolation:
        yield "Sandbox of graders", text_of(isolation)
    for key in ("hardware", "versions"):
        inner = (at(part, key) for part in run.recipe.values())
        found = run.recipe.get(key) or next((value for value in inner if value), None)
        if isinstance(found, Mapping):
            yield from ((str(name), text_of(value)) for name, value in found.items() if value is not None)
        elif found:
            yield key.capitalize(), text_of(found)


def _faults(run: Run) -> Html:
    rows = [
        (f"{label(stage.name)}, {kind}", number)
        for stage in run.stages
        for kind, number in sorted(faults(stage).items())
    ]
    for name, answers in run.evals.items():
        for model in run.models:
            kinds = Counter(fault for item in answers.get(model, ()) if (fault := fault_of(item)))
            rows += [(f"eval {name}, {label(model)}, {kind}", number) for kind, number in sorted(kinds.items())]
    if not rows:
        return tag("p", tag("b", term("faults"), ": "), "none recorded.", class_="quiet")
    return tag(
        "div",
        tag("h3", term("faults", "Faults by type")),
        definitions((name, f"{number:,}") for name, number in rows),
        class_="faults",
    )


def _events(run: Run) -> Html:
    if not run.events:
        return Html("")
    tally = Counter(text_of(event.get("event")) for event in run.events)
    told = [f"{tally[kind]} {kind}" for kind in ("alert", "paused", "resumed", "interrupted", "failed") if tally[kind]]
    summary = f"{len(run.events):,} events" + (f" ({', '.join(told)})" if told else "")
    head, tail = run.events[: EVENTS // 10], run.events[EVENTS // 10 :][-EVENTS * 9 // 10 :]
    omitted = len(run.events) - len(head) - len(tail)
    gap = [tag("tr", tag("td", f"{omitted:,} events left out", colspan=4, class_="none"))] if omitted else []
    rows = [*map(_event, head), *gap, *map(_event, tail)]
    return folded(summary, tag("table", tag("tbody", *rows), class_="events"))


def _event(event: Record) -> Html:
    time = moment(event.get("time"))
    kind = text_of(event.get("event"))
    step = finite(event, "step")
    place = " ".join([text_of(event.get("stage")), "" if step is None else f"step {plain(step)}"]).strip()
    cells = (f"{time:%Y-%m-%d %H:%M:%S}" if time else MISSING, kind, place, alert_text(event)[:400])
    grave = kind in ("alert", "failed", "paused", "interrupted")
    return tag("tr", *(tag("td", cell) for cell in cells), class_="grave" if grave else None)


def _recipe(run: Run) -> str:
    more = len(run.recipe_text) - RECIPE
    return run.recipe_text[:RECIPE] + (f"\n… {more:,} more characters in recipe.yaml" if more > 0 else "")


def _commands(run: Run) -> str:
    recipe, folder = (shlex.quote(str(path)) for path in (run.path / "recipe.yaml", run.path))
    again = [
        f"sharpen run {recipe}   # the same run again, into a new directory",
        f"sharpen report {folder}   # this page",
    ]
    return "\n".join(again)
