"""`sharpen regrade` at the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharpen.cli.main import main
from sharpen.stages import pipeline
from tests.runs.lab import World, quick

SHORT = "{type: regex, pattern: '[aeiou]', name: vowels}"


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    with quick():
        pipeline.run(world.recipe(world.rft_stage(steps=3)), folder, base=world.folder)
    return folder


def test_the_table_has_the_figures_of_the_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regrade", str(run), "--grader", SHORT, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema_version"], found["n"], found["after"]["name"]) == (1, 18, "vowels")
    assert main(["regrade", str(run), "--grader", SHORT]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    said = " ".join(out.split())
    assert f"rft: 18 rollouts of 3 steps graded by plugin {found['before']['version']}, now by vowels" in said
    flips, groups = found["flips"], found["groups"]
    assert f"{flips['right_to_wrong']} right → wrong, {flips['wrong_to_right']} wrong → right" in said
    assert f"another order in {groups['changed']} of {groups['n']} groups" in said
    assert f"{groups['teaches']['before']} → {groups['teaches']['after']}" in said
    assert "step 1 2 3" in said and "mean before" in said and "mean after" in said
    first = found["examples"][0]
    assert "Largest disagreements" in said and f"step {first['step']}, {first['id']}" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--stage", "sft"], "--stage: the run has no rollouts of this stage"),
        (["--limit", "0"], "--limit: must be 1 or more"),
        (["--grader", "{type: regex}"], "grader.pattern: is missing"),
    ],
)
def test_mistakes_are_one_paragraph(more: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regrade", str(run), "--grader", "math", *more]) == 2
    heard = capsys.readouterr()
    assert heard.err.startswith("error: ") and said in heard.err and heard.out == ""


def test_what_is_no_run_is_a_paragraph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regrade", str(tmp_path), "--grader", "math"]) == 2
    assert "there is no run" in capsys.readouterr().err
