"""The same held-out prompts, answered by every model; chosen by a rule the page states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sharpen.reports.markup import Html, folded, join, long_text, tag
from sharpen.reports.numbers import at, finite, plain
from sharpen.reports.read import Record, Run, fault_of, label, text_of

EVALS = 4  # evals shown with samples at most
MODELS = 6  # answers side by side at most: base and the last five


@dataclass(frozen=True, slots=True)
class Kind:
    """What became of a problem between the last two models, and how many of it to show."""

    name: str
    before: bool
    after: bool
    shown: int


KINDS = (
    Kind("fixed", False, True, 3),
    Kind("still wrong", False, False, 2),
    Kind("lost", True, False, 2),
    Kind("kept right", True, True, 1),
)


RULE = ", ".join(f"{kind.shown} {kind.name}" for kind in KINDS)


class Answer(NamedTuple):
    """Who answered, in which colour, and what (None where nothing is recorded)."""

    name: str
    colour: str
    item: Record | None


def section(run: Run) -> Html:
    """A handful of problems of every eval that at least one model has answered."""
    parts = [_eval(run, name, answers) for name, answers in list(run.evals.items())[:EVALS] if answers]
    if len(run.evals) > EVALS:
        parts.append(tag("p", f"{len(run.evals) - EVALS} more evals are in the run directory.", class_="none"))
    return join(parts) if parts else tag("p", "No answers are recorded yet.", class_="none")


def right(item: Record) -> bool:
    """Whether an answer counts as correct."""
    return finite(item, "correct") == 1


def _eval(run: Run, name: str, answers: Mapping[str, Sequence[Record]]) -> Html:
    models = [model for model in run.models if answers.get(model)]
    models = [*models[:1], *models[1:][-(MODELS - 1) :]]
    if not models:
        return tag("p", f"{name}: no model has answered yet.", class_="none")
    by_id = {model: {text_of(item.get("id")): item for item in answers[model]} for model in models}
    before, after = by_id[models[max(0, len(models) - 2)]], by_id[models[-1]]
    common = [key for key in before if key in after]
    found = {
        kind: [key for key in common if (right(before[key]), right(after[key])) == (kind.before, kind.after)]
        for kind in KINDS
    }
    shown = [(kind, key) for kind in KINDS for key in found[kind][: kind.shown]]
    return tag(
        "div",
        tag("h3", name),
        flow(
            {kind.name: len(keys) for kind, keys in found.items()},
            " to ".join(label(model) for model in models[-2:]),
            len(common),
            f"Shown: the first of each kind in the order of the eval's file ({RULE}), not picked by hand.",
        ),
        *(
            problem(kind.name, [Answer(label(model), run.colour(model), by_id[model].get(key)) for model in models])
            for kind, key in shown
        ),
        class_="samples",
    )


def flow(counts: Mapping[str, int], pair: str, total: int, rule: str) -> Html:
    """How many problems went which way, as a bar, and the rule the samples below were chosen by."""
    place, bars = 0.0, []
    for name, number in counts.items():
        width = 100 * number / (total or 1)
        x, kind = f"{place:.2f}%", name.replace(" ", "-")
        bars.append(tag("rect", x=x, y=0, width=f"{width:.2f}%", height="100%", class_=kind))
        place += width
    keys = (
        tag("span", tag("i"), tag("b", f"{n:,}"), f" {name}", class_=f"key {name.replace(' ', '-')}")
        for name, n in counts.items()
    )
    return tag(
        "div",
        tag(
            "svg",
            *bars,
            class_="flow",
            role="img",
            aria_label=", ".join(f"{n} {name}" for name, n in counts.items()),
        ),
        tag("p", f"{total:,} problems, {pair}: ", *keys, class_="keys"),
        tag("p", rule, class_="rule"),
    )


def problem(kind: str, answers: Sequence[Answer]) -> Html:
    """A prompt and the answers to it, side by side."""
    prompt = next((answer.item.get("prompt") for answer in answers if answer.item is not None), None)
    return tag(
        "article",
        tag("p", kind, class_=f"badge {kind.replace(' ', '-')}"),
        tag("div", messages(prompt), class_="prompt"),
        tag("div", *map(_answer, answers), class_="answers"),
    )


def _answer(answer: Answer) -> Html:
    item = answer.item
    head = [tag("i"), tag("b", answer.name)]
    if item is None:
        return tag(
            "div",
            tag("p", *head),
            tag("p", "(no answer recorded)", class_="none"),
            class_=f"answer {answer.colour}",
        )
    grade = tag("span", "✓ right" if right(item) else "✗ wrong", class_="right" if right(item) else "wrong")
    return tag(
        "div",
        tag("p", *head, grade, class_="who"),
        said(item),
        tag("p", " · ".join(_remarks(item)), class_="remarks"),
        class_=f"answer {answer.colour}",
    )


def _remarks(item: Record) -> list[str]:
    score = finite(item, "score")
    form = finite(item, "format")
    parts = [
        f"score {plain(score)}" if score is not None else "not graded",
        "" if form is None else "in form" if form == 1 else "not in form",
        "cut off at the limit" if item.get("finish") == "length" else "",
        f"fault: {fault_of(item)}" if fault_of(item) else "",
        text_of(item.get("explanation"))[:240],
    ]
    return [part for part in parts if part]


def said(record: Record, limit: int = 1500) -> Html:
    """What the model answered; where it had several turns, those of its environment as well."""
    turns = record.get("messages")
    if not isinstance(turns, list) or len(turns) < 2:
        return join([thoughts(record.get("reasoning"), limit), long_text(text_of(record.get("text")), limit=limit)])
    return tag(
        "div",
        *(
            tag(
                "div",
                tag("small", text_of(at(turn, "role"))),
                thoughts(at(turn, "reasoning_content"), limit),
                long_text(text_of(at(turn, "content")), limit=limit),
            )
            for turn in turns
        ),
        class_="turns",
    )


def thoughts(reasoning: object, limit: int) -> Html:
    """What a reasoning model thought before it answered, folded; nothing where there is nothing."""
    text = text_of(reasoning)
    if not text:
        return Html()
    return folded(f"thoughts, {len(text):,} characters", long_text(text, limit=limit), class_="none")


def messages(prompt: object) -> Html:
    """A prompt's messages; the role is named where there is more than a user's single turn."""
    if not isinstance(prompt, list):
        return long_text(text_of(prompt))
    named = len(prompt) > 1
    return join(
        tag(
            "div",
            *([tag("small", text_of(at(turn, "role")))] if named else []),
            long_text(text_of(at(turn, "content"))),
        )
        for turn in prompt
    )
