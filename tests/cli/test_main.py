"""The command line from outside: what is printed, where, and with which exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sharpen.cli import boundary, forecast, machine, quickstart
from sharpen.cli.main import COMMANDS, main
from sharpen.errors import ConfigError, GraderError, Interrupted, RunError
from tests.cli.fakes import RECIPE, SUMMARY, FakePipeline, install


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def fake(patch: pytest.MonkeyPatch, error: Exception | None = None) -> FakePipeline:
    pipeline: FakePipeline = install(patch, "pipeline", FakePipeline(error))
    return pipeline


# Starting up


def test_help_and_version_import_neither_torch_nor_pydantic() -> None:
    code = (
        "import sys; from sharpen.cli.main import main\n"
        "for arguments in (['--help'], ['run', '--help'], ['--version']):\n"
        "    try: main(arguments)\n"
        "    except SystemExit as end: assert end.code == 0, end\n"
        "heavy = {'torch', 'pydantic', 'transformers', 'numpy', 'rich', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    assert "A recipe goes in, a run directory comes out" in done.stdout


def test_every_command_helps_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit) as end:
            main([command.name, "--help"])
        said = capsys.readouterr().out
        assert end.value.code == 0
        assert f"usage: sharpen {command.name}" in said
        assert command.examples[0] in said
        assert max(map(len, said.splitlines())) <= 100


def test_no_command_shows_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(f"  {command.name} " in said for command in COMMANDS)


# run


def test_run_hands_over_the_recipe_with_its_overrides(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = fake(monkeypatch)
    overrides = ["--set", "stages.rft.steps=2", "--set", "seed=3"]
    assert main(["run", str(recipe), *overrides, "--out", str(tmp_path / "out")]) == 0
    (call,) = pipeline.calls
    assert call["recipe"].stages[1].steps == 2
    assert call["recipe"].seed == 3
    assert call["out"] == tmp_path / "out"
    assert call["base"] == recipe.parent


def test_run_names_its_directory_after_recipe_and_time(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = fake(monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(recipe)]) == 0
    assert pipeline.calls[0]["out"].match("runs/small-20[0-9][0-9][01][0-9][0-3][0-9]-[0-9][0-9][0-9][0-9][0-9][0-9]")


def test_resume_leaves_the_recipe_to_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = fake(monkeypatch)
    assert main(["run", "--resume", str(tmp_path), "--set", "seed=3"]) == 0
    assert pipeline.calls == [{"out": tmp_path, "overrides": ["seed=3"]}]


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "a.yaml", "--resume", "b"], ["run", "--resume", "b", "--out", "c"]]
)
def test_run_wants_a_recipe_or_a_directory(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_the_table_has_the_numbers_of_the_summary(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch)
    main(["run", str(recipe), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    rows = {
        line.split()[0]: line.split()[1:]
        for line in said.splitlines()
        if line.startswith(("  Base ", "  SFT ", "  RFT "))
    }
    assert rows["Base"] == ["2.1%", "[1.1,", "3.4]", "21.7%", "31.4%"]
    change = ["+25.2", "[+21.3,", "+29.1]", "+14.1", "+11.1"]
    assert rows["SFT"] == ["27.3%", "[23.6,", "31.3]", "95.1%", "30.5%", *change, "33.1", "s"]
    change = ["+18.4", "[+13.9,", "+22.9]", "+1.2", "+17.2"]
    assert rows["RFT"] == ["45.7%", "[41.4,", "50.0]", "98.4%", "46.0%", *change, "3", "min", "21", "s"]
    assert "512 held-out problems" in said
    assert "pass@4 63.1% [60.0, 66.0]" in said
    assert SUMMARY["verdict"] in said
    assert "4 min 47 s" in said
    assert str(tmp_path / "out" / "report.html") in said


# Errors


def test_a_misspelt_key_is_one_paragraph_and_exit_code_2(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch)
    assert main(["run", str(recipe), "--set", "stages.rft.stepz=2"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: stages.1.stepz: ")
    assert "did you mean `steps`" in said
    assert "Traceback" not in said
    assert said.count("\n") == 1


def test_an_interrupted_run_says_how_to_go_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, Interrupted("stopped by SIGINT after step 3 of 8 of sft"))
    out = tmp_path / "a run"
    assert main(["run", str(recipe), "--out", str(out)]) == 130
    said = capsys.readouterr().err
    assert said.splitlines()[-1] == f"Go on with: sharpen run --resume '{out}'"
    assert "error" not in said


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (GraderError("graders fail", remedy="Mend it, then: sharpen run --resume out"), 1),
        (GraderError("graders fail"), 1),
        (RunError("the directory is busy"), 0),
        (ConfigError("wrong"), 0),
    ],
)
def test_how_to_go_on_is_said_once_and_only_where_it_helps(
    error: Exception,
    times: int,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake(monkeypatch, error)
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(recipe), "--out", "out"]) == 2
    assert capsys.readouterr().err.count("--resume") == times


def test_a_bug_leaves_its_traceback_in_a_file_of_the_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, ZeroDivisionError("by nothing"))
    assert main(["run", str(recipe), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    (file,) = (tmp_path / "out").glob("traceback-*.txt")
    assert str(file) in said
    assert "ZeroDivisionError: by nothing" in said
    assert "Traceback (most recent call last)" not in said
    assert "fakes.py" in file.read_text()


def test_debug_lets_a_bug_through(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, ZeroDivisionError("by nothing"))
    with pytest.raises(ZeroDivisionError):
        main(["run", str(recipe), "--out", str(tmp_path / "out"), "--debug"])


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    command = [sys.executable, "-m", "sharpen.cli.main", "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment()) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == boundary.BROKEN_PIPE


# eval, schema, report, models


def evaluated(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `sharpen eval` handed over, filled in when it runs."""
    got: dict[str, Any] = {}

    def standalone(model: str, config: Any, out: Path | None, **rest: Any) -> dict[str, Any]:
        got.update(model=model, out=out, **dict(config), **rest)
        result: dict[str, Any] = SUMMARY["stages"][1]["evals"]["held_out"]
        return result

    install(patch, "evaluate", SimpleNamespace(standalone=standalone))
    return got


