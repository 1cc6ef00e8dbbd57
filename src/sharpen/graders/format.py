"""`format`: the completion consists of tags in order, such as `<think>…</think><answer>…</answer>`."""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.config.graders import Format
from sharpen.graders.foreign import whole
from sharpen.graders.template import InvalidVariable, render
from sharpen.types import Example, Grade, Sample


class FormatGrader:
    """1 or 0; `metrics["format"]`: the form is right; with an `answer_tag`, `found`: the last such tag holds it.

    A tag `think` stands around the thoughts of a reasoning model.
    """

    def __init__(self, config: Format) -> None:
        self._config = config

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Look for the tags, and compare the answer where one is asked for."""
        config = self._config
        text = whole(sample) if "think" in config.tags else sample.text
        fault = wrong(text, config.tags, config.strict)
        form = float(not fault)
        if not config.answer_tag:
            return Grade(form, {"format": form}, fault or "the tags are in order")
        try:
            expected = render(config.reference, example, sample).strip()
        except InvalidVariable as error:
            return error.grade()
        given = last(text, config.answer_tag)
        right = given is not None and given.strip() == expected
        said = fault or f"{given!r:.200} {'equals' if right else 'is not'} {expected!r:.200}"
        return Grade(float(right and not fault), {"format": form, "found": float(right)}, said)


def wrong(text: str, tags: Sequence[str], strict: bool) -> str:
    """What is wrong with the form of a text; empty when nothing is."""
    place, outside = 0, []
    for tag in tags:
        for mark in (f"<{tag}>", f"</{tag}>"):
            if (count := text.count(mark)) != 1:
                return f"{mark} occurs {count} times, not once"
            at = text.index(mark)
            if at < place:
                return f"{mark} stands before what it should follow"
            if not mark.startswith("</"):
                outside.append(text[place:at])
            place = at + len(mark)
    left = "".join([*outside, text[place:]]).strip()
    return f"text outside the tags: {left!r:.100}" if strict and left else ""


def last(text: str, tag: str) -> str | None:
    """The text in the last tag of this name that is closed; None where there is none."""
    before, closing, _ = text.rpartition(f"</{tag}>")
    _, opening, within = before.rpartition(f"<{tag}>")
    return within if closing and opening else None
