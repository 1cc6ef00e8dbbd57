"""What `sharpen init` says at its end: what it understood, wrote, and what to do next."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sharpen.project.build import Project

SHOWN = 300
"""Characters of a message that are shown."""


def report(folder: Path, project: Project, model: str) -> str:
    """All of it, as text."""
    return "\n".join(
        [
            "Understood",
            *(f"  {note}" for note in project.notes),
            "",
            "A row as the model will see it",
            *_row(project),
            "",
            *_parts(project),
            "",
            f"Wrote {folder}/" if folder != Path(".") else "Wrote",
            *_written(project, model),
            "",
            *_next(folder, project),
        ]
    )


def _row(project: Project) -> list[str]:
    row = project.parts.train[0]
    said = [*((str(turn["role"]), str(turn["content"])) for turn in row.messages), ("assistant", row.answer)]
    return [f"  {role:<10} {_short(text)}" for role, text in said]


def _short(text: str) -> str:
    text = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    return text.replace("\n", "\n" + " " * 13)


def _parts(project: Project) -> list[str]:
    from sharpen.project.parts import shows

    parts, plan = project.parts, project.plan
    counts = ", ".join(
        f"{len(part)} {what}"
        for part, what in ((parts.train, "to train on"), (parts.validation, "for validation"), (parts.test, "held out"))
    )
    tested = plan.test_limit or len(parts.test)
    lines = [
        f"Rows: {counts}. No prompt of one part, nor one nearly like it, is in another.",
        f"  {tested} test rows show a difference of {100 * shows(tested):.0f} points between two models, 4 times in 5"
        " (where the two differ on half of the rows).",
    ]
    if project.task.name == "classify":
        labels = Counter(row.answer for row in parts.test)
        lines.append(f"  Held out: {', '.join(f'{count} × {label}' for label, count in labels.most_common(8))}")
        unseen = {row.answer for row in parts.test} - {row.answer for row in parts.train}
        lines += [f"  No row to train on has the label {label!r}: it cannot be learned." for label in sorted(unseen)]
    if plan.train_limit:
        lines.append(f"  In the time given it learns from {plan.train_limit} rows: see `limit` in the recipe.")
    return lines


def _written(project: Project, model: str) -> list[str]:
    from sharpen.project.recipe import about

    plan = project.plan
    stages = f"SFT ({plan.epochs} epochs)" + (f", then RFT ({plan.rft_steps} steps)" if plan.rft_steps else "")
    what = {
        "recipe.yaml": f"{model}: {stages}; about {about(plan.seconds)} on 2 cores",
        "grader.py": "what scores an answer: `def grade(sample, item) -> float`",
        "test_grader.py": "its test" if "grader.py" in project.texts else "a test of the recipe's grader",
        "system.txt": "what stands before every prompt, for use of the model elsewhere",
    }
    table = [(name, what[name]) for name in what if name in project.texts]
    table.append(("data/", "the rows as files of their own: as the model shall see them, clean, and in three parts"))
    return [f"  {name:<16}{text}" for name, text in table]


def _next(folder: Path, project: Project) -> list[str]:
    there = [] if folder == Path(".") else [f"cd {shlex.quote(str(folder))}"]
    grader = f'"{project.grader}"'
    return [
        "Next",
        *(f"  {command}" for command in there),
        "  sharpen run recipe.yaml --out runs/first",
        "  sharpen chat runs/first",
        "And then",
        "  sharpen predict runs/first --in data/test.jsonl --out answers.jsonl",
        "  python test_grader.py      # after each change of the grader; can it be fooled?",
        f"  sharpen grade --grader {grader} --data data/test.jsonl --red-team",
    ]
