"""One door to every source: files, rows from Python, generators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sharpen.config.data import FileData, InlineData, ReasoningGymData
from sharpen.config.graders import StringCheck
from sharpen.config.load import parse
from sharpen.data import overlap
from sharpen.data.source import fingerprint, read_examples, read_labelled, read_preferences, training_keys
from sharpen.errors import ConfigError, DataError

ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "1+1=", "completion": "2"},
    {"prompt": "2+2=", "completion": "4"},
)
BASE = Path("nowhere")


def save(path: Path, rows: tuple[dict[str, Any], ...] = ROWS) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_path_is_read_relative_to_the_recipe(tmp_path: Path) -> None:
    save(tmp_path / "a.jsonl")
    save(tmp_path / "b.jsonl", ROWS[:1])
    assert [row.id for row in read_labelled(FileData(path="a.jsonl"), tmp_path)] == ["a:1", "a:2"]
    assert [row.id for row in read_examples(FileData(path="b.jsonl"), tmp_path)] == ["b:1"]
    absolute = FileData(path=str(tmp_path / "a.jsonl"))
    assert len(list(read_labelled(absolute, BASE))) == 2


def test_limit_stops_reading_before_later_faults(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS[0]) + "\nbad")
    assert len(list(read_labelled(FileData(path="a.jsonl", limit=1), tmp_path))) == 1
    with pytest.raises(DataError, match=r"a\.jsonl:2: not JSON"):
        list(read_labelled(FileData(path="a.jsonl"), tmp_path))


def test_inline_rows_are_the_same_rows(tmp_path: Path) -> None:
    save(tmp_path / "inline.jsonl")
    inline, file = InlineData(rows=ROWS), FileData(path="inline.jsonl")
    assert list(read_labelled(inline, BASE)) == list(read_labelled(file, tmp_path))
    assert list(read_examples(inline, BASE)) == list(read_examples(file, tmp_path))
    assert [row.messages[0]["content"] for row in read_examples(InlineData(rows=ROWS[1:]), BASE)] == ["2+2="]


def test_inline_faults_name_the_row() -> None:
    with pytest.raises(DataError, match="inline:2:a: not a finite number"):
        list(read_examples(InlineData(rows=({"prompt": "x"}, {"prompt": "x", "a": float("nan")})), BASE))
    with pytest.raises(DataError, match="no rows"):
        list(read_examples(InlineData(rows=()), BASE))


def test_a_generator_is_a_source_of_both_kinds() -> None:
    data = ReasoningGymData(generator="gcd", count=2)
    assert [row.id for row in read_examples(data, BASE)] == ["gcd:0", "gcd:1"]
    assert [row.trained for row in read_labelled(data, BASE)] == [(1,), (1,)]


def test_training_keys_find_the_same_question_in_another_source() -> None:
    trained = ReasoningGymData(generator="gcd", count=3, suffix=" Only the number.")
    held_out = list(read_examples(ReasoningGymData(generator="gcd", start=2, count=3, suffix=" Think."), BASE))
    for labelled in (True, False):
        train = {"sft": training_keys(trained, BASE, labelled=labelled)}
        assert overlap.held_out(held_out, train, may_drop=True, name="test").dropped == 1


def test_training_keys_follow_the_kind_of_row() -> None:
    chat = InlineData(rows=({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},))
    assert len(training_keys(chat, BASE, labelled=True)) == 1
    with pytest.raises(DataError):
        training_keys(chat, BASE, labelled=False)


def test_a_fingerprint_changes_with_the_file_and_not_with_its_name(tmp_path: Path) -> None:
    save(tmp_path / "a.jsonl")
    save(tmp_path / "b.jsonl")
    save(tmp_path / "c.jsonl", ROWS[:1])
    a, b, c = (fingerprint(FileData(path=f"{name}.jsonl"), tmp_path) for name in "abc")
    assert a == b != c
    with pytest.raises(DataError, match="cannot read the file"):
        fingerprint(FileData(path="d.jsonl"), tmp_path)


def test_a_fingerprint_of_inline_rows_does_not_depend_on_key_order() -> None:
    swapped = tuple(dict(reversed(row.items())) for row in ROWS)
    assert fingerprint(InlineData(rows=ROWS), BASE) == fingerprint(InlineData(rows=swapped), BASE)
    assert fingerprint(InlineData(rows=ROWS), BASE) != fingerprint(InlineData(rows=ROWS[:1]), BASE)


def test_a_fingerprint_of_a_generator_changes_with_every_field() -> None:
    base: dict[str, Any] = {"generator": "gcd", "count": 3}
    changes: list[dict[str, Any]] = [
        {},
        {"generator": "chain_sum"},
        {"count": 4},
        {"start": 1},
        {"suffix": "?"},
        {"params": {"max_value": 9}},
    ]
    assert len({fingerprint(ReasoningGymData(**{**base, **change}), BASE) for change in changes}) == len(changes)


def test_the_type_of_earlier_recipes_still_means_a_file() -> None:
    stage = {"type": "sft", "data": {"type": "jsonl", "path": "a.jsonl"}}
    assert parse({"model": "m", "stages": [stage]}).stages[0].data == FileData(path="a.jsonl")


def test_several_sources_are_read_one_after_the_other(tmp_path: Path) -> None:
    save(tmp_path / "a.jsonl")
    data = (FileData(path="a.jsonl"), InlineData(rows=ROWS[:1], grader=StringCheck()))
    rows = list(read_examples(data, tmp_path))
    assert [row.id for row in rows] == ["a:1", "a:2", "inline:1"]
    assert [bool(row.grader) for row in rows] == [False, False, True]
    assert fingerprint(data, tmp_path) != fingerprint(data[:1], tmp_path)
    with pytest.raises(ConfigError, match="imitated, not graded"):
        list(read_labelled(data, tmp_path))


def test_held_out_keys_alone_are_kept_where_they_are_given() -> None:
    data = InlineData(rows=ROWS)
    every = training_keys(data, BASE, labelled=True)
    one = {sorted(every)[0]}
    assert len(every) == 2
    assert training_keys(data, BASE, labelled=True, among=one | {b"another"}) == one


def test_generated_problems_are_no_preferences() -> None:
    with pytest.raises(ConfigError, match="one answer, not two"):
        list(read_preferences(ReasoningGymData(generator="gcd", count=1), BASE))
