"""`sql`: the completion's query finds what the reference query finds, in SQLite databases made for the example.

The databases live in memory. Queries may read them and nothing else, and what they do is counted in steps of SQLite's
virtual machine, not in seconds, so that a grade does not depend on the computer.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from sharpen.config.graders import Sql
from sharpen.graders import compare
from sharpen.graders.base import completion_fault, grader_fault
from sharpen.graders.template import InvalidVariable, look_up, render
from sharpen.types import Example, Grade, Sample

BLOCK = re.compile(r"```(?:sqlite|sql)?[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
SKIPPED = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|\Z)""",
    re.DOTALL,
)
"""Texts, quoted names and comments: what looks like a word in them is none."""
WORD = re.compile(r"\w+|[()]")

MOST_STEPS = 20_000_000
"""Steps of the virtual machine for one query, or for making a database: a second or two."""
STEPS = 10_000
"""So often the steps are counted."""
MOST_ROWS = 10_000
LONGEST = 1_000_000
"""Bytes of a text or blob."""
MEMORY = 512 << 20
"""Bytes that SQLite may use for one query."""

READING = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
DENIED = ("load_extension", "random", "randomblob", "zeroblob")
"""Functions that reach out, roll dice, or take memory in one step."""

Rows = list[tuple[Any, ...]]


class _Fault(Exception):
    """A query cannot be executed: its kind, and why."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class SqlGrader:
    """1 or 0; `metrics["format"]`: the query can be executed; `agreed`: the share of databases that say it is right."""

    def __init__(self, config: Sql) -> None:
        self._config = config

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Make each database, and execute both queries in it."""
        config = self._config
        try:
            reference = render(config.reference, example, sample)
            found = look_up(config.schema, example, sample)
        except InvalidVariable as error:
            return error.grade()
        scripts = [found] if isinstance(found, str) else found
        if not isinstance(scripts, list) or not scripts or not all(isinstance(script, str) for script in scripts):
            return grader_fault("invalid_variable_error", f"the schema is no script or list of them: {found!r:.200}")
        query = find_query(sample.text)
        ordered = ends_with_order(reference) if config.ordered == "auto" else config.ordered
        wrong = []
        for number, script in enumerate(scripts, 1):
            with closing(sqlite3.connect(":memory:")) as database:
                try:
                    make(database, script)
                    right = select(database, reference)
                except _Fault as error:
                    return grader_fault("invalid_variable_error", f"database {number}, or the reference: {error}")
                if len(right) > MOST_ROWS:
                    return grader_fault("invalid_variable_error", f"the reference finds more than {MOST_ROWS:,} rows")
                try:
                    given = select(database, query)
                except _Fault as error:
                    return completion_fault(error.kind, str(error), {"format": 0.0, "agreed": 0.0})
            if not same(given, right, ordered, config.rel_tolerance):
                wrong.append(f"database {number}: {shown(given)}, not {shown(right)}")
        agreed = 1 - len(wrong) / len(scripts)
        said = wrong[0] if wrong else f"the same rows in {len(scripts)} of {len(scripts)} databases"
        return Grade(float(not wrong), {"format": 1.0, "agreed": agreed}, said)


def find_query(text: str) -> str:
    """The last block that is marked as SQL or not marked; all of the text where there is none."""
    blocks = BLOCK.findall(text)
    return blocks[-1] if blocks else text


def make(database: sqlite3.Connection, script: str) -> None:
    """Fill a database, and shut it: from here on it can be read, and nothing else. Raises _Fault."""
    database.execute(f"PRAGMA hard_heap_limit = {MEMORY}")
    database.execute("PRAGMA temp_store = MEMORY")
    database.text_factory = lambda raw: raw.decode(errors="replace")
    database.set_authorizer(_may_make)
    with _counted(database):
        database.executescript(script)
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    database.set_authorizer(_may_read)


def select(database: sqlite3.Connection, query: str) -> Rows:
    """What a query finds, with one row more than are compared. Raises _Fault."""
    if not WORD.search(SKIPPED.sub(" ", query)):
        raise _Fault("sample_parse_error", "there is no query")
    with _counted(database), closing(database.execute(query)) as cursor:
        return cursor.fetchmany(MOST_ROWS + 1)


def ends_with_order(query: str) -> bool:
    """Whether a query orders its rows: ORDER BY outside all parentheses, texts and comments."""
    depth, before = 0, ""
    for word in WORD.findall(SKIPPED.sub(" ", query)):
        depth += {"(": 1, ")": -1}.get(word, 0)
        if depth == 0 and before == "order" and word.lower() == "by":
            return True
        before = word.lower()
    return False


def same(found: Rows, expected: Rows, ordered: bool, rel_tolerance: float) -> bool:
    """Whether the rows are equal; without order, as multisets."""
    if len(found) != len(expected):
        return False
    if not ordered:
        found, expected = sorted(found, key=_place), sorted(expected, key=_place)
    return compare.equal(found, expected, rel_tolerance)


def shown(rows: Rows) -> str:
    """How many rows there are, and the first of them."""
    return f"{len(rows):,} rows, {rows[:3]!r:.200}"


def _place(row: Sequence[Any]) -> tuple[Any, ...]:
    """Where a row is sorted: by what is equal or not, and only then by its numbers.

    They are rounded, for two sums of the same numbers may differ in their last digits.
    """
    exact = [(0, b"") if value is None else (1, _bytes(value)) for value in row if not _number(value)]
    return [_number(value) for value in row], exact, [float(f"{value:.9g}") for value in row if _number(value)]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode(errors="replace")


def _may_make(action: int, *_: str | None) -> int:
    """What a script may do, which SQLite asks before each thing: all but to open files (`VACUUM INTO` does so too)."""
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK


def _may_read(action: int, name: str | None, function: str | None, *_: str | None) -> int:
    """What a query may do."""
    allowed = action in READING and not (action == sqlite3.SQLITE_FUNCTION and str(function).lower() in DENIED)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


@contextmanager
def _counted(database: sqlite3.Connection) -> Iterator[None]:
    """Inside this block statements have so many steps. Raises _Fault for whatever SQLite raises."""
    used = 0

    def step() -> bool:
        nonlocal used
        used += STEPS
        return used > MOST_STEPS

    database.set_progress_handler(step, STEPS)
    try:
        yield
    except MemoryError as error:
        raise _Fault("oom", f"more than {MEMORY:,} bytes of memory") from error
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        if used > MOST_STEPS:
            raise _Fault("timeout", f"stopped after {MOST_STEPS:,} steps of SQLite's machine") from error
        raise _Fault("sample_parse_error", f"{type(error).__name__}: {error}") from error
    finally:
        database.set_progress_handler(None, 0)
