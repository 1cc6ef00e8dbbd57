"""`sharpen init`: a recipe, a grader with its test and a split, from one's own rows or an example's."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sharpen.errors import ConfigError, DataError, Interrupted, SharpenError

if TYPE_CHECKING:
    from sharpen.project.build import Project
    from sharpen.project.look import Guess, Table
    from sharpen.project.rows import Row
    from sharpen.project.tasks import Task

T = TypeVar("T")

TASKS = ("extract", "classify", "chat", "code", "math")
ROLES = ("prompt", "completion", "tests")
MINUTES = 10.0


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen init` is told."""
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("."), metavar="FOLDER", help="the project (default: this folder)"
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="your rows: CSV, TSV, JSONL, JSON or Parquet")
    parser.add_argument("--task", choices=TASKS, help="what the model shall do (default: what the answers look like)")
    parser.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="MAP",
        help="what your columns are: prompt=question,completion=answer (for code also tests=…)",
    )
    parser.add_argument("--model", metavar="M", help="what to train: an alias, a folder or a hub id")
    parser.add_argument("--minutes", type=float, metavar="N", help="how long it all may take (default: 10)")
    parser.add_argument("-y", "--yes", action="store_true", help="ask nothing, take the defaults")
    parser.add_argument("--force", action="store_true", help="write over the files of an earlier project")


def init(options: Namespace) -> int:
    """Look at the data, ask what cannot be known, write the project, and say what it is."""
    from sharpen.cli.init_report import report
    from sharpen.project import build, write  # imports pydantic and numpy

    write.check(options.folder, build.NAMES, force=options.force, source=options.data)
    asker = Asker(on=not options.yes and sys.stdin.isatty())
    if not options.yes and not asker.on:
        print("Nothing can be asked here (stdin is no terminal), so the defaults are taken, as with --yes.\n")
    try:
        project, model = _decide(options, asker)
        write.check(options.folder, build.NAMES, force=options.force, source=options.data)  # --data may be an answer
        write.write(options.folder, project.texts)
    except (KeyboardInterrupt, EOFError):
        raise Interrupted("\nstopped; nothing was written") from None
    print(report(options.folder, project, model))
    return 0


class Asker:
    """Asks at the terminal, or takes the default where it may not ask."""

    def __init__(self, *, on: bool) -> None:
        self.on = on

    def ask(self, question: str, default: str, read: Callable[[str], T], shown: str = "") -> T:
        """The answer as `read` makes it, asked again where that raises; Enter takes the default, shown in brackets."""
        while self.on:
            said = input(f"{question} [{shown or default}]: ").strip()
            try:
                return read(said or default)
            except SharpenError as error:
                print(f"  {error}")
        return read(default)


def _decide(options: Namespace, asker: Asker) -> tuple[Project, str]:
    """The project and its model, by the options, the data, and six questions at most."""
    from sharpen.models.registry import DEFAULT
    from sharpen.project import build, look, tasks

    columns = _columns(options.columns)
    if options.data is None:
        ours = "none: an example of ours"
        table = asker.ask(
            "A file with your rows", "", lambda path: look.read(Path(path).expanduser()) if path else None, ours
        )
        options.data = table and table.path
    else:
        table = look.read(options.data)
    if table is None:
        if columns:
            raise ConfigError(
                "columns of no file", path="--columns", value=", ".join(options.columns), remedy="Add --data"
            )
        task = tasks.TASKS[options.task or asker.ask(_which_task(), "classify", _task)]
        given, tests = build.example(task), "tests" if task.name == "code" else ""
        source, notes = "the example", [f"{len(given)} rows of an example of ours: replace them by your own (--data)"]
    else:
        given, notes = _read(table, columns, asker)
        task, why = _told(given, options.task, asker)
        tests = (columns.get("tests") or look.guess_tests(table)) if task.name == "code" else ""
        source = str(table.path)
        notes.append(f"task {task.name} ({why}): {task.about}")
    model = options.model or asker.ask("The model to train", DEFAULT, str)
    minutes = options.minutes
    if minutes is None:
        minutes = asker.ask("Minutes that training and evaluation may take", f"{MINUTES:g}", _minutes)
    found = build.build(given, task, source, _placed(model), minutes, tests=tests)
    return found.told(notes), model


