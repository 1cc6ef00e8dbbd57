"""A number's name with its meaning on hover, focus or touch, and the list of meanings at the page's end; no scripts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sharpen.reports.markup import Html, folded, join, tag
from sharpen.reports.meaning import Meaning
from sharpen.reports.meanings import GROUPS, MEANINGS

CODE = re.compile(r"`([^`]+)`")


def term(key: str, name: str | None = None) -> Html:
    """The name of a number, as `meanings` or the caller writes it, with its tooltip.

    What a screen reader tells of it is its entry in the list of meanings, so that no id stands twice on a page.
    """
    meaning = MEANINGS[key]
    return tag(
        "span",
        name or meaning.name,
        tag("span", *_said(meaning), class_="tip", aria_hidden="true"),
        class_="term",
        tabindex=0,
        aria_describedby=_anchor(key),
    )


def listing(parts: Iterable[str]) -> Html:
    """The meanings of all terms in these parts of a page, folded; nothing where there are none."""
    body = "".join(parts)
    groups = []
    for title, group in GROUPS.items():
        used = [(key, meaning) for key, meaning in group.items() if f'aria-describedby="{_anchor(key)}"' in body]
        rows = (
            tag("div", tag("dt", meaning.name), tag("dd", *_said(meaning)), id=_anchor(key)) for key, meaning in used
        )
        if used:
            groups += [tag("h3", title), tag("dl", *rows)]
    title = "Each with its healthy range, and what to do outside of it"
    return folded(title, *groups, class_="meanings") if groups else Html("")


def marked(text: str) -> Html:
    """What stands between backticks as code."""
    return join(tag("code", part) if place % 2 else part for place, part in enumerate(CODE.split(text)))


def _said(meaning: Meaning) -> list[Html]:
    """Meaning, range, remedy and source, a line each."""
    lines = [("", meaning.text), ("Healthy: ", f"{meaning.healthy}."), ("Else: ", meaning.remedy)]
    lines.append(("Source: ", f"{meaning.source}." if meaning.source else ""))
    return [tag("span", tag("b", lead) if lead else "", marked(text)) for lead, text in lines if text]


def _anchor(key: str) -> str:
    return f"meaning-{key}"
