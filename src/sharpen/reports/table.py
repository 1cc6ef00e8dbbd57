"""What it was worth: base -> SFT -> RFT on every eval, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sharpen.reports import classes
from sharpen.reports.glossary import term
from sharpen.reports.markup import Html, join, tag
from sharpen.reports.numbers import MISSING, at, count, duration, finite, plain, points, show, span
from sharpen.reports.plots import whisker
from sharpen.reports.read import Record, Run, label
from sharpen.reports.scale import ticks

EXPLANATION = (
    "Brackets and whiskers are 95% intervals; a change in bold has its paired interval clear of zero. Task gain and "
    "format gain add up to the change. What each column means stands behind its name, and at the end of the page."
)


def section(run: Run) -> Html:
    """One table for each eval."""
    names = list(dict.fromkeys([*_names(run.summary.get("base")), *_later_names(run), *run.evals]))
    if not names:
        return tag("p", "No evaluation is recorded yet.", class_="none")
    return join([*(_eval(run, name) for name in names), tag("p", EXPLANATION, class_="explained")])


def result(run: Run, model: str, name: str) -> Record:
    """What the summary says of a model on an eval; without that, shares of its answers, no intervals."""
    stage: Any = next((stage.result for stage in run.stages if stage.name == model), run.summary.get("base"))
    found = at(stage, "evals", name)
    if isinstance(found, Mapping):
        return found
    items = run.evals.get(name, {}).get(model, ())
    return (
        {"score": _share(items, "correct"), "n": len(items), "format": {"score": _share(items, "format")}}
        if items
        else {}
    )


def _names(part: object) -> list[str]:
    evals = at(part, "evals")
    return list(evals) if isinstance(evals, Mapping) else []


def _later_names(run: Run) -> list[str]:
    return [name for stage in run.stages for name in _names(stage.result)]


def _share(items: Sequence[Record], key: str) -> float | None:
    values = [value for item in items if (value := finite(item, key)) is not None]
    return sum(values) / len(values) if values else None


def _eval(run: Run, name: str) -> Html:
    results = {model: result(run, model, name) for model in run.models}
    highest = max(
        max(finite(entry, "score") or 0, interval.high if (interval := span(entry, "ci95")) else 0)
        for entry in results.values()
    )
    scale = ticks(0, highest or 1)
    head = ("Model", term("accuracy"), axis(scale), term("problems"), term("in_form"), term("found"))
    gains = (term("change", "Change, points"), *map(term, ("format_gain", "task_gain", "seconds", "tokens")))
    header = tag("tr", *(tag("th", cell, scope="col") for cell in (*head, *gains)))
    rows = [_row(run, model, entry, scale) for model, entry in results.items()]
    return tag(
        "div",
        tag("h3", name),
        tag("table", tag("thead", header), tag("tbody", *rows), class_="results"),
        _drawn(results),
        *(classes.section(run.evals.get(name, {}).get(model, ()), label(model)) for model in run.models),
        class_="eval",
    )


def axis(scale: Sequence[float]) -> Html:
    """The head of a column of whiskers."""
    labels = (
        tag(
            "text",
            f"{tick * 100:g}%",
            x=f"{tick / scale[-1] * 100:.1f}%",
            y="70%",
            class_="tick",
            text_anchor=anchor,
        )
        for tick, anchor in zip(scale, ["start", *["middle"] * (len(scale) - 2), "end"], strict=True)
    )
    return tag("svg", *labels, class_="axis", aria_hidden="true")


def _row(run: Run, model: str, entry: Record, axis: Sequence[float]) -> Html:
    stage = next((stage for stage in run.stages if stage.name == model), None)
    score, interval = finite(entry, "score"), span(entry, "ci95")
    accuracy = tag("b", show(score, "share"))
    picture: str = ""
    if score is not None:
        low, high = interval or (score, score)
        said = f"{label(model)}: {show(score, 'share')}"
        said += f", 95% interval {show(low, 'share')} to {show(high, 'share')}" if interval else ", no interval yet"
        picture = whisker(score, low, high, axis, said)
    bracket = f" [{low * 100:.1f}, {high * 100:.1f}]" if interval and score is not None else ""
    cells = [
        ("Accuracy", join([accuracy, tag("small", bracket)])),
        ("", picture),
        ("Problems", count(finite(entry, "n"))),
        ("In form", show(finite(entry, "format", "score"), "share")),
        ("Found", show(finite(entry, "found", "score"), "share")),
        ("Change, points", _change(entry)),
        ("Format gain", points(finite(entry, "vs_previous", "format_gain"))),
        ("Task gain", points(finite(entry, "vs_previous", "task_gain"))),
        ("Time", _seconds(stage.result if stage else {})),
        ("Tokens", _tokens(stage.result if stage else {})),
    ]
    head = tag("th", tag("i"), label(model), scope="row")
    body = (tag("td", text, data_label=name, class_=None if name else "picture") for name, text in cells)
    return tag("tr", head, *body, class_=run.colour(model))


def _change(entry: Record) -> str:
    delta, interval = finite(entry, "vs_previous", "delta"), span(entry, "vs_previous", "ci95")
    if delta is None:
        return MISSING
    clear = interval is not None and (interval.low > 0 or interval.high < 0)
    bracket = f" [{points(interval.low)}, {points(interval.high)}]" if interval else ""
    return join([tag("b" if clear else "span", points(delta)), tag("small", bracket)])


def _seconds(outcome: Record) -> str:
    seconds = finite(outcome, "seconds")
    return MISSING if seconds is None else duration(seconds)


def _tokens(outcome: Record) -> str:
    kinds = [(kind, finite(outcome, "tokens", kind)) for kind in ("sampled", "trained")]
    parts = (tag("span", count(value), tag("small", f" {kind}"), class_="line-of") for kind, value in kinds if value)
    return join(parts) or MISSING


def _drawn(results: Mapping[str, Record]) -> Html:
    """avg@k and pass@k, where several answers were drawn."""
    said = [f"{label(model)}: " + ", ".join(parts) for model, entry in results.items() if (parts := list(_at_k(entry)))]
    if not said:
        return Html("")
    return tag("p", term("at_k"), ", of answers drawn at temperature: ", "; ".join(said), ".", class_="drawn")


def _at_k(entry: Record) -> Iterable[str]:
    for key, name in (("avg_at_k", "avg"), ("pass_at_k", "pass")):
        found = entry.get(key)
        if not isinstance(found, Mapping):
            continue
        sizes = {plain(k): found for k in [finite(found, "k")] if k} or found
        for k, value in sizes.items():
            score = finite(value, "score") if isinstance(value, Mapping) else finite(found, k)
            if score is not None:
                yield f"{name}@{k} {show(score, 'share')}"
