"""lineage.json: what each model was made from, with what, and what came of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from sharpen.errors import RunError
from sharpen.runs import lineage, manifest
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.runs.lab import World, quick

LORA = {"type": "lora", "rank": 2}
HARMFUL = {"lr": 0.3, "schedule": "constant", "warmup_ratio": 0.0}


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base -> sft (its best weights) -> rft, with inline rows. Read only."""
    folder = tmp_path_factory.mktemp("lineage") / "run"
    rows = {"type": "inline", "rows": [{"prompt": f"count {n}", "completion": f"{n}b"} for n in range(8)]}
    best = {"validation": world.sft_validation, "final": "best", "eval_every": 1}
    sft = world.sft_stage(data=rows, epochs=4, optim=HARMFUL, **best)
    rft = world.rft_stage(adapter=LORA, steps=2, validation=world.rft_validation)
    with quick():
        pipeline.run(world.recipe(sft, rft), folder, base=world.folder)
    return folder


def of(run: Path, stage: str) -> Any:
    found = lineage.read(run / "models" / stage)
    assert found
    return found


def test_each_model_says_what_it_was_made_from_and_with(run: Path, world: World) -> None:
    sft, rft = of(run, "sft"), of(run, "rft")
    (base,), (parent,) = sft["parents"], rft["parents"]
    assert base == {
        "name": "model",
        "path": world.model,
        "sha256": hashlib.sha256((Path(world.model) / "model.safetensors").read_bytes()).hexdigest(),
        "lineage": None,
    }
    assert (parent["name"], parent["path"], parent["lineage"]) == ("sft", "models/sft", sft)
    assert parent["sha256"] == hashlib.sha256((run / "models/sft/model.safetensors").read_bytes()).hexdigest()
    assert (rft["name"], rft["type"]) == ("rft", "rft")
    assert rft["adapter"]["words"].startswith("LoRA rank 2 on all linear layers: ")
    assert rft["adapter"]["base"] == "models/sft" and rft["adapter"]["settings"]["rank"] == 2
    assert sft["adapter"]["base"] is None and sft["adapter"]["settings"] is None
    assert rft["recipe"]["stage"]["steps"] == 2 and rft["recipe"]["stage"]["adapter"]["type"] == "lora"
    assert {key: rft["recipe"][key] for key in ("model", "seed", "dtype", "chat_template_kwargs")} == {
        "model": world.model,
        "seed": 3,
        "dtype": "float32",
        "chat_template_kwargs": {},
    }


def test_data_and_graders_have_the_hashes_that_the_run_noted(run: Path, world: World) -> None:
    import yaml

    noted = yaml.safe_load((run / "recipe.yaml").read_text())["resolved"]
    for stage in ("sft", "rft"):
        found = of(run, stage)
        own = {place: digest for place, digest in noted["data"].items() if place.startswith(f"stages.{stage}.")}
        assert found["data"] == own and len(own) == 2
        assert found["versions"] == noted["versions"]
    assert of(run, "rft")["graders"] == {"stages.rft": noted["graders"]["stages.rft"]}
    assert of(run, "sft")["graders"] == {}


def test_metrics_are_those_of_the_step_whose_weights_the_model_has(run: Path) -> None:
    lines = [line for line in read_lines(run / "metrics.jsonl") if line["stage"] == "sft"]
    best = min(lines, key=lambda line: line["validation"]["loss"])
    assert best["step"] != lines[-1]["step"], "a rate this high must do harm, or this shows nothing"
    told = of(run, "sft")["metrics"]
    assert (told["step"], told["validation"], told["loss"]) == (best["step"], best["validation"], best["loss"])
    assert told["tokens"]["trained"] == sum(line["tokens"]["trained"] for line in lines)
    last = read_lines(run / "metrics.jsonl")[-1]
    assert of(run, "rft")["metrics"]["reward"] == last["reward"] and "time" not in of(run, "rft")["metrics"]


