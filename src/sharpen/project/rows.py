"""Someone's rows as prompts and answers: what is left out is counted, and said with its lines."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sharpen.data import formats, overlap
from sharpen.data.formats.shapes import SHAPES, recognise
from sharpen.data.read import Record, Where
from sharpen.errors import ConfigError, DataError
from sharpen.project import look, tasks
from sharpen.project.look import Table
from sharpen.project.tasks import Task
from sharpen.types import Message

FEWEST = 20
"""With fewer rows nothing can be learned and shown."""

SHOWN_LINES = 5

LONGEST = 6_000
"""A row of more bytes would be longer than a stage's `max_length`, at which a run ends."""

KEPT_FOR_US = frozenset(name for shape in SHAPES for name in (*shape.keys, *shape.reads)) | {"answer"}
"""Keys by which the readers tell shapes, and ours: a further column of such a name would pass for something else."""

LEAST_FITTING = 0.5
"""A smaller share of answers that fit the task means that another was meant."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and its answer, with the row's other columns."""

    where: Where
    messages: tuple[Message, ...]
    answer: str
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the prompt and its answer."""
        return sum(len(str(message["content"]).encode()) for message in self.messages) + len(self.answer.encode())

    @property
    def key(self) -> bytes:
        """What stands for the prompt, as a run compares prompts."""
        return overlap.key(self.messages)

    def record(self) -> Record:
        """The row as it is written: SFT imitates the completion, graders and reports read the answer."""
        return {"prompt": list(self.messages), "completion": self.answer, "answer": self.answer, **self.others}


@dataclass
class Clean:
    """The rows that can be used, and what is to be said of the others."""

    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def drop(self, dropped: Sequence[Row], why: str) -> None:
        """Leave rows out, and say so."""
        if dropped:
            gone = {row.where for row in dropped}
            self.rows = [row for row in self.rows if row.where not in gone]
            lines = ", ".join(str(row.where.line) for row in dropped[:SHOWN_LINES])
            more = ", …" if len(dropped) > SHOWN_LINES else ""
            self.notes.append(f"{counted(len(dropped), 'row')} left out: {why} (line {lines}{more})")


def counted(count: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shape(table: Table) -> str:
    """The name of the rows' shape where they are conversations or Alpaca rows already; else nothing."""
    where, first = table.rows[0]
    try:
        found = recognise(first, "sft", where).name
    except DataError:
        return ""
    plain = found == "prompt-completion" and all(isinstance(first[key], str) for key in ("prompt", "completion"))
    return "" if plain or found == "text" else found


def by_shape(table: Table) -> list[Row]:
    """The rows of a shape that the readers know: the last answer, and all before it as its prompt."""
    found = []
    for where, record in table.rows:
        labelled = formats.labelled(record, where)
        last = labelled.trained[-1] if labelled.trained else 0
        if not last:
            raise where.error(
                "no prompt with an answer after it", remedy="Give each row a user's turn, and an assistant's after it"
            )
        answer = str(labelled.messages[last]["content"]).strip()
        others = _others(record, recognise(record, "sft", where).keys)
        described = {"tools": list(labelled.tools)} if labelled.tools else {}
        found.append(Row(where, labelled.messages[:last], answer, others | described))
    return found


def by_columns(table: Table, prompt: str, completion: str) -> list[Row]:
    """The rows of a table, by the columns that ask and answer; either may be empty."""
    if prompt == completion:
        raise ConfigError("prompt and completion are the same column", path="--columns", value=prompt)
    return [
        Row(
            where,
            ({"role": "user", "content": look.text(record.get(prompt))},),
            look.text(record.get(completion)),
            _others(record, {prompt, completion}),
        )
        for where, record in table.rows
    ]


