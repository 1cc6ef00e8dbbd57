"""`sharpen grade` at the terminal: its parts, its JSON, its exit codes, its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sharpen.cli.main import main
from sharpen.lab import grading
from tests.lab.inprocess import InProcess, rows

PARTS = "{right: {type: numeric}, short: {type: regex, pattern: '.{1,6}', mode: fullmatch}}"
MULTI = f"{{type: multi, graders: {PARTS}, calculate_output: right * short}}"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading, "GraderPool", InProcess)


def write(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write(tmp_path / "rows.jsonl", rows("12", "7", "30", "105 or so"))


@pytest.fixture
def samples(tmp_path: Path) -> str:
    texts = [("r0", "12", 1), ("r0", "It is 12", 1), ("r1", "8", 0), ("r2", "thirty \x1b[Kor so", 0)]
    return write(tmp_path / "s.jsonl", [{"id": name, "text": text, "human": label} for name, text, label in texts])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    heard = capsys.readouterr()
    assert heard.err == "" and max(map(len, heard.out.splitlines())) <= 120
    return " ".join(heard.out.split())


def test_all_parts_in_jails_of_their_own(data: str, samples: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["grade", "--grader", MULTI, "--data", data, "--samples", samples, "--labels", "human", "--red-team"]
    assert main(command) == 0
    heard = said(capsys)
    assert "multi version " in heard and "full marks 1, 4 rows" in heard
    assert "Samples: 4 of 3 rows" in heard and "right 0.500 short 0.500" in heard
    assert "faults: 1 of the completion (sample_parse_error 1)" in heard
    assert "Gold answers: 3 of 4 get full marks" in heard
    assert "The grader fails 1 of its own gold answers. r3 0 “105 or so”" in heard
    assert "empty 4 0.0% [0.0, 49.0] 0" in heard
    assert "every answer" not in heard.partition("Attacks")[0] and "0 of 4 paid" in heard
    assert "People's labels (human): 4 texts of 3 rows, 2 good" in heard
    assert "full marks 75.0% [" in heard and "1 of 2 0 of 2" in heard
    assert "Time of a grade: median " in heard and "a second together" in heard


@pytest.mark.usefixtures("here")
def test_the_table_shows_samples_and_the_histogram(data: str, samples: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", "--grader", MULTI, "--data", data, "--samples", samples]) == 0
    lines = capsys.readouterr().out.splitlines()
    (first,) = (line for line in lines if line.lstrip().startswith("r0 1"))
    assert first.split()[:5] == ["r0", "1", "1", "1", "1"] and "“12”" in first and "12 is within tolerance" in first
    (faulty,) = (line for line in lines if line.lstrip().startswith("r2 1"))
    assert "right 0: the completion has no number" in faulty and "\x1b" not in faulty
    (low,) = (line for line in lines if "0 to <0.1" in line)
    (high,) = (line for line in lines if "0.9 to 1" in line)
    assert low.split()[3:] == ["3", "█" * 24] and high.split()[3:] == ["1", "█" * 8]
    assert not any("Attacks" in line or "labels" in line for line in lines)


@pytest.mark.usefixtures("here")
def test_json_is_one_object_with_every_grade(data: str, samples: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["grade", "--grader", "numeric", "--data", data, "--samples", samples, "--red-team", "--json"]
    assert main([*command, "--limit", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema_version"], found["data"]["rows"], found["samples"]["unmatched"]) == (1, 2, 1)
    assert [one["score"] for one in found["samples"]["trials"]] == [1.0, 1.0, 0.0]
    assert {"metrics", "explanation", "fault", "seconds"} <= found["samples"]["trials"][0].keys()
    assert all(attack["false_positives"] == 0 for attack in found["red_team"]) and len(found["red_team"]) > 10


@pytest.mark.usefixtures("here")
def test_a_fooled_grader_is_told_with_the_text_that_fooled_it(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", "--grader", "{type: regex, pattern: ':'}", "--data", data, "--red-team"]) == 0
    heard = said(capsys)
    assert "signs 4 100.0% [51.0, 100.0] 0.333 “:”" in heard
    assert "signs: r0 1 “:” : matches" in heard
    assert "The grader fails 4 of its own gold answers" in heard


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("grader", "more", "code"),
    [
        ("numeric", ["--limit", "3"], 0),
        ("{type: numeric, take: only}", [], 1),
        ("{type: regex, pattern: '^[^:]*$'}", [], 0),
        ("{type: regex, pattern: '^[^:]*$'}", ["--red-team"], 1),
    ],
)
def test_strict_makes_faults_an_exit_code(grader: str, more: list[str], code: int, data: str) -> None:
    command = ["grade", "--grader", grader, "--data", data, *more]
    assert main(command) == 0
    assert main([*command, "--strict"]) == code


@pytest.mark.usefixtures("here")
def test_a_grader_whose_top_is_lower_is_told_how_to_say_so(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    half = "{type: multi, graders: {right: {type: numeric}}, calculate_output: right / 2}"
    assert main(["grade", "--grader", half, "--data", data]) == 0
    assert "say --threshold 0.500" in said(capsys)
    assert main(["grade", "--grader", half, "--data", data, "--threshold", "0.5", "--strict"]) == 0
    assert "4 of 4 get full marks" in said(capsys)


@pytest.mark.usefixtures("here")
def test_a_grader_may_stand_in_a_file_and_rows_without_gold_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "g.yaml"
    path.write_text("type: string_check\nname: mine\nreference: '{{ item.solution }}'\n")
    data = write(tmp_path / "rows.jsonl", [{"prompt": "p", "solution": "s"}])
    assert main(["grade", "--grader", str(path), "--data", data]) == 0
    heard = said(capsys)
    assert "mine string_check, version " in heard and "name their field with --gold" in heard
    assert main(["grade", "--grader", str(path), "--data", data, "--gold", "solution"]) == 0
    assert "Gold answers: 1 of 1 get full marks" in said(capsys)


@pytest.mark.parametrize("option", ["--threshold", "--passing"])
def test_numbers_that_json_has_not_are_refused(option: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["grade", "--grader", "numeric", "--data", data, option, "nan"])
    assert end.value.code == 2 and f"argument {option}: invalid finite value: 'nan'" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--k", "0"], "--k: must be 1 or more"),
        (["--limit", "0"], "--limit: must be 1 or more"),
        (["--grader", "maths"], "did you mean"),
        (["--samples", "s.jsonl", "--model", "m"], "samples come from a file or from a model"),
        (["--labels", "human"], "labels are people's words on texts"),
        (["--gold", "nothing"], "--gold: no row has a reference answer there"),
        (["--data", "missing.jsonl"], "missing.jsonl: cannot read the file"),
    ],
)
def test_mistakes_are_one_paragraph(more: list[str], said: str, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", "--grader", "numeric", "--data", data, *more]) == 2
    heard = capsys.readouterr()
    assert heard.err.startswith("error: ") and said in heard.err and heard.out == ""
