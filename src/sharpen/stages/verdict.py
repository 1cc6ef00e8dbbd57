"""What a run was worth, in words and as data, computed from the run directory's own files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpen.config.recipe import Recipe
from sharpen.stages.remarks import RULES, percent, points, seen
from sharpen.stages.symptoms import symptoms


def verdict(run: Path, recipe: Recipe, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of summary.json that are words: `verdict`, `headline`, `remarks` and `detectable`.

    The verdict is the headline and all remarks that change what it means; the others are for whoever reads on.
    """
    found = [remark for one in seen(recipe.evals, summary) for rule in RULES for remark in rule(one)]
    found += symptoms(run, recipe, summary)
    remarks = [remark for remark in found if remark.main] + [remark for remark in found if not remark.main]
    said = headline(summary)
    return {
        "verdict": " ".join([said, *(remark.text for remark in remarks if remark.main)]),
        "headline": said,
        "remarks": [remark.line() for remark in remarks],
        "detectable": detectable(summary),
    }


def headline(summary: Mapping[str, Any]) -> str:
    """A sentence on the first eval: every model's score, and every stage's paired difference with its interval; and
    one on what each reward model says of held-out pairs."""
    said = [sentence for sentence in (_scores(summary), *map(_pairs, summary["stages"])) if sentence]
    return (
        " ".join(said) or "No held-out problems were given, so nothing can be said about what the training was worth."
    )


def _pairs(stage: Mapping[str, Any]) -> str:
    found = stage.get("pairs")
    if not found:
        return ""
    low, high = (100 * bound for bound in found["ci95"])
    share = f"{percent(found['score'])} [{low:.1f}, {high:.1f}]"
    of = f"{share} of {found['n']} held-out pairs"
    return f"{stage['name'].upper()} gives the better of two answers the higher score in {of}."


def _scores(summary: Mapping[str, Any]) -> str:
    evals = summary["base"]["evals"]
    if not evals:
        return ""
    name = next(iter(evals))
    parts = [f"the base model gets {percent(evals[name]['score'])} right"]
    for stage in summary["stages"]:
        result = stage["evals"].get(name)
        if not result:
            continue
        low, high = (100 * bound for bound in result["vs_previous"]["ci95"])
        change = f"{100 * result['vs_previous']['delta']:+.1f} points [{low:+.1f}, {high:+.1f}]"
        word = "raises this to" if low > 0 else "lowers this to" if high < 0 else "makes no measurable difference at"
        parts.append(f"{stage['name'].upper()} {word} {percent(result['score'])} ({change})")
    return f"On {evals[name]['n']} held-out problems {'; '.join(parts)}."


def detectable(summary: Mapping[str, Any]) -> dict[str, Any]:
    """By eval: the smallest difference that its test could show, from the last stage's pairs; none without a stage."""
    found: dict[str, Any] = {}
    for stage in summary["stages"]:
        for name, result in stage["evals"].items():
            least, n = result["vs_previous"]["detectable"], result["n"]
            what = f"differences of about {points(least)} or more" if least < 1 else "no difference: it is too small"
            text = f"A test of {n} problems can show {what}."
            found[name] = {"difference": least, "n": n, "stage": stage["name"], "power": 0.8, "text": text}
    return found
