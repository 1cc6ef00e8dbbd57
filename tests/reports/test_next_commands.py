"""The commands a run ends with: those that fit its outcome, and none that could not work."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharpen.cli.main import parser
from sharpen.config.load import dump, load
from sharpen.reports.next_commands import next_commands
from sharpen.reports.read import recipe_of
from tests.cli.fakes import RECIPE


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a recipe, a checkpoint to go on from, and a blank in its name."""
    folder = tmp_path / "my first"
    (folder / "stages/02-rft/checkpoints/step-00012").mkdir(parents=True)
    resolve(folder, RECIPE)
    return folder


def resolve(run: Path, recipe: str) -> None:
    """The recipe in its run's directory: every default written out."""
    path = run / "recipe.yaml"
    path.write_text(recipe)
    path.write_text(dump(load(path)))


def remark(kind: str, stage: str | None = "rft", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "stage": stage, "eval": "held_out", "main": True, "text": "…", "figures": {}, **more}


def offered(run: Path, *remarks: dict[str, Any], done: int = 2, state: str = "finished") -> list[str]:
    """The lines for the run with these remarks, of which the first so many stages are done."""
    stages = [{"name": "sft"}, {"name": "rft"}][:done]
    summary = {"model": "smollm2-135m-instruct", "seed": 7, "stages": stages, "remarks": list(remarks)}
    return [command.line for command in next_commands(run, recipe_of(run), summary, state)]


OUTCOMES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a plain gain": ([], "sharpen chat {run} --compare base"),
    "still improving": ([remark("still_improving")], "sharpen run --resume {run} --set stages.rft.steps=24"),
    "overfitting": (
        [remark("overfitting"), remark("still_improving")],
        "sharpen run {run}/recipe.yaml --set stages.rft.steps=6 --out {run}-shorter",
    ),
    "cut off": (
        [remark("cut_off", figures={"max_tokens": 128})],
        "sharpen run {run}/recipe.yaml --set evals.held_out.max_tokens=256 --out {run}-longer",
    ),
    "nothing right": ([remark("nothing_right", None)], "sharpen preflight {run}/recipe.yaml"),
    "no difference": (
        [remark("no_difference")],
        "sharpen run {run}/recipe.yaml --set seed=8 --out {run}-seed-8 && sharpen compare {run} {run}-seed-8",
    ),
}


def quoted(template: str, run: Path) -> str:
    """The line with the run's path in the place of `{run}`, each word quoted where it must be."""
    words = template.replace("{run}", "@").split(" ")
    return " ".join(word if word == "&&" else shlex.quote(word.replace("@", str(run))) for word in words)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_first_command_fits_the_outcome(run: Path, outcome: str) -> None:
    remarks, expected = OUTCOMES[outcome]
    lines = offered(run, *remarks)
    assert lines[0] == quoted(expected, run)
    assert len(lines) == len(set(lines)) == 3


@pytest.mark.parametrize("state", ["finished", "failed", "paused", "interrupted", "unfinished"])
@pytest.mark.parametrize("done", [0, 1, 2])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_command_exists_takes_these_options_and_changes_what_a_recipe_has(
    run: Path, outcome: str, done: int, state: str
) -> None:
    for line in offered(run, *OUTCOMES[outcome][0], done=done, state=state):
        for part in line.split(" && "):
            words = shlex.split(part)
            assert words[0] == "sharpen"
            options = parser().parse_args(words[1:])
            if words[1] == "run":
                load(options.recipe or options.resume / "recipe.yaml", options.overrides)
                assert options.out is None or not options.out.exists()


def test_a_run_that_is_not_finished_goes_on_first(run: Path) -> None:
    assert offered(run, done=0, state="paused")[0] == f"sharpen run --resume {shlex.quote(str(run))}"


def test_a_model_that_a_stage_has_harmed_is_not_the_one_to_talk_to(run: Path) -> None:
    lines = offered(run, remark("worse"))
    assert f"sharpen chat {shlex.quote(str(run / 'models/sft'))} --compare base" in lines


def test_better_answers_that_became_unlikely_are_trained_again_at_a_lower_rate(run: Path) -> None:
    recipe = yaml.safe_load(RECIPE)
    recipe["stages"][-1]["optim"] = {"lr": 4e-5}
    resolve(run, yaml.safe_dump(recipe))
    first = offered(run, remark("both_unlikely"))[0]
    assert "stages.rft.optim.lr=1e-05" in first and first == offered(run, remark("worse"))[0]


def test_nothing_goes_on_without_a_checkpoint(run: Path) -> None:
    (run / "stages/02-rft/checkpoints/step-00012").rmdir()
    assert not any("--resume" in line for line in offered(run, remark("still_improving")))


def test_a_folder_that_is_taken_is_not_written_to(run: Path) -> None:
    run.with_name("my first-seed-8").mkdir()
    assert "my first-seed-8-2" in offered(run, remark("no_difference"))[0]


@pytest.mark.parametrize("name", ["__main__:graded", "notebook:make.<locals>.graded", "m:<lambda>"])
def test_a_grader_of_a_python_session_is_not_asked_for_by_a_command(run: Path, name: str) -> None:
    text = RECIPE.replace("grader: {type: math}, steps: 12", f"grader: {{type: plugin, use: '{name}'}}, steps: 12")
    resolve(run, text)
    for state in ("finished", "failed"):
        lines = offered(run, remark("still_improving"), remark("no_difference"), state=state)
        assert lines and not any(" run " in line or "preflight" in line for line in lines)


def test_a_run_named_by_a_dot_is_named_by_its_path(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    assert offered(Path())[0] == f"sharpen chat {shlex.quote(str(run))} --compare base"


def test_rubbish_offers_the_report(tmp_path: Path) -> None:
    rubbish = {"stages": 3, "remarks": [4], "seed": "x"}
    assert [command.line for command in next_commands(tmp_path, rubbish, rubbish, "finished")] == [
        f"sharpen report {tmp_path}"
    ]
