"""`sharpen init` from outside: what it writes, says and asks, and that what it writes runs to the end."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharpen.cli.main import main
from sharpen.config.load import load
from sharpen.data.source import read_examples, read_labelled
from sharpen.project import build
from sharpen.runs import statistics
from sharpen.stages import pipeline
from tests.tiny import tiny_model

TASKS = ("extract", "classify", "chat", "code", "math")
LABELS = ("late", "broken", "lost")
WORDS = "amber brook cedar dune ember fjord grove heath islet jetty knoll ledge".split()


def message(number: int) -> str:
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in (1, 3, 5, 7)) + f" {number}"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "my.csv"
    rows = "".join(f"{message(number)},{LABELS[number % 3]}\n" for number in range(60))
    path.write_text("message,label\n" + rows)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


Type = Callable[..., None]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Type:
    """Someone at a terminal who types these lines, and then Ctrl-D."""

    def type_lines(*said: str) -> None:
        terminal = io.StringIO("".join(f"{line}\n" for line in said))
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", terminal)

    return type_lines


# What is written


def test_a_table_becomes_a_project(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = table.parent / "project"
    assert main(["init", str(folder), "--data", str(table), "--task", "classify", "--yes"]) == 0
    assert files(folder) == sorted(build.NAMES)
    recipe = load(folder / "recipe.yaml")
    train = list(read_labelled(recipe.stages[0].data, folder))
    assert recipe.stages[0].validation is not None
    watched = list(read_labelled(recipe.stages[0].validation, folder))
    tested = list(read_examples(recipe.evals[0].data, folder))
    prompts = [row.messages[1]["content"] for rows in (train, watched, tested) for row in rows]
    assert sorted(prompts) == sorted(map(message, range(60)))
    assert (len(train), len(watched), len(tested)) == (36, 6, 18)
    for row in train:
        system, asked, answer = row.messages
        assert system["content"] == (
            "Classify the text. Answer with one of these labels and nothing else: broken, late, lost."
        )
        assert answer["content"] == LABELS[int(asked["content"].split()[-1]) % 3]
    said = capsys.readouterr().out
    for line in (
        "  my.csv: 60 rows of message, label\n",
        "  prompt: the column 'message' (by its name)\n",
        "  completion: the column 'label' (by its name)\n",
        "Rows: 36 to train on, 6 for validation, 18 held out.",
        "  18 test rows show a difference of 47 points",  # 2.8016 · √(0.5 / 18)
        "  user       ",
        f"  cd {folder}\n  sharpen run recipe.yaml --out runs/first\n  sharpen chat runs/first",
    ):
        assert line in said
    assert max(map(len, said.splitlines())) <= 140


@pytest.mark.parametrize("task", TASKS)
def test_without_data_an_example_is_written_whose_grader_passes_its_test(task: str, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    assert main(["init", str(folder), "--task", task, "--yes"]) == 0
    assert ("grader.py" in files(folder)) == (task != "code")
    for name in ("train", "validation", "test"):
        assert main(["data", "check", str(folder / f"data/{name}.jsonl"), "--for", "sft"]) == 0
    path = os.pathsep.join([str(Path(pipeline.__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "test_grader.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" tests passed\n")


def test_pytest_runs_the_test_of_a_grader_and_notices_a_bad_one(table: Path) -> None:
    main(["init", "--data", str(table), "--yes", str(table.parent / "project")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(table.parent / "project")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=table.parent)
    assert done.returncode == 0 and "4 passed" in done.stdout
    grader = table.parent / "project/grader.py"
    grader.write_text(grader.read_text().replace("return float(plain", "return 1 - float(plain"))
    done = subprocess.run(
        [sys.executable, "test_grader.py"], capture_output=True, text=True, cwd=table.parent / "project"
    )
    assert done.returncode == 1 and "AssertionError" in done.stderr


@pytest.mark.parametrize("task", TASKS)
def test_a_project_runs_to_its_end(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a model of random weights, and few of everything; the graders are the project's own."""
    model = tiny_model(tmp_path / "model", num_hidden_layers=1)
    assert main(["init", str(tmp_path / "project"), "--task", task, "--model", str(model), "--yes"]) == 0
    few = ["stages.sft.data.limit=8", "stages.sft.validation.limit=2", "evals.held_out.data.limit=4"]
    few += ["stages.sft.epochs=1", "evals.held_out.max_tokens=8", "threads=1", "dtype=float32"]
    reinforced = task in ("extract", "code", "math")
    if reinforced:
        few += [f"stages.rft.{name}" for name in ("steps=1", "prompts_per_step=2", "group_size=2", "probe.prompts=2")]
        few += ["stages.rft.sampling.max_tokens=8", "stages.rft.data.limit=4"]
    recipe = load(tmp_path / "project/recipe.yaml", few)
    monkeypatch.setattr(statistics, "RESAMPLES", 40)
    monkeypatch.chdir(tmp_path)  # not the project's folder: its grader is found all the same
    summary = pipeline.run(recipe, tmp_path / "run", base=tmp_path / "project")
    assert summary["status"] == "finished"
    assert [stage["type"] for stage in summary["stages"]] == ["sft", *["rft"] * reinforced]
    assert all(stage["evals"]["held_out"]["n"] == 4 for stage in summary["stages"])


