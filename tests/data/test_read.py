"""Reading JSONL: what is accepted, and what every bad file is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharpen.data import files, read
from sharpen.errors import DataError

ROW = b'{"prompt": "1+1=", "completion": "2"}'


def write(folder: Path, content: bytes) -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    return path


def records(path: Path) -> list[dict[str, object]]:
    return [record for _, record in files.rows(path)]


def test_rows_come_with_their_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"a": 1}\n\n  \t\n{"a": 2}')
    assert [(where.file, where.line, record) for where, record in files.rows(path)] == [
        (str(path), 1, {"a": 1}),
        (str(path), 4, {"a": 2}),
    ]


def test_rows_are_streamed_so_a_late_fault_does_not_hide_early_rows(tmp_path: Path) -> None:
    rows = files.rows(write(tmp_path, b'{"a": 1}\nbad\n'))
    assert next(rows)[1] == {"a": 1}
    with pytest.raises(DataError):
        next(rows)


def test_bom_crlf_and_a_missing_last_newline_are_accepted(tmp_path: Path) -> None:
    assert records(write(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_unicode_line_separators_stay_inside_a_row(tmp_path: Path, separator: str) -> None:
    text = json.dumps({"a": f"x{separator}y"}, ensure_ascii=separator < " ")
    assert records(write(tmp_path, text.encode())) == [{"a": f"x{separator}y"}]


BAD = {
    "utf-16": ('{"a": 1}'.encode("utf-16"), 1, "", "UTF-16"),
    "utf-16 without a mark": ('{"a": 1}'.encode("utf-16-le"), 1, "", "UTF-16"),
    "utf-32": ('{"a": 1}'.encode("utf-32"), 1, "", "UTF-16 or UTF-32"),
    "latin-1": (ROW + b'\n{"a": "caf\xe9"}', 2, "", "not valid UTF-8 at byte 11"),
    "a surrogate as bytes": (b'{"a": "\xed\xa0\x80"}', 1, "", "not valid UTF-8"),
    "NUL": (b'{"a": "\x00"}', 1, "", "NUL byte"),
    "escaped NUL": (b'{"a": ["b", "\\u0000"]}', 1, "a.1", "NUL character"),
    "NaN": (b'{"a": {"b": NaN}}', 1, "a.b", "not a finite number"),
    "Infinity": (b'{"a": -Infinity}', 1, "a", "not a finite number"),
    "1e999": (ROW + b'\n\n{"a": 1e999}', 3, "a", "not a finite number"),
    "key twice": (b'{"a": {"b": 1, "c": 2, "b": 1}}', 1, "b", "the key occurs twice"),
    "deep": (b'{"a":' * 100_000, 1, "", "nested more than 100 levels"),
    "deep but parsable": (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", 1, "a", "nested more than 100 levels"),
    "lone surrogate": (b'{"a": "\\ud800"}', 1, "a", "lone surrogate"),
    "lone surrogate in a key": (b'{"a": {"\\udc00": 1}}', 1, "a", "lone surrogate"),
    "a number": (b"3", 1, "", "not a JSON object"),
    "cut off": (ROW + b'\n{"a": "x', 2, "", "not JSON"),
    "indented": (b'{\n "a": 1\n}', 1, "", "not JSON"),
    "huge integer": (b'{"a": ' + b"9" * 5000 + b"}", 1, "", "more than 4300 digits"),
    "BOM later": (ROW + b'\n\xef\xbb\xbf{"a": 1}', 2, "", "not JSON"),
    "empty": (b"", None, "", "no rows"),
    "blank": (b"\n \r\n", None, "", "no rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_told_their_place_and_remedy(tmp_path: Path, name: str) -> None:
    content, line, field, fact = BAD[name]
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        records(path)
    error = caught.value
    assert (error.file, error.line, error.field) == (str(path), line, field)
    assert fact in error.fact
    assert error.remedy


def test_the_deepest_allowed_row_is_read(tmp_path: Path) -> None:
    content = b'{"a":' + b"[" * 99 + b"]" * 99 + b"}"
    assert len(records(write(tmp_path, content))) == 1


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match="cannot read the file"):
            records(path)


def test_rows_from_python_must_be_json_too() -> None:
    where = read.Where("inline", 1)
    with pytest.raises(DataError, match=r"inline:1:a\.0: a set is not JSON"):
        read.check({"a": [{1}]}, where)
    with pytest.raises(DataError, match="a key is not text"):
        read.check({"a": {1: 2}}, where)
