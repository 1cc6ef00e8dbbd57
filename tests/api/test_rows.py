"""Rows in the forms in which people hold them: each gives the same plain values, or an error with row and column."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
import torch

import sharpen as sh
from sharpen.api.rows import rows, source
from sharpen.config.data import FileData, InlineData
from sharpen.errors import ConfigError, DataError

PLAIN = [{"prompt": "one", "answer": "x", "n": 1}, {"prompt": "two", "answer": "y", "n": 2}]


class Polars:
    """What a polars DataFrame can do, as far as it matters here."""

    def __init__(self, made: list[dict[str, Any]]) -> None:
        self.made = made

    @property
    def columns(self) -> list[str]:
        return list(self.made[0])

    def __len__(self) -> int:
        return len(self.made)

    def to_dicts(self) -> list[dict[str, Any]]:
        return self.made


FORMS = [
    PLAIN,
    tuple(PLAIN),
    iter(PLAIN),
    pd.DataFrame(PLAIN),
    pd.DataFrame(PLAIN).convert_dtypes(),
    pd.DataFrame(PLAIN, index=["p", "q"]).astype({"answer": "category"}),
    datasets.Dataset.from_list(PLAIN),
    datasets.Dataset.from_list(PLAIN).with_format("numpy"),
    pa.Table.from_pylist(PLAIN),
    Polars(PLAIN),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_every_form_gives_the_same_rows(form: Any) -> None:
    found = rows(form)
    assert found == PLAIN
    assert all(type(value) in (str, int) for row in found for value in row.values())


def test_a_stage_an_eval_and_validation_take_a_table() -> None:
    frame, data = pd.DataFrame(PLAIN), InlineData(rows=tuple(PLAIN))
    rft = sh.RFT(datasets.Dataset.from_list(PLAIN), grader="string_check", validation=frame)
    assert (rft.data, rft.validation) == (data, data)  # type: ignore[union-attr]
    assert sh.SFT(frame, validation=frame).validation == data
    assert sh.Eval(frame, grader="math").data == data  # type: ignore[union-attr]
    split = sh.SFT({"rows": frame, "split": {"test": 0.5}, "columns": {"completion": "answer"}}).data
    assert isinstance(split, InlineData) and split.rows == tuple(PLAIN) and split.split and split.split.test == 0.5
    assert sh.SFT([FileData(path="a"), FileData(path="b")]).data == (FileData(path="a"), FileData(path="b"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (torch.tensor([1.5, 2.5]), [1.5, 2.5]),
        (pd.Timestamp("2026-11-27 08:30"), "2026-11-27T08:30:00"),
        (pd.Timestamp("2026-11-27 08:30", tz="UTC"), "2026-11-27T08:30:00+00:00"),
        (np.datetime64("2026-11-27T08:30", "ns"), "2026-11-27T08:30:00"),
        (datetime(2026, 11, 27, tzinfo=UTC), "2026-11-27T00:00:00+00:00"),
        (date(2026, 11, 27), "2026-11-27"),
        (time(8, 30), "08:30:00"),
        ([{"role": "user", "content": "hi"}, (1, None)], [{"role": "user", "content": "hi"}, [1, None]]),
        ({"a": np.array([np.int8(1)])}, {"a": [1]}),
        (math.pi, math.pi),
        (None, None),
    ],
)
def test_values_become_plain_ones(value: Any, expected: Any) -> None:
    (row,) = rows([{"prompt": "p", "value": value}])
    assert row["value"] == expected and type(row["value"]) is type(expected)


@pytest.mark.parametrize("empty", [None, float("nan"), np.float32("nan"), pd.NaT, pd.NA])
def test_an_empty_cell_of_a_table_is_left_out_as_in_a_csv_file(empty: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame({"prompt": ["p", "q"], "answer": pd.Series(["x", empty], dtype=object)})
    assert rows(frame) == [{"prompt": "p", "answer": "x"}, {"prompt": "q"}]
    frame.to_csv(tmp_path / "rows.csv", index=False)
    from sharpen.data.files import rows as read

    assert rows(frame) == [record for _, record in read(tmp_path / "rows.csv")]


def test_a_column_may_be_called_like_a_method_that_tables_are_known_by() -> None:
    named = {"features": 1, "column_names": "a", "to_dicts": "b", "columns": "c"}
    assert rows(pd.DataFrame([named])) == [named]


STREAM = datasets.Dataset.from_list(PLAIN).to_iterable_dataset()
AGAIN: list[Any] = []
AGAIN.append(AGAIN)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pd.DataFrame({"a": ["x", "y"], "b": ["z", b"raw"]}), "DataFrame:2:b: bytes is no type of JSON"),
        (pd.DataFrame({"a": [1.0, float("inf")]}), "DataFrame:2:a: not a finite number (got inf)"),
        (pd.DataFrame({"a": [pd.Timedelta("1s")]}), "DataFrame:1:a: Timedelta is no type of JSON"),
        (pd.DataFrame({"a": [{"b": {1, 2}}]}), "DataFrame:1:a.b: set is no type of JSON"),
        (pd.DataFrame([[1, 2]]), "DataFrame: a column's name is not text (got 0)"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "DataFrame:a: a column occurs twice"),
        (pd.DataFrame(PLAIN)["prompt"], "Series:1: a row is no dict, but str (got 'one')"),
        ([{"a": 1}, {"a": float("nan")}], "list:2:a: not a finite number (got nan)"),
        ([{"a": [0, {"b": float("nan")}]}], "list:1:a.1.b: not a finite number"),
        ([{"a": {1: 2}}], "list:1:a: a key is not text (got 1)"),
        ([{1: 2}], "list:1: a key is not text (got 1)"),
        ([{"a": AGAIN}], "list:1: nested too deep"),
        (["a question"], "list:1: a row is no dict, but str"),
        (3, "this is no data (got 3)"),
        (datasets.DatasetDict(train=datasets.Dataset.from_list(PLAIN)), "Name one: data['train']"),
        (STREAM, "IterableDataset: the rows are not read yet, and may have no end. Take what you want"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_what_is_no_row_is_refused_with_its_place(data: Any, said: str) -> None:
    with pytest.raises(DataError) as refused:
        source(data)
    assert said in str(refused.value)


def test_what_was_taken_from_a_stream_are_rows() -> None:
    assert rows(list(STREAM.take(1))) == PLAIN[:1]


def test_a_mapping_that_is_no_source_is_told_what_one_has() -> None:
    with pytest.raises(ConfigError, match="prompt"):
        sh.SFT({"prompt": ["one"], "completion": ["two"]})
