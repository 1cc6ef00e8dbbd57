"""What a user may call a model: a run's directory is its final model, and knows what it began with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sharpen.answer.named import base_of, named, system_of, unfinished
from sharpen.cli.main import main
from sharpen.errors import ConfigError, ModelError


def run(folder: Path, *stages: str, done: int = 0, model: str = "org/base") -> Path:
    """A run's directory with so many finished stages."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.dump({"model": model, "stages": [{"name": name} for name in stages]}))
    for name in stages[:done]:
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "config.json").write_text("{}")
    return folder


def test_a_run_is_the_model_of_its_last_finished_stage(tmp_path: Path) -> None:
    assert named(str(run(tmp_path / "a", "sft", "rft", done=2))) == str(tmp_path / "a/models/rft")
    assert unfinished(str(tmp_path / "a")) == ""
    assert named(str(run(tmp_path / "b", "sft", "rft", "more", done=1))) == str(tmp_path / "b/models/sft")
    assert unfinished(str(tmp_path / "b")) == "rft, more"
    assert named(str(run(tmp_path / "c", model="m"))) == "m", "without stages it is what it began with"


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "org/name@main", "no-such-folder"])
def test_what_is_no_folder_keeps_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "runs/smollm2-135m-instruct", "sft")
    assert named(name) == name and unfinished(name) == ""


def test_a_models_folder_is_that_model_even_with_a_recipe_in_it(tmp_path: Path) -> None:
    folder = run(tmp_path / "model", "sft", done=1)
    (folder / "config.json").write_text("{}")
    assert named(str(folder)) == str(folder)


def test_what_a_model_was_trained_from_is_known_where_it_lies_in_a_run(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", "sft", done=1)
    assert base_of(str(folder)) == base_of(str(folder / "models/sft")) == "org/base"
    for name in ("smollm2-135m-instruct", str(tmp_path)):
        with pytest.raises(ConfigError, match="nothing says which model this one was trained from"):
            base_of(name)


def test_the_system_message_of_a_run_is_the_one_that_all_its_problems_begin_with(tmp_path: Path) -> None:
    def evals(name: str, *systems: str) -> str:
        folder = run(tmp_path / name, "sft", done=1)
        (folder / "evals/held").mkdir(parents=True)
        asks = {"role": "user", "content": "why?"}
        prompts = [[{"role": "system", "content": said}, asks] if said else [asks] for said in systems]
        lines = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
        (folder / "evals/held/base.jsonl").write_text(lines)
        return str(folder)

    same = evals("same", "Be brief.", "Be brief.")
    assert system_of(same) == system_of(f"{same}/models/sft") == "Be brief."
    assert system_of(evals("two", "Be brief.", "Be kind.")) == system_of(evals("some", "Be brief.", "")) == ""
    assert system_of(evals("none", "")) == system_of("smollm2-135m-instruct") == ""


def test_a_run_without_a_model_says_how_to_come_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "runs/first", "sft")
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "a"}))
    predict = ["predict", "runs/first", "--in", "in.jsonl", "--out", "out.jsonl"]
    for command in (["chat", "runs/first"], predict):
        assert main(command) == 2
        told = capsys.readouterr().err
        assert "the run has no model yet: none of its stages is finished (got 'runs/first')" in told
        assert "Finish it: sharpen run --resume runs/first; until then, what it began with is org/base" in told
    assert main(["chat", "first"]) == 2
    assert "Did you mean the run 'runs/first'?" in capsys.readouterr().err
    assert main(["chat", "runs"]) == 2
    assert "config.json is missing" in capsys.readouterr().err
    assert main(["chat", "smollm2-135m-instruct", "--compare"]) == 2
    assert "nothing says which model" in capsys.readouterr().err


def test_a_recipe_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: [")
    with pytest.raises(ModelError, match="recipe cannot be read"):
        named(str(tmp_path))