def test_it_is_part_of_the_manifest_and_fits_its_schema(run: Path) -> None:
    Draft202012Validator.check_schema(lineage.SCHEMA)
    for stage in ("sft", "rft"):
        folder = run / "models" / stage
        assert lineage.NAME in manifest.verify(folder)["files"]
        Draft202012Validator(lineage.SCHEMA).validate(of(run, stage))
        assert set(of(run, stage)) == set(lineage.SCHEMA["properties"])


def test_equal_runs_have_equal_lineages_wherever_they_lie(run: Path, world: World, tmp_path: Path) -> None:
    from sharpen.config.load import load

    rows = {"type": "inline", "rows": read_lines(run / "data/stages/sft.jsonl")}
    values = load(run / "recipe.yaml").model_dump(mode="json")
    stages = [{**values["stages"][0], "data": rows}, values["stages"][1]]
    with quick():
        pipeline.run(world.recipe(*stages), tmp_path / "elsewhere" / "twin", base=tmp_path)
    for stage in ("sft", "rft"):
        written = [(where / f"models/{stage}/lineage.json").read_text() for where in (run, tmp_path / "elsewhere/twin")]
        assert written[0] == written[1] and str(run) not in written[0]
    assert of(run, "sft")["recipe"]["stage"]["data"]["path"] == "data/stages/sft.jsonl"


def test_a_chain_leads_from_the_first_model_to_the_last(run: Path) -> None:
    assert [(model["name"], own and own["type"]) for model, own in lineage.chain(of(run, "rft"))] == [
        ("model", None),
        ("sft", "sft"),
        ("rft", "rft"),
    ]


def test_the_digest_of_weights_is_what_sha256sum_says(tmp_path: Path) -> None:
    (tmp_path / "model-1.safetensors").write_bytes(b"one")
    said = subprocess.run("sha256sum *.safetensors", shell=True, cwd=tmp_path, capture_output=True, text=True).stdout
    assert lineage.weights(tmp_path) == said.split()[0]
    (tmp_path / "model-2.safetensors").write_bytes(b"two")
    piped = subprocess.run(
        "sha256sum *.safetensors | sha256sum", shell=True, cwd=tmp_path, capture_output=True, text=True
    ).stdout
    assert lineage.weights(tmp_path) == piped.split()[0]


def test_the_hubs_cache_is_believed(tmp_path: Path) -> None:
    """Its files are links to blobs whose names are their digests."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots/abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / ("ab" * 32)).write_bytes(b"weights")
    (snapshot / "model.safetensors").symlink_to(blobs / ("ab" * 32))
    assert lineage.weights(snapshot) == "ab" * 32


def test_a_model_without_one_still_serves_and_a_broken_one_is_told(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run / "models/sft", tmp_path / "sft"))
    for text in ("{", "[]", '{"name": "x"}'):
        (folder / lineage.NAME).write_text(text)
        with pytest.raises(RunError, match="lineage") as error:
            lineage.read(folder)
        assert str(folder / lineage.NAME) in str(error.value)
    for name in (lineage.NAME, manifest.NAME):
        (folder / name).unlink()
    assert lineage.read(folder) is None
    assert lineage.parent("old", folder, None)["lineage"] is None


def test_the_lineage_of_an_earlier_run_goes_on(run: Path, world: World, tmp_path: Path) -> None:
    with quick():
        stage = world.sft_stage(name="more", epochs=1, **{"from": str(run)})
        pipeline.run(world.recipe(stage), tmp_path / "second", base=tmp_path)
    found = of(tmp_path / "second", "more")
    (parent,) = found["parents"]
    assert (parent["name"], parent["path"]) == ("rft", str(run / "models/rft"))
    assert [model["name"] for model, _ in lineage.chain(found)] == ["model", "sft", "rft", "more"]
    assert json.loads((run / "models/rft/lineage.json").read_text()) == parent["lineage"]
