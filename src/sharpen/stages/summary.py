"""summary.json: what came out of a run, computed from the run directory's own files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.config.recipe import Recipe
from sharpen.config.stages import Stage
from sharpen.runs.ledger import Ledger
from sharpen.runs.memory import peak_memory
from sharpen.runs.statistics import gains, interval, paired_detectable, paired_difference, pass_at_k
from sharpen.runs.store import read_lines, write_text
from sharpen.stages.verdict import verdict

Lines = Sequence[dict[str, Any]]


def write(run: Path, recipe: Recipe, status: str, seconds: float) -> dict[str, Any]:
    """Compute and write summary.json; `seconds` is what this process spent, added to earlier ones'."""
    earlier = _read(run / "summary.json")
    spent = earlier.get("cost", {}).get("seconds", 0.0) + seconds
    stages = [stage for stage in (_stage(run, recipe, index) for index in range(len(recipe.stages))) if stage]
    tokens = {kind: sum(stage["tokens"][kind] for stage in stages) for kind in ("sampled", "trained")}
    summary: dict[str, Any] = {
        "schema_version": 1,
        "status": status,
        "model": recipe.model,
        "seed": recipe.seed,
        "verdict": "",
        "headline": "",
        "remarks": [],
        "detectable": {},
        "base": {"evals": _evals(run, recipe, "base", None)},
        "stages": stages,
        "cost": {
            "seconds": round(spent, 1),
            "core_seconds": round(spent * (recipe.threads or 1), 1),
            "tokens": tokens,
            "judges": {grader: asdict(spent) for grader, spent in Ledger(run / "judges.jsonl").spent.items()},
        },
        "isolation": _isolation(run),
        "peak_memory_bytes": max(earlier.get("peak_memory_bytes", 0), peak_memory()),
    }
    summary |= verdict(run, recipe, summary)
    write_text(run / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _isolation(run: Path) -> str | None:
    """Behind which walls graders were run: the weakest of the run; None where none were."""
    found = {line["isolation"] for line in read_lines(run / "events.jsonl") if line["event"] == "sandbox"}
    return next((weak for weak in ("none", "reduced", "full") if weak in found), None)


def score(lines: Lines) -> dict[str, Any]:
    """Accuracy, share in form, share cut off, avg@k and pass@k of an eval's items, with intervals over items."""
    correct = [line["correct"] for line in lines]
    forms = [line["format"] for line in lines if line["format"] is not None]
    found = [line["found"] for line in lines if line["found"] is not None]
    drawn = [[sample["correct"] for sample in line["samples"]] for line in lines]
    k = min(map(len, drawn))
    shares = [sum(row) / k for row in drawn] if k else []
    passes = [pass_at_k(len(row), sum(row), k) for row in drawn] if k else []
    return {
        **_mean(correct),
        "n": len(lines),
        "format": _mean(forms) if len(forms) == len(lines) else None,
        "found": _mean(found) if len(found) == len(lines) else None,
        "truncated_share": sum(line.get("finish") == "length" for line in lines) / len(lines),
        "avg_at_k": {"k": k, **_mean(shares)} if k else None,
        "pass_at_k": {"k": k, **_mean(passes)} if k else None,
    }


def versus(before: Lines, after: Lines) -> dict[str, Any]:
    """The paired difference of two models' accuracies on the same items, and what it is made of.

    Where the grader says whether the right answer stands anywhere in a completion, accuracy is
    P(found) × P(in form | found), and the task gain is that of the first factor; else it is
    P(in form) × P(right | in form), and the task gain is that of the second.
    """
    assert [line["id"] for line in before] == [line["id"] for line in after]

    def column(lines: Lines, name: str) -> list[Any]:
        return [line[name] for line in lines]

    right = column(before, "correct"), column(after, "correct")
    difference = paired_difference(*right)
    result = {
        "delta": difference.delta,
        "ci95": list(difference.ci95),
        "detectable": paired_detectable(*right),
        "format_gain": None,
        "task_gain": None,
    }
    for factor, own, other in (("found", "task_gain", "format_gain"), ("format", "format_gain", "task_gain")):
        known = column(before, factor), column(after, factor)
        if None not in known[0] and None not in known[1]:
            result[own], result[other] = gains(known[0], right[0], known[1], right[1])
            break
    return result


def eval_path(run: Path, name: str, model: str) -> Path:
    """Where the items of an eval of a model stand."""
    return run / "evals" / name / f"{model}.jsonl"


def _stage(run: Path, recipe: Recipe, index: int) -> dict[str, Any] | None:
    stage = recipe.stages[index]
    manifest = _read(run / "models" / stage.name / "manifest.json")
    if not manifest:
        return None
    before = recipe.parent(index)
    previous = "base" if before is None else recipe.stages[before].name
    pairs = None if stage.makes_policy else preferred(run, stage)
    return {
        "name": stage.name,
        "type": stage.type,
        "model": f"models/{stage.name}",
        "seconds": manifest["seconds"],
        "tokens": manifest["tokens"],
        "evals": _evals(run, recipe, stage.name, previous),
        **({"pairs": pairs} if pairs else {}),
    }


def preferred(run: Path, stage: Stage) -> dict[str, Any] | None:
    """The share of held-out pairs of which a reward model scores the better answer higher, with its interval over
    pairs; None where there were none."""
    lines = [line for line in read_lines(run / "metrics.jsonl") if line["stage"] == stage.name]
    looks = [line["validation"] for line in lines if "validation" in line]
    if not looks:
        return None
    look = min(looks, key=lambda look: look["loss"]) if stage.final == "best" else looks[-1]
    right = round(look["n"] * look["rewards"]["accuracies"])
    return {**_mean([1.0] * right + [0.0] * (look["n"] - right)), "n": look["n"]}


def _evals(run: Path, recipe: Recipe, model: str, previous: str | None) -> dict[str, Any]:
    results = {}
    for config in recipe.evals:
        lines = read_lines(eval_path(run, config.name, model))
        if lines:
            results[config.name] = score(lines)
            if previous:
                results[config.name]["vs_previous"] = versus(read_lines(eval_path(run, config.name, previous)), lines)
    return results


def _mean(values: Sequence[float]) -> dict[str, Any]:
    return {"score": float(np.mean(values)), "ci95": list(interval(values))}


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}
