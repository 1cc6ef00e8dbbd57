"""Training completions: what the policy tried, what it was paid, and what it learned from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sharpen.reports.glossary import term
from sharpen.reports.markup import Html, folded, join, tag
from sharpen.reports.numbers import MISSING, finite, show
from sharpen.reports.read import Record, Run, fault_of, jsonl, label, text_of
from sharpen.reports.samples import messages, said

GROUPS, TRIES, STAGES = 2, 8, 3


def section(run: Run) -> Html:
    """Groups of the first, the middle and the last step of each stage that samples."""
    stages = [(stage.name, run.rollouts(stage.name)) for stage in run.stages]
    sampled = [(name, files) for name, files in stages if files][-STAGES:]
    return join(_stage(run, name, files) for name, files in sampled)


def _stage(run: Run, name: str, files: Sequence[Path]) -> Html:
    chosen = dict.fromkeys((files[0], files[(len(files) - 1) // 2], files[-1]))
    rule = (
        f"The first {GROUPS} prompts of the first, the middle and the last recorded step, "
        f"up to {TRIES} completions each. "
        "The policy learns from the advantage: above zero a completion becomes likelier, below zero rarer."
    )
    steps = (_step(file) for file in chosen)
    return folded(
        f"Training rollouts of {label(name)}",
        tag("p", rule, class_="rule"),
        *steps,
        class_=f"rollouts {run.colour(name)}",
    )


def _step(file: Path) -> Html:
    groups: dict[str, list[Record]] = {}
    for record in jsonl(file)[0]:
        groups.setdefault(text_of(record.get("example")), []).append(record)
    shown = list(groups.values())[:GROUPS]
    number = file.stem.removeprefix("step-").lstrip("0") or "0"
    return tag("section", tag("h4", f"Step {number}"), *(_group(group) for group in shown))


def _group(group: Sequence[Record]) -> Html:
    names = (term("reward"), term("advantage"), term("tokens"), "Completion")
    head = tag("tr", *(tag("th", name, scope="col") for name in names))
    rows = [
        tag(
            "tr",
            tag("td", show(finite(record, "reward"))),
            tag("td", _signed(finite(record, "advantage")), class_=_side(finite(record, "advantage"))),
            tag("td", _tokens(record)),
            tag("td", said(record, limit=800), _remark(record)),
        )
        for record in group[:TRIES]
    ]
    more = len(group) - TRIES
    rest = (
        tag("p", f"{more} more completions of this prompt are in the run directory.", class_="none") if more > 0 else ""
    )
    prompt = tag("div", messages(group[0].get("prompt")), class_="prompt")
    return tag("article", prompt, tag("table", tag("thead", head), tag("tbody", *rows)), rest)


def _tokens(record: Record) -> str:
    tokens = record.get("tokens")
    number = len(tokens) if isinstance(tokens, list) else finite(record, "tokens")
    return MISSING if number is None else f"{number:,.0f}"


def _remark(record: Record) -> str:
    scores = record.get("scores")
    named = scores if isinstance(scores, Mapping) and len(scores) > 1 else {}
    parts = [
        *(f"{name} {show(finite(named, name))}" for name in named),
        "cut off at the limit" if record.get("finish") == "length" else "",
        f"fault: {fault_of(record)}" if fault_of(record) else "",
    ]
    text = " · ".join(part for part in parts if part)
    return tag("small", text) if text else ""


def _signed(value: float | None) -> str:
    return show(value) if value is None or value <= 0 else f"+{show(value)}"


def _side(value: float | None) -> str | None:
    return None if not value else "up" if value > 0 else "down"
