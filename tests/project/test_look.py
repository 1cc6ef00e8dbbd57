"""What is seen in someone's file: rows, delimiters, headers, which column asks, and what the task is."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from sharpen.errors import ConfigError, DataError
from sharpen.project import look, tasks
from sharpen.project.look import Column, Table

LABELS = ("late", "broken", "lost")


def table(**columns: list[str]) -> Table:
    return Table(Path("x.csv"), (), tuple(Column(name, tuple(values)) for name, values in columns.items()))


def numbered(word: str, count: int = 30) -> list[str]:
    return [f"{word} number {number} of many" for number in range(count)]


@pytest.mark.parametrize(
    ("name", "delimiter", "told"),
    [
        ("a.csv", ",", ""),
        ("a.tsv", "\t", ""),
        ("a.csv", ";", "semicolons"),
        ("a.csv", "\t", "tabs"),
        ("a.csv", "|", "vertical bars"),
        ("a.tsv", ",", "commas"),
        ("A.CSV", ";", "semicolons"),
    ],
)
def test_a_table_is_read_by_the_delimiter_that_it_has(tmp_path: Path, name: str, delimiter: str, told: str) -> None:
    path = tmp_path / name
    path.write_text(f'message{delimiter}label\n"where, is; it|\t?"{delimiter}late\n')
    found = look.read(path)
    assert [record for _, record in found.rows] == [{"message": "where, is; it|\t?", "label": "late"}]
    assert found.notes == ((f"its cells stand between {told}, and are read so",) if told else ())


def test_a_delimiter_within_a_quoted_name_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('"text; or none"\nhello\n')
    assert [column.name for column in look.read(path).columns] == ["text; or none"]


def test_every_container_gives_the_same_columns(tmp_path: Path) -> None:
    rows = [{"question": "1+1", "answer": "2"}, {"question": "2+2", "answer": "4"}]
    (tmp_path / "a.csv").write_text("question,answer\n1+1,2\n2+2,4\n")
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    wanted = (Column("question", ("1+1", "2+2")), Column("answer", ("2", "4")))
    for name in ("a.csv", "a.json", "a.jsonl", "a.parquet"):
        assert look.read(tmp_path / name).columns == wanted, name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("message,label\n", "the file has no rows"),
        ("message;label\n", "the file has no rows"),
        ("message,label\na,b,c\n", "3 cells, but the header names 2 columns"),
        ("message;label\na;b;c\n", "3 cells, but the header names 2 columns"),
        ("Where is my parcel?,late\nWhen does it come?,late\n", "the first line looks like a row"),
        ("my parcel,late\n" + "".join(f"text {n},{LABELS[n % 3]}\n" for n in range(30)), "the first line looks like"),
        ("a text of more than forty signs is no name,late\nb,late\n", "the first line looks like a row"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_its_fault(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        look.read(path)


def test_only_so_many_rows_of_a_large_file_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "MOST_ROWS", 3)
    path = tmp_path / "a.csv"
    path.write_text("prompt,completion\n" + "a,b\n" * 3)
    assert look.read(path).notes == ()
    path.write_text("prompt,completion\n" + "a,b\n" * 4)
    found = look.read(path)
    assert len(found.rows) == 3 and found.notes == ("only its first 3 rows are used",)


@pytest.mark.parametrize(
    ("columns", "asks", "answers"),
    [
        ({"question": numbered("q"), "answer": numbered("a")}, "question", "answer"),
        ({"label": [*LABELS] * 10, "text": numbered("t")}, "text", "label"),
        ({"Output": numbered("o"), "Instruction": numbered("i")}, "Instruction", "Output"),
        ({"ticket_text": numbered("t"), "issue_category": [*LABELS] * 10}, "ticket_text", "issue_category"),
        ({"id": [str(n) for n in range(30)], "was": numbered("a long text"), "art": [*LABELS] * 10}, "was", "art"),
        ({"note": numbered("short"), "story": numbered("much longer text"), "k": [*LABELS] * 10}, "story", "k"),
        ({"german": numbered("a"), "english": numbered("b")}, "german", "english"),
        ({"answer": ["" for _ in ()], "left": numbered("a"), "right": numbered("b")}, "left", "right"),
    ],
)
def test_the_columns_are_told_by_their_names_or_else_by_what_stands_in_them(
    columns: dict[str, list[str]], asks: str, answers: str
) -> None:
    found = table(**columns)
    answer = look.guess_answer(found).column
    assert (look.guess_prompt(found, [answer]).column, answer) == (asks, answers)


def test_what_cannot_be_told_is_refused_with_the_option_that_says_it() -> None:
    with pytest.raises(DataError, match=r"which column answers cannot be told.*--columns prompt=NAME"):
        look.guess_answer(table(a=numbered("a"), b=numbered("b"), c=numbered("c")))
    with pytest.raises(DataError, match="one column only"):
        look.guess_prompt(table(answer=numbered("a")), ["answer"])
    with pytest.raises(ConfigError, match=r"no such column \(got 'c'\)\. It has a, b"):
        table(a=["x"], b=["y"]).column("c")


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([*LABELS] * 10, "classify"),
        ([*LABELS, "other", "none"] * 5 + ["x"] * 5, "classify"),
        ([str(number % 2) for number in range(30)], "classify"),  # 0 and 1 are labels
        ([str(number % 10) for number in range(60)], "math"),  # ten numbers are answers
        ([f"{number},000.5" for number in range(30)], "math"),
        (['{"a": 1}', "[1, 2]", '{"a": {"b": null}}'] * 10, "extract"),
        (['"text"', "1"] * 15, "classify"),  # JSON, but no object
        ([f"def f(x):\n    return x + {number}" for number in range(30)], "code"),
        ([f"Sure:\n```python\nprint({number})\n```" for number in range(30)], "code"),
        (numbered("if this were a program"), "chat"),
        (numbered("answer"), "chat"),
        (["yes", "no"] * 4, "chat"),  # too few rows for two labels
    ],
)
def test_the_task_is_told_by_the_answers(values: list[str], task: str) -> None:
    assert tasks.guess(Column("completion", tuple(values)))[0].name == task


def test_a_name_that_asks_is_a_text_and_a_name_alone_is_no_label() -> None:
    """A word within a longer name counts after whole names."""
    found = table(answer_time=numbered("ten minutes"), reply=numbered("well"), question=numbered("q"))
    assert look.guess_answer(found) == ("reply", "by its name")
