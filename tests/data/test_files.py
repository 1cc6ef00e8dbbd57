"""Containers: JSON arrays, CSV, TSV, Parquet, told by content and name; and what every bad one is told."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from sharpen.data import array, files, quick, read
from sharpen.errors import DataError

ROWS: list[dict[str, Any]] = [{"prompt": "1+1=", "completion": "2"}, {"prompt": 'a, "b"\nc', "completion": "é\u2028"}]


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def records(path: Path) -> list[dict[str, Any]]:
    return [record for _, record in files.rows(path)]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.txt"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_told_by_its_first_bracket(tmp_path: Path, name: str, indent: int | None) -> None:
    path = write(tmp_path / name, "\ufeff \n" + json.dumps(ROWS, indent=indent) + "\n")
    assert records(path) == ROWS
    assert [where.line for where, _ in files.rows(path)] == [1, 2]


def test_lines_are_read_under_the_name_json_as_well(tmp_path: Path) -> None:
    assert records(write(tmp_path / "rows.json", "\n".join(map(json.dumps, ROWS)))) == ROWS


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.dictionaries(st.text("ab", max_size=3), st.text('x"\\[]{},é\u2028😀 ', max_size=40)), max_size=12),
    chunk=st.integers(1, 40),
)
def test_an_array_is_the_same_through_a_window_of_any_size(
    tmp_path: Path, rows: list[dict[str, str]], chunk: int
) -> None:
    path = write(tmp_path / "rows.json", json.dumps(rows, ensure_ascii=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array, "CHUNK", chunk)
        assert [record for _, record in array.records(path)] == rows


def test_an_array_is_read_a_window_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.json", json.dumps([{"a": "x" * 100}] * 1000))
    monkeypatch.setattr(array, "CHUNK", 1000)
    widest = 0
    more = array._Window._more

    def watched(window: array._Window) -> bool:
        nonlocal widest
        found = more(window)
        widest = max(widest, len(window._text))
        return found

    monkeypatch.setattr(array._Window, "_more", watched)
    assert len(records(path)) == 1000
    assert widest < 3000, "not the whole 110 kB"


ARRAY_FAULTS: dict[str, tuple[bytes | str, int | None, str]] = {
    "a number": ('[{"a": 1}, 3, {"a": 2}]', 2, "not a JSON object"),
    "NaN": ('[{"a": NaN}]', 1, "not a finite number"),
    "key twice": ('[{"a": 1}, {"a": 1, "a": 2}]', 2, "the key occurs twice"),
    "cut off": ('[{"a": 1}, {"a": "x', 2, "not JSON"),
    "never closed": ('[{"a": 1}', 2, "the array breaks off"),
    "no comma": ('[{"a": 1} {"a": 2}]', 2, "not JSON"),
    "comma at the end": ('[{"a": 1},]', 2, "not JSON"),
    "more after it": ('[{"a": 1}]{"a": 2}', 2, "after the end"),
    "not UTF-8": (b'[{"a": "caf\xe9"}]', 1, "not valid UTF-8"),
    "NUL": (b'[{"a": "\0"}]', 1, "NUL byte"),
    "deep": ("[" + '{"a":' * 100_000, 1, "nested too deep"),
    "empty": ("[]", None, "no rows"),
    "unquoted, early in a long file": ("[{a: 1}" + ', {"a": 1}' * 100_000 + "]", 1, "not JSON"),
}


@pytest.mark.parametrize("name", ARRAY_FAULTS)
def test_a_broken_array_is_told_the_row_and_a_remedy(tmp_path: Path, name: str) -> None:
    content, line, fact = ARRAY_FAULTS[name]
    path = write(tmp_path / "rows.json", content)
    with pytest.raises(DataError) as caught:
        records(path)
    assert (caught.value.file, caught.value.line) == (str(path), line)
    assert fact in caught.value.fact and caught.value.remedy


def test_a_bad_row_does_not_hide_the_later_ones(tmp_path: Path) -> None:
    found = list(files.records(write(tmp_path / "a.json", '[{"a": 1}, 3, {"a": 1e999}, {"a": 2}]')))
    assert [where.line for where, _ in found] == [1, 2, 3, 4]
    assert [isinstance(record, DataError) for _, record in found] == [False, True, True, False]
    cells = list(files.records(write(tmp_path / "a.csv", "a,b\n1,2\n3\n5,6\n")))
    assert [isinstance(record, DataError) for _, record in cells] == [False, True, False]


def test_a_row_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array, "MAX_ROW", 1000)
    monkeypatch.setattr(array, "CHUNK", 100)
    path = write(tmp_path / "a.json", json.dumps([{"a": "x" * 900}, {"a": "x" * 3000}]))
    with pytest.raises(DataError, match=r"a\.json:2: a row of more than 1000 characters"):
        records(path)


def test_csv_and_tsv_rows_come_with_the_line_they_begin_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.CSV", '\ufeffprompt, completion\r\n1+1=,2\r\n\r\n"a, ""b""\nc",é\r\nx,\r\n')
    found = list(files.rows(path))
    assert [record for _, record in found] == [
        {"prompt": "1+1=", "completion": "2"},
        {"prompt": 'a, "b"\nc', "completion": "é"},
        {"prompt": "x"},  # an empty cell is as absent
    ]
    assert [where.line for where, _ in found] == [2, 4, 6]
    assert records(write(tmp_path / "a.tsv", "a\tb\n1,5\t2\n")) == [{"a": "1,5", "b": "2"}]


TABLE_FAULTS: dict[str, tuple[bytes | str, int | None, str, str]] = {
    "ragged": ("a,b\n1,2\n3\n", 3, "", "1 cells, but the header names 2 columns"),
    "too many": ("a,b\n1,2,3\n", 2, "", "3 cells, but the header names 2"),
    "column twice": ("a,a\n1,2\n", 1, "a", "a column occurs twice"),
    "nameless column": ("a,\n1,2\n", 1, "", "a column has no name"),
    "empty": ("", 1, "", "a column has no name"),
    "header alone": ("a,b\n", None, "", "no rows"),
    "quote left open": ('a,b\n1,"2\n3,4\n', 2, "", "not CSV"),
    "not UTF-8": (b"a,b\n1,caf\xe9\n", 2, "", "not valid UTF-8"),
    "NUL": (b"a,b\n1,\0\n", 2, "b", "NUL"),
}


@pytest.mark.parametrize("name", TABLE_FAULTS)
def test_a_bad_table_is_told_its_line_and_remedy(tmp_path: Path, name: str) -> None:
    content, line, field, fact = TABLE_FAULTS[name]
    path = write(tmp_path / "rows.csv", content)
    with pytest.raises(DataError) as caught:
        records(path)
    assert (caught.value.file, caught.value.line, caught.value.field) == (str(path), line, field)
    assert fact in caught.value.fact and caught.value.remedy


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_parquet_rows_are_numbered_over_all_batches(tmp_path: Path) -> None:
    rows = [{"n": number, "messages": [{"role": "user", "content": "é", "name": None}]} for number in range(1200)]
    path = table(tmp_path / "a.parquet", rows)
    assert records(path) == rows
    assert [where.line for where, _ in files.rows(path)] == list(range(1, 1201))
    assert records(path.rename(tmp_path / "a.data")) == rows, "told by its content"


def test_a_bad_parquet_file_is_told_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a Parquet file that can be read"):
        records(write(tmp_path / "a.parquet", "no parquet"))
    with pytest.raises(DataError, match="no rows"):
        records(table(tmp_path / "b.parquet", [{"a": 1}][:0]))
    with pytest.raises(DataError, match=r"c\.parquet:1:when: a date is not JSON"):
        records(table(tmp_path / "c.parquet", [{"when": date(2026, 1, 1)}]))
    whole = table(tmp_path / "d.parquet", [{"a": 1}]).read_bytes()
    with pytest.raises(DataError, match="not a Parquet file that can be read"):
        records(write(tmp_path / "e.parquet", whole[:40]))


@pytest.mark.parametrize(("start", "name"), [(b"\x1f\x8b\x08", "gzip"), (b"PK\x03\x04", "zip"), (b"BZh9", "bzip2")])
def test_packed_files_are_named(tmp_path: Path, start: bytes, name: str) -> None:
    with pytest.raises(DataError, match=f"a {name}.* file.*Unpack it"):
        records(write(tmp_path / "a.jsonl.gz", start + b"rest"))


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet", "none.json"):
        with pytest.raises(DataError, match="cannot read the file"):
            records(tmp_path / name)


LINES = [
    '{"a": 1, "b": [1.5, null, true, "\\u00e9"]}',
    '{"a": "\\ud83d\\ude00"}',
    '{"a": "\\ud83d"}',
    '{"a": "\\u0000"}',
    '{"a": NaN}',
    '{"a": 1e999}',
    '{"a": 1, "a": 2}',
    '{"a": ' + "[" * 101 + "]" * 101 + "}",
    '{"a": "' + "[" * 200 + '"}',
    "[1]",
    "3",
    "{",
    "{}",
]


@pytest.mark.parametrize("line", LINES)
def test_the_quick_way_gives_what_the_careful_way_gives_or_nothing(tmp_path: Path, line: str) -> None:
    found = quick.record(line)
    where = read.Where("a", 1)
    try:
        careful = read._parse(line, where)
        read.check(careful, where)
    except DataError:
        assert found is None
    else:
        assert found in (None, careful)