def test_eval_reads_a_form(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    got = evaluated(monkeypatch)
    command = ["eval", "m", "--data", "test.jsonl", "--grader", "math", "--response-format"]
    assert main([*command, "{type: regex, pattern: '[0-9]+'}"]) == 0
    assert (got["response_format"].type, got["response_format"].pattern) == ("regex", "[0-9]+")
    assert main([*command, "missing.yaml"]) == 2
    assert "cannot read the form" in capsys.readouterr().err


def test_eval_reads_a_path_and_a_grader_by_its_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    got = evaluated(monkeypatch)
    more = ["--samples", "4", "--temperature", "0.7", "--seed", "5", "--max-tokens", "32", "--limit", "10"]
    assert main(["eval", "some/model", "--data", "test.jsonl", "--grader", "math", *more]) == 0
    assert (got["model"], got["data"].path, got["data"].limit, got["grader"].type) == (
        "some/model",
        "test.jsonl",
        10,
        "math",
    )
    assert (got["samples"], got["temperature"], got["seed"], got["max_tokens"]) == (4, 0.7, 5, 32)
    assert (got["base"], got["out"]) == (Path.cwd(), None)
    said = capsys.readouterr().out
    assert "45.7%" in said and "[41.4, 50.0]" in said and "512 problems" in said and "avg@4 41.2%" in said


def test_eval_reads_inline_mappings_and_a_grader_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got = evaluated(monkeypatch)
    grader = tmp_path / "grader.yaml"
    grader.write_text("{type: string_check, operation: like}")
    data = "{type: reasoning_gym, generator: chain_sum, count: 500}"
    assert main(["eval", "m", "--data", data, "--grader", str(grader), "--limit", "20"]) == 0
    assert (got["data"].generator, got["data"].count, got["grader"].operation) == ("chain_sum", 20, "like")


def test_eval_takes_an_environment_and_needs_a_grader_only_where_that_gives_no_rewards(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    got = evaluated(monkeypatch)
    assert main(["eval", "m", "--data", "x.jsonl", "--grader", "math", "--env", "tools"]) == 0
    assert (got["env"].type, got["grader"].type) == ("tools", "math")
    assert main(["eval", "m", "--data", "x.jsonl", "--env", "{type: plugin, use: 'a.b:C'}"]) == 0
    assert (got["env"].use, got["grader"]) == ("a.b:C", None)
    for more in ([], ["--env", "tools"]):
        assert main(["eval", "m", "--data", "x.jsonl", *more]) == 2
        assert "a grader is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "grader", "said"),
    [
        ("x.jsonl", "maths", "grader.type: unknown type `maths`; did you mean `math`?"),
        ("{type: reasoning_gym, generatr: chain_sum, count: 5}", "math", "did you mean `generator`?"),
        ("{type: [", "math", "--data: not YAML"),
        ("x.jsonl", "missing.yaml", "cannot read the grader"),
    ],
)
def test_eval_says_what_is_wrong_with_its_options(
    data: str, grader: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated(monkeypatch)
    assert main(["eval", "m", "--data", data, "--grader", grader]) == 2
    assert said in capsys.readouterr().err


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert main(["schema"]) == 0
    assert "stages" in json.loads(capsys.readouterr().out)["properties"]


def test_report_of_no_directory_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "there is no run directory" in capsys.readouterr().err


def test_report_names_the_page_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert (tmp_path / "report.html").is_file()


def test_an_unknown_model_cannot_be_pulled(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", "gpt-9"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


# quickstart


def test_quickstart_announces_fits_runs_and_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("path: labelled.jsonl", "type: reasoning_gym, generator: gcd, count: 100"))
    pipeline = fake(monkeypatch)
    monkeypatch.setattr(quickstart, "recipe_path", lambda: path)
    monkeypatch.setattr(quickstart, "_fetch", lambda model: None)
    monkeypatch.setattr(machine, "matmul_speed", lambda: machine.Speed("float32", forecast.REFERENCE_SPEED / 5))
    out = tmp_path / "out"
    assert main(["quickstart", "--seed", "9", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    fitted = pipeline.calls[0]["recipe"]
    assert fitted.seed == 9
    assert f"rft from 12 to {fitted.stages[1].steps} steps" in said
    assert "500 problems that no training sees" in said
    assert f"sharpen chat {out} --compare base" in said
    assert "4 min 47 s (predicted: " in said


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