def clean(rows: Sequence[Row], task: Task, source: str) -> Clean:
    """The rows that a task can use. Raises DataError where too few are left, or the answers are of another kind."""
    found = Clean(list(rows))
    found.drop([row for row in rows if not str(row.messages[-1]["content"]).strip()], "the prompt is empty")
    found.drop([row for row in found.rows if not row.answer], "the answer is empty")
    found.drop([row for row in found.rows if row.size > LONGEST], f"longer than {LONGEST:,} bytes, some 2,000 tokens")
    _require_fitting(found.rows, task, source)
    found.drop([row for row in found.rows if not task.fits(row.answer)], f"the answers should be {task.wanted}")
    _spell_alike(found, task)
    _drop_repeated(found, task)
    if len(found.rows) < FEWEST:
        raise DataError(
            f"{counted(len(found.rows), 'row')} can be used; with fewer than {FEWEST}, nothing is learned and shown",
            file=source,
            remedy="; ".join([*found.notes, "Collect more: some 200 are a good start"]),
        )
    if task.name == "classify":
        _require_labels(found, source)
    return found


def asked(rows: Sequence[Row], instruction: str) -> list[Row]:
    """The rows with the instruction as their system message; conversations keep what they have."""
    if not instruction:
        return list(rows)
    system = {"role": "system", "content": instruction}
    return [replace(row, messages=(system, *row.messages)) if len(row.messages) == 1 else row for row in rows]


def _others(record: Record, used: frozenset[str] | set[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in used and name not in KEPT_FOR_US}


def _require_fitting(rows: Sequence[Row], task: Task, source: str) -> None:
    fitting = sum(task.fits(row.answer) for row in rows)
    if rows and fitting < LEAST_FITTING * len(rows):
        other, why = tasks.guess(look.Column("completion", tuple(row.answer for row in rows)))
        wrong = next(row for row in rows if not task.fits(row.answer))
        raise wrong.where.error(
            f"for {task.name} the answers should be {task.wanted}, and {fitting} of {len(rows)} are",
            value=wrong.answer,
            remedy=f"Name another column (--columns completion=NAME), or write --task {other.name}: {why}",
        )


def _spell_alike(found: Clean, task: Task) -> None:
    """Write labels that differ in case or white space alone as the most frequent of them, and JSON in one way."""
    if task.name == "extract":
        found.rows = [replace(row, answer=look.text(json.loads(row.answer))) for row in found.rows]
    if task.name != "classify":
        return
    spelt: dict[str, Counter[str]] = defaultdict(Counter)
    for row in found.rows:
        spelt[overlap.normalise(row.answer)][row.answer] += 1
    usual = {label: spellings.most_common(1)[0][0] for label, spellings in spelt.items()}
    found.notes += [
        f"{' and '.join(repr(one) for one in sorted(spellings))} are one label, {usual[label]!r}"
        for label, spellings in spelt.items()
        if len(spellings) > 1
    ]
    found.rows = [replace(row, answer=usual[overlap.normalise(row.answer)]) for row in found.rows]


def _drop_repeated(found: Clean, task: Task) -> None:
    """Rows that say what an earlier one said; and, where there is one right answer, those that contradict it."""
    first: dict[bytes, set[str]] = defaultdict(set)
    again, contradicting = [], []
    for row in found.rows:
        said = first[row.key]
        if row.answer in said:
            again.append(row)
        elif said and task.single_answer:
            contradicting.append(row)
        said.add(row.answer)
    found.drop(again, "an earlier row says the same")
    found.drop(contradicting, "an earlier row has another answer to the same prompt")


def _require_labels(found: Clean, source: str) -> None:
    counts = Counter(row.answer for row in found.rows)
    if len(counts) == 1:
        raise DataError(
            "all rows have the same label",
            file=source,
            value=next(iter(counts)),
            remedy="Name the column of the labels: --columns completion=NAME",
        )
    if len(counts) * 3 > len(found.rows):
        raise DataError(
            f"{len(counts)} different answers in {len(found.rows)} rows are no labels",
            file=source,
            value=found.rows[0].answer,
            remedy="Name the column of the labels (--columns completion=NAME), or write --task chat",
        )
    if rare := [label for label, count in counts.items() if count < 5]:
        found.notes.append(f"fewer than 5 rows have the label {', '.join(map(repr, rare))}: too few to learn it")
