"""A project out of rows: what is in it, as texts, before anything is written."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sharpen.data import formats
from sharpen.data.read import Where
from sharpen.errors import ConfigError
from sharpen.project import examples, graders, parts, plan, recipe, rows, tasks
from sharpen.project.parts import Parts
from sharpen.project.plan import Plan
from sharpen.project.rows import Row
from sharpen.project.tasks import Task

MOST_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Project:
    """All files of a project, and what there is to say of it."""

    task: Task
    parts: Parts
    plan: Plan
    instruction: str
    grader: str
    """As the recipe has it."""

    texts: dict[str, str]
    """Each file's text, by its name in the project."""

    notes: list[str]

    def told(self, notes: Sequence[str]) -> Project:
        """The same with these notes before its own."""
        return replace(self, notes=[*notes, *self.notes])


NAMES = (
    "recipe.yaml",
    "grader.py",
    "test_grader.py",
    "system.txt",
    "data/train.jsonl",
    "data/validation.jsonl",
    "data/test.jsonl",
)
"""The files that a project may have."""


def check_minutes(minutes: float) -> float:
    """The minutes. Raises ConfigError where they are too few or too many."""
    if not 1 <= minutes <= MOST_MINUTES:
        raise ConfigError(f"should be from 1 to {MOST_MINUTES:,}", path="--minutes", value=minutes)
    return minutes


def example(task: Task) -> list[Row]:
    """The rows of a task's example."""
    found = []
    for number, made in enumerate(examples.rows(task.name), start=1):
        others = {name: value for name, value in made.items() if name not in ("prompt", "completion")}
        asked = ({"role": "user", "content": str(made["prompt"])},)
        found.append(Row(Where("example", number), asked, str(made["completion"]), others))
    return found


def with_tests(given: Sequence[Row], column: str) -> list[Row]:
    """The rows with their unit tests as `tests`, and the function that those call as `entry_point`."""
    found = []
    for row in given:
        others = {name: value for name, value in row.others.items() if name != column}
        if cell := row.others.get(column):
            others["tests"] = json.loads(cell) if isinstance(cell, str) and tasks.is_json(cell) else cell
        names = tasks.functions(row.answer)
        asked = str(row.messages[-1]["content"])
        if names and not others.get("entry_point"):
            others["entry_point"] = next((name for name in names if re.search(rf"\b{name}\b", asked)), names[-1])
        found.append(replace(row, others=others))
    return found


def build(given: Sequence[Row], task: Task, source: str, model: str, minutes: float, *, tests: str = "") -> Project:
    """The project of these rows; `tests` names the column of unit tests. Raises DataError, ConfigError."""
    check_minutes(minutes)
    clean = rows.clean(with_tests(given, tests) if tests else given, task, source)
    if tests:
        clean.drop([row for row in clean.rows if not row.others.get("tests")], "there are no unit tests")
    instruction = task.instruction([row.answer for row in clean.rows])
    found = Parts(*(rows.asked(part, instruction) for part in parts.parted(clean.rows)))
    for row in found.train + found.validation + found.test:
        formats.labelled(row.record(), row.where)  # what we write can be read, or the row is named
    reinforced = task.reinforced and (task.name != "code" or bool(tests))
    planned = plan.plan(found, minutes, reinforced=reinforced)
    kind, grader = _grader(task, clean.rows, tests)
    if task.name == "code" and not tests:
        task = replace(
            task, reinforced=False, instead="the rows have no unit tests, and likeness to a program is no merit"
        )
    text = recipe.recipe(task, model, planned, found, grader, minutes)
    texts = {
        "recipe.yaml": text,
        **({"grader.py": graders.grader(kind)} if kind else {}),
        "test_grader.py": graders.test(kind) if kind else graders.tested_test(),
        **({"system.txt": instruction + "\n"} if instruction else {}),
        **{f"data/{name}.jsonl": _lines(part) for name, part in found._asdict().items()},
    }
    return Project(task, found, planned, instruction, grader, texts, clean.notes)


def _grader(task: Task, given: Sequence[Row], tests: str) -> tuple[str, str]:
    """The module of `graders`' templates, if any, and the grader as the recipe has it."""
    if tests:
        called = all(row.others.get("entry_point") for row in given)
        return "", graders.CALLED if called else graders.TESTED
    return "program" if task.name == "code" else task.name, graders.GRADER


def _lines(part: Sequence[Row]) -> str:
    return "".join(json.dumps(row.record(), ensure_ascii=False) + "\n" for row in part)
