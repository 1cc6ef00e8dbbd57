"""A grader's version follows its settings and the code it names; a run notes it, and a resume tells of changes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharpen.config.graders import GraderConfig
from sharpen.config.graders.version import version
from sharpen.stages import pipeline
from tests.lab.inprocess import graders
from tests.runs.lab import World, events


def built(**values: Any) -> Any:
    found = graders(values)[""]
    assert isinstance(found, GraderConfig)
    return found


def test_a_version_is_twelve_digits_of_the_canonical_config() -> None:
    config = built(type="string_check", operation="like")
    fields = {
        "input": "{{ sample.output_text }}",
        "name": "",
        "operation": "like",
        "reference": "{{ item.answer }}",
        "time_limit": 10.0,
        "type": "string_check",
    }
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert version(config) == hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    assert len(version(config)) == 12


def test_equal_graders_have_equal_versions_and_every_setting_counts() -> None:
    plain = version(built(type="numeric"))
    assert plain == version(built(type="numeric", take="last", abs_tolerance=0))
    changes: list[dict[str, Any]] = [{"take": "only"}, {"abs_tolerance": 0.1}, {"time_limit": 3}, {"name": "n"}]
    changed = [version(built(type="numeric", **change)) for change in changes]
    assert len({plain, *changed}) == 1 + len(changes)


@pytest.mark.parametrize("place", ["mine.py", "pkg/mine.py", "pkg/mine/__init__.py"])
def test_the_code_that_a_plugin_names_counts_wherever_it_stands(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    plugin = {"type": "plugin", "use": f"{module}:fn"}
    multi = {"type": "multi", "graders": {"own": plugin}, "calculate_output": "own"}
    versions = []
    for source in ("", "def fn(sample, item): return 1", "def fn(sample, item): return 0"):
        path.write_text(source + "\nraise SystemExit('this must not be run')")
        versions += [version(built(**plugin)), version(built(**multi))]
    assert len(set(versions)) == 6
    path.unlink()
    assert version(built(**plugin)) not in versions  # of a module that cannot be found, the config alone


def test_the_code_that_adapters_name_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    paths = [tmp_path / f"{name}.py" for name in ("first", "second", "reading", "handler")]
    rubric = {"type": "rubric", "functions": [{"use": "first:fn"}, {"use": "second:fn"}], "parser": "reading:Reader"}
    batched = {"type": "batch_endpoint", "file": str(paths[3])}
    for path in paths:
        path.write_text("")
    before = (version(built(**rubric)), version(built(**batched)))
    for path in paths:
        path.write_text("edited")
        after = (version(built(**rubric)), version(built(**batched)))
        assert [one != other for one, other in zip(before, after, strict=True)] == [path != paths[3], path == paths[3]]
        path.write_text("")
    prompt = {"role": "user", "content": "{{ sample.output_text }}"}
    judge = {"type": "score_model", "model": "m", "base_url": "http://localhost:1/v1", "input": [prompt]}
    assert version(built(**judge)) != version(built(**judge, range=[0, 5]))  # names no code


def grader(folder: Path, source: str) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "graders_of_this_test.py").write_text(source)
    return {"type": "plugin", "use": "graders_of_this_test:fn"}


@pytest.mark.usefixtures("here")
def test_a_run_notes_the_versions_and_a_resume_tells_of_edited_code(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    plugin = grader(tmp_path / "code", "def fn(sample, item): return 1.0")
    own = {"type": "numeric", "name": "own"}
    data = [world.rft, {"type": "inline", "rows": [{"prompt": "p", "answer": "1"}], "grader": own}]
    stage = world.rft_stage(grader=plugin, data=data, steps=1)
    run = tmp_path / "run"
    pipeline.run(world.recipe(stage, evals=[world.eval_config(grader=own)]), run, base=world.folder)
    noted = yaml.safe_load((run / "recipe.yaml").read_text())["resolved"]["graders"]
    assert noted == {
        "stages.rft": version(built(**plugin)),
        "stages.rft.data.1": version(built(**own)),
        "evals.held": version(built(**own)),
    }
    pipeline.resume(run)
    assert not events(run, "alert")
    grader(tmp_path / "code", "def fn(sample, item): return 0.0")
    pipeline.resume(run)
    (alert,) = events(run, "alert")
    assert alert["kind"] == "grader_changed"
    assert f"stages.rft {noted['stages.rft']} -> {version(built(**plugin))}" in alert["message"]
    assert "evals.held" not in alert["message"]


@pytest.mark.usefixtures("here")
def test_a_run_of_an_older_sharpen_that_noted_no_versions_goes_on_without_alert(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pipeline.run(world.recipe(world.rft_stage(steps=1)), run, base=world.folder)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    del recipe["resolved"]["graders"]
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    pipeline.resume(run)
    assert not events(run, "alert")
