"""A run's rollouts under another grader; the rows they were made for are found again through the run's recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sharpen.config.graders import Grader
from sharpen.config.graders.version import version
from sharpen.config.load import RESOLVED, load
from sharpen.config.recipe import Recipe
from sharpen.config.stages import RFT
from sharpen.data.source import fingerprint, read_examples
from sharpen.errors import ConfigError, RunError
from sharpen.graders.pool import GraderPool
from sharpen.lab.difference import Attempt, compare
from sharpen.lab.samples import Rows, sample_of
from sharpen.lab.trial import Bench, Text, full_marks
from sharpen.runs.observer import Observer
from sharpen.runs.store import read_lines
from sharpen.stages.resolve import with_paths
from sharpen.stages.routing import Router, graders, leaving

SCHEMA_VERSION = 1
Line = Mapping[str, Any]


async def regrade(
    run: Path,
    config: Grader,
    *,
    stage: str = "",
    limit: int | None = None,
    threshold: float | None = None,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """The rollouts of a run's stage (the last that sampled, where none is named) under another grader.

    `limit` takes the first steps only; `threshold` is the new grader's full marks where they are not the top of its
    range, or 1. Raises RunError where the run's data is not what it was.
    """
    observer = observer or Observer()
    recipe, noted = _recipe(run)
    chosen = _stage(recipe, run, stage)
    files = _files(run, chosen.name)[:limit]
    _check_data(chosen, noted)
    before = graders(chosen.grader, chosen.data)
    rows = Rows(list(read_examples(chosen.data, Path())))
    kept, unmatched = _kept(files, chosen.group_size, rows)
    if not kept:
        raise RunError("none of its rollouts belongs to a row of its data", value=str(run), remedy="Name another run")
    for told in leaving([config]):
        observer.event(told)
    with Router({"": GraderPool(with_paths(config, Path.cwd()))}) as router:
        bench = Bench(router)
        observer.progress("grading", 0, len(kept))
        trials = await bench.grade([_text(one, rows) for one in kept])
    old_marks = {key: full_marks(own) for key, own in before.items()}
    marks = full_marks(config) if threshold is None else threshold
    attempts = [
        Attempt(
            one.line,
            one.step,
            one.group,
            old_marks.get(rows.examples[one.row].grader, 1.0),
            _score(one.line),
            trial.grade,
        )
        for one, trial in zip(kept, trials, strict=True)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "run": str(run),
        "stage": chosen.name,
        "steps": len(files),
        "unmatched": unmatched,
        "before": _before(chosen, before, noted),
        "after": {**_about(config), "version": version(config), "full_marks": marks},
        **compare(attempts, marks),
        "speed": bench.speed(),
    }


class Kept(NamedTuple):
    """A line of the rollouts, where it stood, and the row that it tries."""

    line: Line
    step: int
    group: int
    place: int
    row: int


def _recipe(run: Path) -> tuple[Recipe, Line]:
    """The run's recipe, and what was noted at its start."""
    path = run / "recipe.yaml"
    if not path.is_file():
        raise RunError("there is no run", value=str(run), remedy="Name the folder that `sharpen run` made")
    noted = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get(RESOLVED)
    return load(path), noted if isinstance(noted, dict) else {}


def _stage(recipe: Recipe, run: Path, name: str) -> RFT:
    stages = {stage.name: stage for stage in recipe.stages if isinstance(stage, RFT) and _files(run, stage.name)}
    if name and name not in stages:
        remedy = f"It kept those of {', '.join(stages)}" if stages else "It kept none"
        raise ConfigError("the run has no rollouts of this stage", path="--stage", value=name, remedy=remedy)
    if not stages:
        raise RunError("the run has no rollouts", value=str(run), remedy="Only rft stages keep them, once they step")
    return stages[name or list(stages)[-1]]


def _files(run: Path, stage: str) -> list[Path]:
    return sorted((run / "rollouts" / stage).glob("step-*.jsonl"))


def _check_data(stage: RFT, noted: Line) -> None:
    name = f"stages.{stage.name}.data"
    before = noted.get("data", {}).get(name)
    if before and fingerprint(stage.data, Path()) != before:
        raise RunError("data changed since the run began", value=name, remedy="Restore it: graders read its rows")


def _kept(files: Sequence[Path], group_size: int, rows: Rows) -> tuple[list[Kept], int]:
    """The rollouts of some steps, and how many of them belong to no row."""
    kept: list[Kept] = []
    unmatched = 0
    for file in files:
        step = int(file.stem.removeprefix("step-"))
        for group, lines in enumerate(_groups(read_lines(file), group_size)):
            for place, line in enumerate(lines):
                row = rows.find(str(line["example"]), line["prompt"])
                if row is None:
                    unmatched += 1
                else:
                    kept.append(Kept(line, step, group, place, row))
    return kept, unmatched


def _text(kept: Kept, rows: Rows) -> Text:
    """What is graded, by the new grader alone, whatever grader its source names."""
    example = replace(rows.examples[kept.row], grader="")
    return Text(example, sample_of(kept.line, kept.line["text"]), kept.row, kept.place)


def _groups(lines: Sequence[Line], size: int) -> Iterator[list[Line]]:
    """Neighbours that try the same example, `size` at most: a step may have an example twice."""
    for _, own in groupby(lines, key=lambda line: line["example"]):
        several = list(own)
        yield from (several[start : start + size] for start in range(0, len(several), size))


def _score(line: Line) -> float | None:
    score = line["scores"].get("score")
    return None if score is None else float(score)


def _about(config: Grader) -> dict[str, Any]:
    return {"name": config.name or config.type, "type": config.type}


def _before(stage: RFT, configs: Mapping[str, Grader], noted: Line) -> dict[str, Any]:
    """The run's own graders, with the versions they had at its start; of a run that noted none, those of now."""
    if not configs:
        return {"name": "environment", "type": None, "version": None, "full_marks": 1.0}
    names, types = ([_about(config)[key] for config in configs.values()] for key in ("name", "type"))
    mine = [value for name, value in noted.get("graders", {}).items() if name.startswith(f"stages.{stage.name}")]
    return {
        "name": ", ".join(names),
        "type": ", ".join(types),
        "version": ", ".join(dict.fromkeys(mine or map(version, configs.values()))),
        "full_marks": full_marks(next(iter(configs.values()))),
    }
