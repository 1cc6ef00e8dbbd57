"""`sharpen bench` from outside: the table, the JSON, the errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sharpen.cli import machine
from sharpen.cli.main import main
from sharpen.config.load import dump
from tests.runs.lab import World


@pytest.fixture
def recipe(world: World, tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(dump(world.whole()))
    return path


def rows(said: str) -> dict[str, str]:
    """The lines by their first word."""
    return {line.split()[0]: line for line in reversed(said.splitlines()) if line.strip()}


def test_the_table_has_every_stage_and_eval_and_says_what_it_rests_on(
    recipe: Path, here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(recipe), "--budget", "1e6"]) == 0
    said = capsys.readouterr().out
    first = rows(said)
    assert re.search(r" [MG]B +6 ", first["sft"]) and re.search(r" [MG]B +5 ", first["rft"])
    assert " 30  " in first["held"]
    assert "2 whole steps of 4 rows: " in said and "2 whole steps of 2 prompts: " in said
    assert "12 completions: " in said and "trains all " in said
    assert "The whole recipe: about " in said
    assert "≤" not in said
    assert max(map(len, said.splitlines())) <= 120


def test_a_part_of_a_step_is_shown_as_a_bound(recipe: Path, here: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(recipe), "--budget", "0.001"]) == 0
    said = capsys.readouterr().out
    assert "extrapolated from 1 row of the 4 of a step: " in said
    assert "extrapolated from 1 prompt of the 2 of a step: " in said
    assert "The whole recipe: at most " in said
    assert rows(said)["rft"].count("≤") == 2 and rows(said)["rft"].count("≥") == 1


def test_json_is_one_object_and_takes_overrides(recipe: Path, here: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["bench", str(recipe), "--json", "--set", "stages.rft.group_size=4", "--set", "stages.sft.epochs=1"]) == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert result["schema_version"] == 1
    assert (result["recipe"], result["threads"], result["dtype"]) == (str(recipe), 1, "float32")
    sft, rft = result["stages"]
    assert sft["forecast"]["steps"] == 3
    assert rft["rests_on"]["completions"] == 4 * rft["rests_on"]["prompts"]
    assert {"cores", "load_average", "busy", "seconds", "forecast_seconds", "peak_memory_bytes"} <= result.keys()


@pytest.mark.parametrize(("load", "busy"), [(0.1, False), (64.0, True), (None, False)])
def test_a_busy_machine_is_told(
    load: float | None,
    busy: bool,
    recipe: Path,
    here: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(machine, "busy", lambda: load)
    assert main(["bench", str(recipe), "--budget", "0.001"]) == 0
    assert ("Other work was going on here (load average 64.0)" in capsys.readouterr().out) is busy


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--budget", "0"], "--budget: must be above 0"),
        (["--set", "stages.rft.stepz=2"], "did you mean `steps`"),
        (["--set", "stages=[]", "--set", "evals=[]"], "there is nothing to measure"),
        (["--set", "model=smollm3"], "no such model"),
    ],
)
def test_mistakes_are_one_paragraph(
    more: list[str], said: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(recipe), *more]) == 2
    heard: Any = capsys.readouterr()
    assert heard.err.startswith("error: ") and said in heard.err
    assert heard.out == ""
