"""`sharpen compare` at the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharpen.cli.main import main
from tests.reports.test_comparison import run


def test_compare_prints_what_differs_and_the_claim_and_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = run(tmp_path / "a", "0" * 30 + "1" * 10), run(tmp_path / "b", "1" * 40, lr=1e-3)
    out = tmp_path / "page.html"
    assert main(["compare", str(one), str(other), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "stages.sft.optim.lr 0.0001 0.001" in said
    assert "held: 40 items in common" in said
    assert "b gets more right than a: +75.0 points [+" in said and "Seeds were not varied" in said
    assert said.endswith(str(out)) and out.read_text().startswith("<!doctype html>")


def test_compare_tells_macro_f1_where_answers_are_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [run(tmp_path / "a", "01" * 20), run(tmp_path / "b", "11" * 20, lr=1e-3)]
    for path in paths:
        file = path / "evals/held/sft.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({**line, "answer": "yn"[i % 2]}) + "\n" for i, line in enumerate(lines)))
    assert main(["compare", *map(str, paths), "--out", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    assert "macro-F1 50.0%" in said and "macro-F1 100.0%" in said  # of a, `n` is always right and `y` never
    assert "Confusion" not in said


def test_a_page_that_cannot_be_written_is_a_paragraph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [run(tmp_path / "a", "01"), run(tmp_path / "b", "11", lr=1e-3)]
    assert main(["compare", *map(str, paths), "--out", str(tmp_path / "none" / "page.html")]) == 2
    assert "error: cannot write the page: No such file" in capsys.readouterr().err


def test_a_run_that_is_none_is_a_paragraph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path / "x"), str(tmp_path / "y")]) == 2
    assert "there is no run directory" in capsys.readouterr().err