def _columns(texts: Sequence[str]) -> dict[str, str]:
    """`prompt=question,completion=label`, in one text or several, as a mapping. Raises ConfigError."""
    found = {}
    for pair in (pair for text in texts for pair in re.split(rf",(?=\s*(?:{'|'.join(ROLES)})\s*=)", text)):
        role, equals, name = (part.strip() for part in pair.partition("="))
        if not equals or not name or role not in ROLES:
            raise ConfigError(
                "not a mapping of columns",
                path="--columns",
                value=pair,
                remedy="Write prompt=NAME,completion=NAME (for code also tests=NAME), with the names in your file",
            )
        found[role] = name
    return found


def _read(table: Table, columns: dict[str, str], asker: Asker) -> tuple[list[Row], list[str]]:
    """The prompts and answers of a table, and what is said of how they were found."""
    from sharpen.project import look, rows

    name = table.path.name
    notes = [f"{name}: {rows.counted(len(table.rows), 'row')} of {', '.join(column.name for column in table.columns)}"]
    notes += [f"{name}: {note}" for note in table.notes]
    if not columns.keys() & {"prompt", "completion"} and (shape := rows.shape(table)):
        return rows.by_shape(table), [
            *notes,
            f"{shape} rows: the last answer is learned, what is before it is its prompt",
        ]
    for column in columns.values():
        table.column(column)  # raises where there is none
    answer = prompt = None
    if "completion" not in columns:
        answer = _column("answers", lambda: look.guess_answer(table, [columns.get("prompt", "")]), table, asker)
    completion = answer.column if answer else columns["completion"]
    if "prompt" not in columns:
        prompt = _column("asks", lambda: look.guess_prompt(table, [completion]), table, asker)
    asks = prompt.column if prompt else columns["prompt"]
    for role, column, guess in (("prompt", asks, prompt), ("completion", completion, answer)):
        notes.append(f"{role}: the column {column!r} ({guess.why if guess else 'as you say'})")
    if prompt or answer:
        notes.append("another choice: --columns prompt=NAME,completion=NAME")
    return rows.by_columns(table, asks, completion), notes


def _column(does: str, guess: Callable[[], Guess], table: Table, asker: Asker) -> Guess:
    """The column guessed, or the one named in answer to a question; a guess that fails is a question's matter."""
    from sharpen.project.look import Guess

    try:
        found = guess()
    except DataError:
        if not asker.on or len(table.columns) < 2:
            raise
        found = Guess(table.columns[0].name, "the first column")
    names = ", ".join(column.name for column in table.columns)
    chosen = asker.ask(f"Which column {does}, of {names}?", found.column, lambda name: table.column(name).name)
    return found if chosen == found.column else Guess(chosen, "as you say")


def _told(given: list[Row], task: str | None, asker: Asker) -> tuple[Task, str]:
    """The task, and why."""
    from sharpen.project import look, tasks

    if task:
        return tasks.TASKS[task], "as you say"
    likely, why = tasks.guess(look.Column("completion", tuple(row.answer for row in given if row.answer)))
    chosen = asker.ask(_which_task(), likely.name, _task)
    return tasks.TASKS[chosen], why if chosen == likely.name else "as you say"


def _which_task() -> str:
    return f"The task ({', '.join(TASKS)})"


def _task(name: str) -> str:
    if name not in TASKS:
        raise ConfigError("no such task", value=name, remedy=f"It is one of {', '.join(TASKS)}")
    return name


def _minutes(text: str) -> float:
    from sharpen.project import build

    try:
        return build.check_minutes(float(text))
    except ValueError:
        raise ConfigError("not a number", value=text, remedy="Write it in digits, such as 10") from None


def _placed(model: str) -> str:
    """A folder is named from wherever the recipe lies."""
    return str(Path(model).expanduser().resolve()) if Path(model).expanduser().is_dir() else model