# Someone's columns


def test_columns_and_task_can_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "faq.jsonl"
    path.write_text("".join(json.dumps({"a": f"{n} up", "b": message(n), "c": str(n)}) + "\n" for n in range(30)))
    folder = tmp_path / "p"
    assert main(["init", str(folder), "--data", str(path), "--yes"]) == 2
    assert "which column answers cannot be told" in capsys.readouterr().err
    assert not folder.exists()
    columns = ["--columns", "completion=a, prompt=b"]
    assert main(["init", str(folder), "--data", str(path), *columns, "--task", "math", "--yes"]) == 0
    (row, *_) = lines(folder / "data/train.jsonl")
    number = row["c"]
    assert row["prompt"][1]["content"] == message(int(number)) and row["completion"] == f"{number} up"
    assert "('as you say')" not in capsys.readouterr().out


def test_columns_are_said_once_or_one_by_one(table: Path) -> None:
    folder = table.parent / "p"
    one_by_one = ["--columns", "prompt=message", "--columns", "completion=label"]
    assert main(["init", str(folder), "--data", str(table), *one_by_one, "--yes"]) == 0
    again = table.parent / "q"
    assert main(["init", str(again), "--data", str(table), "--columns", "prompt=message,completion=label", "-y"]) == 0
    assert (folder / "data/train.jsonl").read_text() == (again / "data/train.jsonl").read_text()


