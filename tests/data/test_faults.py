"""docs/data-faults.md: what is said of every bad file there is what happens to it.

`PYTHONPATH=src:. python tests/data/test_faults.py` writes the table's last column anew.
"""

from __future__ import annotations

import json
import re
import tempfile
import tracemalloc
from pathlib import Path

import pytest

from sharpen.data import files, formats, read
from sharpen.data.check import Report, check
from sharpen.data.formats.parts import Purpose
from sharpen.data.render import Renderer
from sharpen.errors import DataError
from sharpen.types import Labelled
from tests.tiny import tiny_tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "data-faults.md"
FILES = Path(__file__).parent / "bad"
END = 2  # <|im_end|>
MAX_LENGTH = 200
ROW = re.compile(r"^\| `(\S+)` \| (sft|rft) \|.*\| (.*) \|$", re.M)

_ROW = b'{"prompt": "1+1=", "completion": "2"}'
BUILT = {
    "utf-16-le-marked": b"\xff\xfe" + _ROW.decode().encode("utf-16-le"),
    "utf-16-be-marked": b"\xfe\xff" + _ROW.decode().encode("utf-16-be"),
    "utf-16-le": _ROW.decode().encode("utf-16-le"),
    "utf-16-be": _ROW.decode().encode("utf-16-be"),
    "utf-32": _ROW.decode().encode("utf-32"),
    "latin-1": _ROW + b'\n{"prompt": "caf\xe9", "completion": "2"}\n' + _ROW,
    "surrogate-bytes": b'{"prompt": "\xed\xa0\x80", "completion": "2"}',
    "overlong-utf-8": b'{"prompt": "\xc0\xaf", "completion": "2"}',
    "cut-off-character": b'{"prompt": "caf\xc3',
    "nul": _ROW[:-1] + b"\0}",
    "only-nul": b"\0" * 512,
    "bom": b"\xef\xbb\xbf" + _ROW,
    "bom-twice": b"\xef\xbb\xbf" * 2 + _ROW,
    "bom-later": _ROW + b"\n\xef\xbb\xbf" + _ROW,
    "bom-alone": b"\xef\xbb\xbf",
    "crlf": _ROW + b"\r\n\r\n" + _ROW + b"\r\n",
    "cr": _ROW + b"\r" + _ROW,
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff\xabV*(\xca\xcf-(\x01",
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "empty": b"",
    "blank": b"\n \r\n\t\n",
    "nested-100000": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n" + _ROW,
    "endless-nesting": b'{"a":' * 100_000,
    "long-line": b'{"prompt": "' + b"x" * 2**26 + b'", "completion": "2"}\n' + _ROW,
}
"""Files that an editor would spoil, or that are large."""


def table() -> dict[str, tuple[Purpose, str]]:
    """Each case of the page: for which stage, and the outcome."""
    found: dict[str, tuple[Purpose, str]] = {}
    for name, purpose, outcome in re.findall(
        r"^\| `(\S+)` \| (sft|rft) \|.*\| (.*) \|$", PAGE.read_text("utf-8"), re.M
    ):
        assert name not in found, f"{name} stands there twice"
        found[name] = (purpose, outcome)
    return found


def look(name: str, purpose: Purpose, folder: Path) -> str:
    """What `sharpen data check` says of a case, in the words of the page."""
    path = FILES / f"{name}.jsonl"
    if name in BUILT:
        path = folder / f"{name}.jsonl"
        path.write_bytes(BUILT[name])
    renderer = Renderer(tiny_tokenizer(), frozenset({END}))
    report = check(path, purpose, renderer=renderer, max_length=MAX_LENGTH)
    faults = [f"**refused** {_place(fault.line, fault.field)}{fault.fact}" for fault in report.faults]
    assert all(fault.file == str(path) and fault.remedy for fault in report.faults)
    return "; ".join(faults + _accepted(path, report, renderer)).replace("|", "\\|")


def _place(line: int | None, field: str) -> str:
    places = [f"line {line}"] if line else []
    return ", ".join(places + ([f"`{field}`"] if field else [])) + (": " if line else "")


def _accepted(path: Path, report: Report, renderer: Renderer) -> list[str]:
    """How many rows are good; of the first its texts, and how many turns the template closed."""
    if report.rendered is None:
        return []
    good, line = report.rows - report.faulty, report.rendered.line
    record, where = next((row, where) for where, row in files.records(path) if where.line == line)
    assert isinstance(record, dict)
    row = formats.labelled(record, where) if report.purpose == "sft" else formats.example(record, where)
    tokens = renderer.labelled(row, MAX_LENGTH).tokens if isinstance(row, Labelled) else renderer.example(row)
    closed = tokens.count(END)
    texts = json.dumps([turn["content"] for turn in row.messages])
    return [f"{_count(good, 'row')} accepted: `{texts}`, {_count(closed, 'turn')} closed"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


CASES = table()


def test_the_page_lists_every_file_and_sixty_refusals() -> None:
    assert CASES.keys() == BUILT.keys() | {path.stem for path in FILES.iterdir()}
    assert sum("**refused**" in outcome for _, outcome in CASES.values()) >= 60


@pytest.mark.parametrize("name", CASES)
def test_a_bad_file_has_the_outcome_that_the_page_says(name: str, tmp_path: Path) -> None:
    purpose, outcome = CASES[name]
    assert look(name, purpose, tmp_path) == outcome


def test_a_training_run_stops_at_the_first_fault_that_the_check_lists() -> None:
    path = FILES / "good-among-bad.jsonl"
    with pytest.raises(DataError) as caught:
        list(files.rows(path))
    assert (caught.value.line, check(path, "sft").faults[0].line) == (2, 2)


def test_a_line_over_the_limit_is_skipped_and_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    fits = b'{"a": "' + b"x" * 90 + b'"}'
    path.write_bytes(fits + b"\n" + fits + b" \n" + fits + b"x" * 3_000_000 + b'\n{"a": 1}\n' + fits + b" ")
    found = [(where.line, getattr(row, "fact", row)) for where, row in read.records(path, max_line=len(fits))]
    record, long = {"a": "x" * 90}, f"a line of more than {len(fits)} bytes"
    assert found == [(1, record), (2, long), (3, long), (4, {"a": 1}), (5, long)]


@pytest.mark.long
def test_a_line_of_a_gibibyte_is_a_fault_found_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.seek(2**30)  # a hole: the disk holds nothing of it
        file.write(b"\n" + _ROW)
    tracemalloc.start()
    try:
        report = check(path, "sft")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(fault.line, fault.fact) for fault in report.faults] == [(1, f"a line of more than {read.MAX_LINE} bytes")]
    assert report.rows == 2
    assert peak < 4 * read.MAX_LINE


def filled(line: str, folder: Path) -> str:
    """A line of the page, its outcome as it is now."""
    row = ROW.match(line)
    if row is None:
        return line
    name, purpose, _ = row.groups()
    return line[: row.start(3)] + look(name, "sft" if purpose == "sft" else "rft", folder) + " |"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        lines = [filled(line, Path(scratch)) for line in PAGE.read_text("utf-8").splitlines()]
    PAGE.write_text("\n".join(lines) + "\n", "utf-8")
