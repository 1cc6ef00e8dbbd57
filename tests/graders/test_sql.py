"""`sql`: what is the same result, what a query may do, and whose fault a failure is."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharpen.config.graders import Sql
from sharpen.config.load import dump, parse
from sharpen.graders.pool import GraderPool
from sharpen.graders.sql import ends_with_order, find_query, same
from sharpen.types import Example, Grade, Sample

TABLE = "CREATE TABLE t (a INTEGER, b TEXT, c REAL); INSERT INTO t VALUES (1, 'x', 0.1), (2, 'y', 0.2), (3, 'y', 0.3);"


def grade(query: str, reference: str = "SELECT a FROM t", schema: Any = TABLE, **fields: Any) -> Grade:
    item = {"answer": reference, "schema": schema}
    made: Grade = asyncio.run(Sql(**fields).build().grade(Example("e", (), item), Sample(query)))
    return made


def kind(given: Grade) -> str:
    return given.fault.kind if given.fault else ""


def test_the_fields_decide() -> None:
    backwards = "SELECT a FROM t ORDER BY a DESC"
    assert grade(backwards).score == 1
    assert grade(backwards, ordered=True).score == 0
    assert grade(backwards, "SELECT a FROM t ORDER BY a").score == 0
    assert grade(backwards, "SELECT a FROM t ORDER BY a", ordered=False).score == 1
    assert grade("SELECT 0.30000001").score == 0
    assert grade("SELECT 0.30000001", "SELECT SUM(c) / 2 FROM t").score == 1
    assert grade("SELECT 0.30000001", "SELECT SUM(c) / 2 FROM t", rel_tolerance=1e-9).score == 0
    item = {"gold": "SELECT 1", "made": "CREATE TABLE u (a)"}
    config = Sql(reference="{{ item.gold }}", schema="{{ item.made }}")
    made = asyncio.run(config.build().grade(Example("e", (), item), Sample("SELECT COUNT(*) + 1 FROM u")))
    assert made.score == 1


ROWS: list[tuple[Any, ...]] = [(1, "a", None), (1.0, "b", b"z"), (2, "a", 0.1 + 0.2), (2, "a", 0.3), (None, None, None)]


def test_rows_without_order_are_a_multiset_in_every_order() -> None:
    for found in itertools.permutations(ROWS):
        assert same(list(found), ROWS, False, 1e-6)
        assert same(list(found), ROWS, True, 1e-6) == (list(found)[:2] == ROWS[:2] and found[4] == ROWS[4])
    assert not same(ROWS[:4], ROWS, False, 1e-6)
    assert not same([*ROWS[:4], ROWS[0]], ROWS, False, 1e-6), "how often a row occurs counts"


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ((1,), (1.0,), True),
        ((1,), ("1",), False),
        ((None,), (0,), False),
        ((None,), ("",), False),
        (("a",), ("A",), False),
        (("a",), (b"a",), False),
        ((1, 2), (2, 1), False),
        ((1,), (1, 1), False),
        ((2**62,), (2**62 + 1,), False),
        ((0.1 + 0.2,), (0.3,), True),
        ((1e308,), (float("inf"),), False),
    ],
)
def test_values_are_equal_by_type_and_tolerance(left: tuple[Any, ...], right: tuple[Any, ...], equal: bool) -> None:
    assert same([left], [right], False, 1e-6) is same([left], [right], True, 1e-6) is equal


@pytest.mark.parametrize(
    ("query", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t order\n\tby a limit 1", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT ROW_NUMBER() OVER (ORDER BY a) FROM t", False),
        ("WITH u AS (SELECT 1 ORDER BY 1) SELECT * FROM u ORDER BY 1", True),
        ("SELECT ' ORDER BY ' FROM t -- ORDER BY a", False),
        ('SELECT a AS "order by" FROM t /* ORDER BY a */', False),
        ("SELECT a FROM t WHERE b = 'it''s (' ORDER BY a", True),
        ("SELECT order_by FROM t", False),
    ],
)
def test_a_reference_that_orders_its_rows_is_recognised(query: str, ordered: bool) -> None:
    assert ends_with_order(query) is ordered


def test_the_query_is_the_last_block_that_may_be_one() -> None:
    assert find_query("```sql\nSELECT 1\n```\nor\n```SQL\nSELECT 2\n```\n```python\nx\n```") == "SELECT 2\n"
    assert find_query("```sqlite\nSELECT 1") == "SELECT 1", "a block may be cut off"
    assert find_query(" SELECT 3 ") == " SELECT 3 "


FORBIDDEN = [
    "INSERT INTO t VALUES (4, 'z', 0)",
    "UPDATE t SET a = 1",
    "DROP TABLE t",
    "CREATE TEMP TABLE u AS SELECT * FROM t",
    "PRAGMA writable_schema = ON",
    "SELECT * FROM pragma_database_list",
    "ATTACH 'FILE' AS other",
    "VACUUM INTO 'FILE'",
    "BEGIN",
    "SELECT load_extension('libc.so.6')",
    "SELECT a FROM t ORDER BY random()",
    "SELECT randomblob(4)",
    "SELECT a FROM t; SELECT a FROM t",
    "SELECT ?",
    "SELECT a FROM t WHERE",
    "EXPLAIN",
    "SELECT \x00 1",
    "SELECT '\ud800'",
]


@pytest.mark.parametrize("query", FORBIDDEN)
def test_a_query_reads_and_does_nothing_else(query: str, tmp_path: Path) -> None:
    given = grade(query.replace("FILE", str(tmp_path / "made")))
    assert (given.score, kind(given)) == (0.0, "sample_parse_error"), given
    assert given.metrics == {"format": 0.0, "agreed": 0.0}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("statement", ["ATTACH 'FILE' AS other", "VACUUM INTO 'FILE'"])
def test_a_script_makes_its_database_and_no_file(statement: str, tmp_path: Path) -> None:
    script = f"{TABLE} {statement};".replace("FILE", str(tmp_path / "made"))
    given = grade("SELECT a FROM t", schema=script)
    assert (given.score, kind(given)) == (None, "invalid_variable_error")
    assert not list(tmp_path.iterdir())


LOOP = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        (f"SELECT COUNT(*) FROM ({LOOP})", "timeout"),
        (f"SELECT printf('%900000d', i) AS s FROM ({LOOP} LIMIT 2000) ORDER BY s", "oom"),
        ("SELECT printf('%900000d', 1) || printf('%900000d', 1)", "sample_parse_error"),
        (f"SELECT SUM(9223372036854775807) FROM ({LOOP} LIMIT 2)", "sample_parse_error"),
        ("SELECT " + "(" * 2000 + "1" + ")" * 2000, "sample_parse_error"),
    ],
)
def test_a_query_without_end_or_measure_is_the_completions_fault(query: str, fault: str) -> None:
    with GraderPool(Sql(), workers=1) as pool:
        item = {"answer": "SELECT a FROM t", "schema": TABLE}
        pairs = [(Example("e", (), item), Sample(text)) for text in (query, "SELECT a FROM t")]
        given, next_one = asyncio.run(pool.grade_many(pairs))
    assert (given.score, kind(given)) == (0.0, fault), given
    assert next_one.score == 1.0


def test_too_many_rows_are_wrong_rows_and_a_reference_with_so_many_is_refused() -> None:
    many = f"{LOOP} LIMIT 20000"
    assert (grade(many).score, kind(grade(many))) == (0.0, "")
    refused = grade("SELECT a FROM t", reference=many)
    assert (refused.score, kind(refused)) == (None, "invalid_variable_error")


@pytest.mark.parametrize(
    ("reference", "schema"),
    [
        ("SELECT missing FROM t", TABLE),
        ("", TABLE),
        ("DROP TABLE t", TABLE),
        (f"SELECT COUNT(*) FROM ({LOOP})", TABLE),
        ("SELECT a FROM t", "CREATE TABEL t"),
        ("SELECT a FROM t", f"CREATE TABLE t AS {LOOP}"),
        ("SELECT a FROM t", [TABLE, 7]),
        ("SELECT a FROM t", []),
        ("SELECT a FROM t", {"a": TABLE}),
        ("SELECT a FROM t", [TABLE, "CREATE TABLE u (a)"]),
    ],
)
def test_a_reference_or_database_that_does_not_work_is_the_items_fault(reference: str, schema: Any) -> None:
    given = grade("SELECT a FROM t", reference, schema)
    assert (given.score, kind(given)) == (None, "invalid_variable_error"), given


def test_a_query_that_is_right_by_chance_is_found_out_by_a_second_database() -> None:
    other = TABLE.replace("(3, 'y', 0.3)", "(3, 'x', 0.3)")
    reference, lucky = "SELECT COUNT(*) FROM t WHERE b = 'y'", "SELECT COUNT(*) FROM t WHERE a > 1"
    assert grade(lucky, reference).score == 1
    both = grade(lucky, reference, [TABLE, other])
    assert (both.score, both.metrics) == (0.0, {"format": 1.0, "agreed": 0.5})
    assert "database 2" in both.explanation
    assert grade(reference, reference, [TABLE, other]).metrics["agreed"] == 1


def test_what_is_found_is_what_sqlite_finds_by_itself() -> None:
    """Sums of a thousand rows in two orders, beside sqlite3 called directly."""
    script = "CREATE TABLE n (v REAL); " + "".join(f"INSERT INTO n VALUES ({i} / 7.0);" for i in range(1000))
    with sqlite3.connect(":memory:") as database:
        database.executescript(script)
        (total,) = database.execute("SELECT SUM(v) FROM n").fetchone()
    given = grade("SELECT SUM(v) FROM (SELECT v FROM n ORDER BY v DESC)", f"SELECT {total!r}", script)
    assert given.score == 1


def test_a_recipe_with_databases_and_similarity_survives_being_written_and_read() -> None:
    parts = {
        "query": {"type": "sql", "schema": TABLE},
        "near": {"type": "text_similarity", "evaluation_metric": "bleu"},
    }
    grader = {"type": "multi", "graders": parts, "calculate_output": "query + near"}
    read = parse({"model": "m", "stages": [{"type": "rft", "data": {"path": "a"}, "grader": grader}]})
    assert parse(yaml.safe_load(dump(read))) == read
