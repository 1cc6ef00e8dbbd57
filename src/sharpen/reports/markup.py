"""HTML that escapes by default: only what `tag` made goes into a page as it is."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Html(str):
    """Text that is HTML already; a plain `str` is data, and gets escaped."""

    __slots__ = ()


def join(parts: Iterable[str]) -> Html:
    """The parts one after the other, data among them escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: object) -> Html:
    """One element. `class_` writes `class`, `data_x` writes `data-x`; an attribute of None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def folded(summary: str, *children: str, **attributes: object) -> Html:
    """A block that opens on click."""
    return tag("details", tag("summary", summary), *children, **attributes)


HEAD = 260
"""Characters of a long text that stand on the page before it is opened."""


def long_text(text: str, *, limit: int = 1500) -> Html:
    """A text as it was written; a long one shows its head and opens on click, up to `limit` characters."""
    if not text.strip():
        return tag("p", "(empty)" if not text else "(only white space)", class_="text none")
    if len(text) <= HEAD * 1.3:
        return tag("div", text, class_="text")
    rest = len(text) - limit
    cut = tag("span", f" … {rest:,} more characters in the run directory", class_="none") if rest > 0 else ""
    head = tag("summary", tag("span", text[:HEAD].rstrip() + " …", class_="head"), tag("span", class_="more"))
    return tag("details", head, tag("div", text[:limit], cut), class_="text long")


def definitions(rows: Iterable[tuple[str, str]]) -> Html:
    """Names and their values."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in rows))
