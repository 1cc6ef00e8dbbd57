"""Under the verdict: what to know of it, what a test of this size can show, and what to type next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sharpen.reports.glossary import marked, term
from sharpen.reports.markup import Html, join, tag
from sharpen.reports.next_commands import next_commands
from sharpen.reports.numbers import at
from sharpen.reports.read import Record, Run, text_of


def headline(summary: Record) -> str:
    """The sentence of scores; of a summary without one, the whole verdict."""
    return text_of(summary.get("headline") or summary.get("verdict"))


def remarks(summary: Record) -> Iterator[tuple[str, bool]]:
    """Each remark's sentence, and whether it changes what the scores mean."""
    found = summary.get("remarks")
    for remark in found if isinstance(found, list) else ():
        if isinstance(remark, Mapping) and remark.get("text"):
            yield text_of(remark["text"]), remark.get("main") is True


def tests(summary: Record) -> list[str]:
    """What the test of each eval can show; its name stands before it where there are several."""
    found = summary.get("detectable")
    named = found.items() if isinstance(found, Mapping) else ()
    said = {text_of(name): text_of(at(test, "text")) for name, test in named}
    return [f"{name}: {text}" if len(said) > 1 else text for name, text in said.items() if text]


def section(run: Run) -> Html:
    """All of it; the headline itself stands above."""
    listed = [tag("li", marked(text), class_="main" if main else None) for text, main in remarks(run.summary)]
    limits = " ".join(tests(run.summary))
    commands = next_commands(run.path, run.recipe, run.summary, run.state)
    rows = (tag("div", tag("dt", why), tag("dd", tag("code", line))) for line, why in commands)
    return join(
        [
            tag("ul", *listed, class_="findings") if listed else "",
            tag("p", term("detectable"), ": ", limits, class_="limit") if limits else "",
            tag("h3", "Next"),
            tag("dl", *rows, class_="next"),
        ]
    )
