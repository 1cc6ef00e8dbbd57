"""A run directory as it stands: whatever is missing or half-written is simply not there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sharpen.errors import RunError
from sharpen.reports.numbers import at, finite

Record = Mapping[str, Any]
ENDINGS = ("finished", "failed", "interrupted", "paused")
LIFE = ("started", "resumed", *ENDINGS)


@dataclass(frozen=True, slots=True)
class Stage:
    """A training stage: what the recipe, the summary and the metrics know of it."""

    name: str
    type: str
    result: Record
    metrics: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Everything the report shows; `evals[NAME][MODEL]` are the answers item by item."""

    path: Path
    recipe: Record
    recipe_text: str
    events: tuple[Record, ...]
    stages: tuple[Stage, ...]
    summary: Record
    evals: Mapping[str, Mapping[str, tuple[Record, ...]]]
    unreadable: int

    @property
    def models(self) -> tuple[str, ...]:
        """`base`, then each stage's name."""
        return ("base", *(stage.name for stage in self.stages))

    @property
    def state(self) -> str:
        """One of `finished failed interrupted paused unfinished`."""
        if at(self.summary, "status") == "finished":
            return "finished"
        last = str(self.last(*LIFE).get("event"))
        return last if last in ENDINGS else "unfinished"

    def last(self, *kinds: str) -> Record:
        """The last event of these kinds, or nothing."""
        return next((event for event in reversed(self.events) if event.get("event") in kinds), {})

    def colour(self, model: str) -> str:
        """The CSS class of a model: `base`, `sft` and `rft` for the first of each kind, else `other-N`."""
        classes: dict[str, str] = {"base": "base"}
        for index, stage in enumerate(self.stages):
            taken = stage.type not in ("sft", "rft") or stage.type in classes.values()
            classes[stage.name] = f"other-{index % 3}" if taken else stage.type
        return classes.get(model, "base")

    def rollouts(self, stage: str) -> tuple[Path, ...]:
        """The stage's files of completions, by step."""
        return tuple(sorted((self.path / "rollouts" / stage).glob("step-*.jsonl")))


def read(path: Path) -> Run:
    """The run in `path`; raises `RunError` only where there is no such folder."""
    if not path.is_dir():
        raise RunError("there is no run directory", value=str(path), remedy="Name the folder that `sharpen run` made.")
    recipe_text = _text(path / "recipe.yaml")
    recipe, summary = _yaml(recipe_text), _json(path / "summary.json")
    metrics, bad_metrics = jsonl(path / "metrics.jsonl")
    events, bad_events = jsonl(path / "events.jsonl")
    evals: dict[str, dict[str, tuple[Record, ...]]] = {}
    bad_items = 0
    for file in sorted((path / "evals").glob("*/*.jsonl")):
        items, bad = jsonl(file)
        evals.setdefault(file.parent.name, {})[file.stem] = items
        bad_items += bad
    stages = _stages(recipe, summary, metrics)
    return Run(path, recipe, recipe_text, events, stages, summary, evals, bad_metrics + bad_events + bad_items)


def recipe_of(path: Path) -> Record:
    """The recipe of the run in `path`, as its file has it; empty where that cannot be read."""
    return _yaml(_text(path / "recipe.yaml"))


def jsonl(path: Path) -> tuple[tuple[Record, ...], int]:
    """The records of a file, and how many of its lines could not be read (a last one may be half-written)."""
    records, bad = [], 0
    for line in _text(path).split("\n"):
        if line.strip():
            record = _parse(line)
            records.append(record)
            bad += not record
    return tuple(record for record in records if record), bad


def text_of(value: Any) -> str:
    """A field meant for reading: text as it is, None as nothing, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)


def fault_of(record: Record) -> str:
    """The kind of a record's fault, or an empty string."""
    fault = record.get("fault")
    return text_of(at(fault, "kind") or fault) if fault else ""


def faults(stage: Stage) -> Counter[str]:
    """Faults of a stage's grading, by kind, over all its steps."""
    totals: Counter[str] = Counter()
    for line in stage.metrics:
        found = line.get("faults")
        for kind in found if isinstance(found, Mapping) else ():
            totals[str(kind)] += int(finite(found, kind) or 0)
    return +totals


def label(model: str) -> str:
    """A model's name on the page: `Base`, `SFT`, `DPO`, `RFT`, else the stage's own name."""
    return {"base": "Base", "sft": "SFT", "dpo": "DPO", "rft": "RFT"}.get(model, model)


def _stages(recipe: Record, summary: Record, metrics: Sequence[Record]) -> tuple[Stage, ...]:
    """In the recipe's order; stages the recipe lacks (it may be unreadable) follow as they appear."""
    results = {str(at(entry, "name")): entry for entry in _list(summary, "stages") if at(entry, "name")}
    lines: dict[str, dict[float, Record]] = {}
    for line in metrics:
        step = finite(line, "step")
        if step is not None and line.get("stage"):
            lines.setdefault(str(line["stage"]), {})[step] = line
    kinds = {name: str(next(iter(steps.values())).get("type", "")) for name, steps in lines.items()}
    kinds |= {name: str(entry.get("type", "")) for name, entry in results.items()}
    planned = {str(at(entry, "name")): str(at(entry, "type")) for entry in _list(recipe, "stages") if at(entry, "name")}
    order = planned | {name: kind for name, kind in kinds.items() if name not in planned}
    return tuple(
        Stage(name, kind, results.get(name, {}), _by_step(lines.get(name, {}))) for name, kind in order.items()
    )


def _by_step(lines: Mapping[float, Record]) -> tuple[Record, ...]:
    return tuple(lines[step] for step in sorted(lines))


def _list(record: Record, key: str) -> list[Any]:
    value = record.get(key)
    return value if isinstance(value, list) else []


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> Record:
    return _parse(_text(path))


def _parse(text: str) -> Record:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _yaml(text: str) -> Record:
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