@pytest.mark.parametrize(
    ("tests", "grader"),
    [
        (lambda n: json.dumps([{"args": [1], "expected": 1 + n}]), "{{ item.entry_point }}"),
        (lambda n: f"assert f(1) == {1 + n}", "{{ item.entry_point }}"),
    ],
)
def test_programs_with_unit_tests_are_graded_by_them(tmp_path: Path, tests: Callable[[int], str], grader: str) -> None:
    path = tmp_path / "my.jsonl"
    rows = [
        {"task": f"Write f that adds {n}: {message(n)}", "code": f"def g():\n    0\ndef f(x):\n    return x + {n}"}
        for n in range(30)
    ]
    path.write_text("".join(json.dumps({**row, "unit_tests": tests(n)}) + "\n" for n, row in enumerate(rows)))
    folder = tmp_path / "p"
    assert main(["init", str(folder), "--data", str(path), "--yes"]) == 0
    assert getattr(load(folder / "recipe.yaml").evals[0].grader, "function") == grader  # noqa: B009
    assert {row["entry_point"] for row in lines(folder / "data/test.jsonl")} == {"f"}
    done = subprocess.run([sys.executable, "test_grader.py"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_programs_without_tests_are_compared_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    rows = [{"task": f"adds {n}: {message(n)}", "code": f"def f(x):\n    return x + {n}"} for n in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["init", str(tmp_path / "p"), "--data", str(path), "--yes"]) == 0
    text = (tmp_path / "p/recipe.yaml").read_text()
    assert "grader.py:grade" in text and "# An RFT stage is left out: the rows have no unit tests" in text
    done = subprocess.run([sys.executable, "test_grader.py"], cwd=tmp_path / "p", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Faults


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "none.csv"], "none.csv: cannot read the file: No such file or directory"),
        (["--data", "my.csv", "--columns", "prompt"], "--columns: not a mapping of columns (got 'prompt')"),
        (["--data", "my.csv", "--columns", "question=message"], "--columns: not a mapping of columns"),
        (
            ["--data", "my.csv", "--columns", "prompt=text"],
            "my.csv has no such column (got 'text'). It has message, label",
        ),
        (["--columns", "prompt=text"], "--columns: columns of no file (got 'prompt=text'). Add --data"),
        (["--data", "my.csv", "--task", "math"], "for math the answers should be numbers"),
        (["--data", "my.csv", "--minutes", "0"], "--minutes: should be from 1 to 1,440 (got 0.0)"),
        (["--data", "one.csv"], "one.csv: there is one column only"),
        (["my.csv"], "the project's folder is a file (got 'my.csv')"),
    ],
)
def test_a_fault_is_said_and_nothing_is_written(
    table: Path,
    options: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(table.parent)
    Path("one.csv").write_text("text\n" + "".join(f"{message(number)}\n" for number in range(30)))
    assert main(["init", *options, "--yes"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error
    assert files(Path(".")) == ["my.csv", "one.csv"]


def test_what_is_there_is_kept_unless_forced(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(table.parent)
    Path("grader.py").write_text("mine")
    assert main(["init", "--data", "my.csv", "--yes"]) == 2
    assert (
        "files are there already: grader.py (got '.'). Name another folder, or add --force" in capsys.readouterr().err
    )
    assert Path("grader.py").read_text() == "mine" and files(Path(".")) == ["grader.py", "my.csv"]
    assert main(["init", "--data", "my.csv", "--yes", "--force"]) == 0
    assert "def grade" in Path("grader.py").read_text()
    said = capsys.readouterr().out
    assert "\nNext\n  sharpen run recipe.yaml" in said  # no cd


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(
    table: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o500)
    assert main(["init", str(closed / "p"), "--data", str(table), "--yes"]) == 2
    assert "cannot write the project, and nothing was changed: Permission denied" in capsys.readouterr().err


# Questions


def test_six_questions_are_asked_of_someone_who_says_nothing(
    table: Path, typed: Type, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = table.parent / "p"
    typed(str(table), "", "", "", "", "")
    assert main(["init", str(folder)]) == 0
    said = capsys.readouterr().out
    asked = ("A file with your rows [none: an example of ours]: ", "Which column answers", "Which column asks")
    for question in (*asked, "The task", "The model to train [smollm2-135m-instruct]: ", "Minutes"):
        assert said.count(question) == 1
    assert said.partition("Understood")[0].count("]: ") == 6
    silent = table.parent / "q"
    assert main(["init", str(silent), "--data", str(table), "--yes"]) == 0
    assert {name: (folder / name).read_text() for name in build.NAMES} == {
        name: (silent / name).read_text() for name in build.NAMES
    }


def test_answers_count_and_what_cannot_be_is_asked_again(
    table: Path, typed: Type, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = table.parent / "p"
    rows = "".join(f"{message(number)},{LABELS[number % 3]},{LABELS[number % 3]} ones\n" for number in range(60))
    table.write_text(f"message,label,kind\n{rows}")
    typed("nowhere.csv", str(table), "color", "kind", "", "poem", "chat", "org/name", "soon", "0", "3")
    code = main(["init", str(folder)])
    said = capsys.readouterr()
    assert "nowhere.csv: cannot read the file" in said.out
    assert "no such column (got 'color')" in said.out
    assert "no such task (got 'poem')" in said.out
    assert "not a number (got 'soon')" in said.out and "should be from 1 to 1,440 (got 0.0)" in said.out
    assert code == 0, said.err
    row = lines(folder / "data/train.jsonl")[0]
    assert row["completion"].removesuffix(" ones") in LABELS and len(row["prompt"]) == 1  # chat: no instruction
    assert load(folder / "recipe.yaml").model == "org/name"


def test_what_an_option_says_is_not_asked(table: Path, typed: Type, capsys: pytest.CaptureFixture[str]) -> None:
    typed()
    options = ["--data", str(table), "--task", "classify", "--columns", "prompt=message,completion=label"]
    assert main(["init", str(table.parent / "p"), *options, "--model", "m", "--minutes", "5"]) == 0
    assert "]: " not in capsys.readouterr().out


def test_an_example_asks_for_task_model_and_minutes(tmp_path: Path, typed: Type) -> None:
    typed("", "math", "", "")
    assert main(["init", str(tmp_path / "p")]) == 0
    assert lines(tmp_path / "p/data/train.jsonl")[0]["completion"].isdigit()


def test_someone_who_stops_is_told_that_nothing_was_written(
    table: Path, typed: Type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(str(table), "label")  # and then Ctrl-D
    assert main(["init", str(table.parent / "p")]) == 130
    assert capsys.readouterr().err.strip() == "stopped; nothing was written"

    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    assert main(["init", str(table.parent / "p")]) == 130
    assert files(table.parent) == ["my.csv"]


def test_where_nobody_can_be_asked_defaults_are_taken_and_said(table: Path) -> None:
    """In a process of its own, whose stdin is a pipe that nobody writes to."""
    reading, writing = os.pipe()
    source = str(Path(pipeline.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "sharpen.cli.main", "init", "--data", "my.csv"],
        stdin=reading,
        capture_output=True,
        text=True,
        cwd=table.parent,
        env={**os.environ, "PYTHONPATH": source},
        timeout=60,
    )
    os.close(reading)
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Nothing can be asked here (stdin is no terminal), so the defaults are taken")


def test_at_a_real_terminal_ctrl_c_stops(table: Path) -> None:
    """In a process of its own at a pseudo-terminal."""
    ours, theirs = pty.openpty()
    source = str(Path(pipeline.__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-m", "sharpen.cli.main", "init", "--data", "my.csv"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=table.parent,
        env={**os.environ, "PYTHONPATH": source},
        start_new_session=True,
        preexec_fn=_takes_terminal,
    )
    os.close(theirs)
    seen, typed = b"", False
    try:
        while child.poll() is None:
            quiet = not select.select([ours], [], [], 5)[0]
            seen += b"" if quiet else os.read(ours, 1000)
            if b"]: " in seen and (quiet or not typed):  # again: one just before the read is noticed at the next only
                typed = bool(os.write(ours, b"\x03"))
        while more := os.read(ours, 1000):
            seen += more
    except OSError:  # the terminal has closed
        pass
    os.close(ours)
    assert child.wait(30) == 130
    assert b"stopped; nothing was written" in seen
    assert files(table.parent) == ["my.csv"]


def _takes_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
