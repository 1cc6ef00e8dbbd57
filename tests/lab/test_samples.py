"""Texts of files find their rows, and rows their reference answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import DataError
from sharpen.lab.samples import Rows, as_template, gold, gold_texts, read
from sharpen.types import Example


def examples(*names: str) -> list[Example]:
    return [Example(name, ({"role": "user", "content": f"ask {place}"},)) for place, name in enumerate(names)]


def file(tmp_path: Path, *lines: dict[str, Any]) -> Path:
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def found(path: Path, rows: list[Example]) -> list[tuple[int, int, str, str]]:
    return [(one.row, one.place, one.sample.text, one.sample.finish) for one in read(path, rows).texts]


def test_lines_name_their_row_in_any_order_and_count_within_it(tmp_path: Path) -> None:
    lines = [
        {"id": "b", "text": "1"},
        {"id": "a", "output_text": "2", "text": "not this"},
        {"id": "b", "completion": "3", "finish": "length"},
    ]
    expected = [(1, 0, "1", "stop"), (0, 0, "2", "stop"), (1, 1, "3", "length")]
    assert found(file(tmp_path, *lines), examples("a", "b")) == expected


def test_lines_without_names_follow_the_rows_and_those_beyond_are_counted(tmp_path: Path) -> None:
    path = file(tmp_path, {"text": "1"}, {"text": "2"}, {"text": "3"})
    assert found(path, examples("a", "b")) == [(0, 0, "1", "stop"), (1, 0, "2", "stop")]
    assert read(path, examples("a", "b")).unmatched == 1
    assert read(path, examples("a", "b", "c", "d")).unmatched == 0


def test_a_runs_rollouts_and_evals_are_read_with_their_turns_and_drawn_answers(tmp_path: Path) -> None:
    turns = [{"role": "assistant", "content": "hm"}]
    rollout = {"example": "7", "text": "x", "finish": "stop", "messages": turns, "env_state": {"n": 1}}
    evaluated = {"id": "9", "text": "y", "finish": "stop", "samples": [{"text": "z", "score": 1.0}]}
    path = file(tmp_path, rollout, evaluated, {"example": "other", "text": "w"})
    rows = examples("7", "9")
    assert found(path, rows) == [(0, 0, "x", "stop"), (1, 0, "y", "stop"), (1, 1, "z", "stop")]
    given = read(path, rows)
    assert given.unmatched == 1
    assert (given.texts[0].sample.messages, given.texts[0].sample.env_state) == (tuple(turns), {"n": 1})


def test_rows_of_one_name_are_told_apart_by_their_prompt() -> None:
    rows = Rows(examples("a", "a", "b"))
    assert rows.find("a") is None
    assert rows.find("a", [{"role": "user", "content": "ask 1"}]) == 1
    assert rows.find("b", "whatever") == 2
    assert rows.find("c") is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"id": "a", "text": "1"}, {"text": "2"}], r"s\.jsonl:2: other lines name their row"),
        ([{"id": "a", "said": "1"}], r"s\.jsonl:1: has no text .*output_text"),
        ([{"id": "a", "text": 5}], r"s\.jsonl:1:text: is no text \(got 5\)"),
        ([{"id": "z", "text": "1"}], r"none of its lines belongs to a row .*got 'z'.*The rows are called a, \.\.\."),
    ],
)
def test_what_cannot_be_placed_is_told_with_its_line(tmp_path: Path, lines: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(file(tmp_path, *lines), examples("a", "b"))


@pytest.mark.parametrize(
    ("item", "template", "answer"),
    [
        ({"answer": 7}, "{{ item.answer }}", "7"),
        ({"answer": {"a": [1]}}, "{{ item.answer }}", '{"a": [1]}'),
        ({"solution": {"text": "so"}}, as_template("solution.text"), "so"),
        ({"head": "def f():", "body": " pass"}, "{{ item.head }}{{ item.body }}", "def f(): pass"),
        ({"answer": " \n"}, "{{ item.answer }}", None),
        ({"answer": None}, "{{ item.answer }}", None),
        ({}, "{{ item.answer }}", None),
    ],
)
def test_gold_answers_stand_where_the_template_says(item: dict[str, Any], template: str, answer: str | None) -> None:
    assert gold(Example("e", (), item), template) == answer
    texts = gold_texts([Example("none", ()), Example("e", (), item)], template)
    assert [(text.row, text.sample.text) for text in texts] == ([] if answer is None else [(1, answer)])
