"""Run directories with numbers made up for a rule of the verdict, and what the summary says of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharpen.config.load import parse
from sharpen.config.recipe import Recipe
from sharpen.stages import summary

GRADER = {"type": "string_check", "operation": "eq"}
ROWS = {"path": "rows.jsonl"}


def recipe(*stages: dict[str, Any], **held_out: Any) -> Recipe:
    """Stages on rows that nobody reads, and one eval."""
    evals = [{"name": "held_out", "data": ROWS, "grader": GRADER, "max_tokens": 16, **held_out}]
    return parse({"model": "m", "stages": [{"data": ROWS, **stage} for stage in stages], "evals": evals})


def rft(**changes: Any) -> dict[str, Any]:
    """Sixteen prompts, twice each."""
    return {"type": "rft", "grader": GRADER, "prompts_per_step": 16, "group_size": 2, **changes}


def answers(correct: Sequence[int], **columns: Sequence[Any]) -> list[dict[str, Any]]:
    """The items of an eval; columns replace the defaults."""
    plain: dict[str, Any] = {"format": None, "found": None, "finish": "stop", "samples": []}
    return [
        {"id": str(index), "correct": right, **plain, **{name: column[index] for name, column in columns.items()}}
        for index, right in enumerate(correct)
    ]


def shares(*counts: int, n: int = 200) -> list[list[dict[str, Any]]]:
    """Models that get the first so many of n problems right."""
    return [answers([1] * count + [0] * (n - count)) for count in counts]


def step(number: int, **changes: Any) -> dict[str, Any]:
    """A line of metrics of a healthy RFT stage."""
    return {
        "stage": "rft",
        "type": "rft",
        "step": number,
        "loss": 0.0,
        "reward": {"mean": 0.5},
        "no_spread_share": 0.4,
        "kl": 0.1,
        "length": {"truncated_share": 0.0},
        "logprob_gap": {"mean": 0.01},
        "policy_lag": 0,
        "faults": {},
        **changes,
    }


def rollouts(prompts: Sequence[int], right: float, **changes: Any) -> list[dict[str, Any]]:
    """Two completions of each prompt; the first `right` share of the prompts is right both times."""
    scores = [float(place < right * len(prompts)) for place in range(len(prompts))]
    line = {"fault": None, **changes}
    return [
        {"example": str(prompt), "prompt": [{"content": str(prompt)}], "scores": {"score": score}, **line}
        for prompt, score in zip(prompts, scores, strict=True)
        for _ in range(2)
    ]


def told(
    run: Path,
    recipe: Recipe,
    models: Sequence[list[dict[str, Any]]],
    metrics: Sequence[dict[str, Any]] = (),
    steps: dict[int, list[dict[str, Any]]] | None = None,
    events: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The summary of a run that ended so: answers of base and stages, metrics, and rollouts by step."""
    names = [stage.name for stage in recipe.stages]
    for name, lines in zip(("base", *names), models, strict=False):
        jsonl(run / "evals/held_out" / f"{name}.jsonl", lines)
    for name in names:
        folder = run / "models" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"seconds": 1.0, "tokens": {"sampled": 0, "trained": 0}}))
    jsonl(run / "metrics.jsonl", metrics)
    jsonl(run / "events.jsonl", events)
    for number, lines in (steps or {}).items():
        jsonl(run / f"rollouts/rft/step-{number:05d}.jsonl", lines)
    return summary.write(run, recipe, "finished", 1.0)


def jsonl(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Written without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def kinds(summary: dict[str, Any]) -> list[str]:
    """What was remarked."""
    return [remark["kind"] for remark in summary["remarks"]]
