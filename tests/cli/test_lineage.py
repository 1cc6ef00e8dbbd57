"""`sharpen models show` on runs and models: what they were made from, as a tree."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from sharpen.cli.main import main
from sharpen.runs import lineage, manifest
from sharpen.stages import pipeline
from tests.runs.lab import World, quick
from tests.runs.test_damaged import flip


@pytest.fixture(scope="module")
def runs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first`: base -> sft -> rft and sft -> other, with an eval; `second`: one more stage on rft. Read only."""
    folder = tmp_path_factory.mktemp("runs")
    rft = world.rft_stage(steps=2, adapter={"type": "lora", "rank": 2})
    other = world.sft_stage(name="other", epochs=1, **{"from": "sft"})
    with quick():
        recipe = world.recipe(world.sft_stage(epochs=1), rft, other, evals=[world.eval_config(samples=0)])
        pipeline.run(recipe, folder / "first", base=folder)
        more = world.sft_stage(name="more", epochs=1, **{"from": "first/models/rft"})
        pipeline.run(world.recipe(more), folder / "second", base=folder)
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["models", "show", *map(str, words)]) == 0
    return capsys.readouterr().out


def heads(text: str) -> list[tuple[int, str]]:
    """How deep in the tree each model stands, and its name."""
    found = re.findall(r"^  ((?:│   |    )*)(?:├── |└── )(\S+)", text, re.MULTILINE)
    return [(len(before) // 4 + 1, name) for before, name in found]


def walked(nodes: list[dict[str, Any]], depth: int = 0) -> list[tuple[int, str]]:
    return [pair for node in nodes for pair in ((depth, node["name"]), *walked(node["children"], depth + 1))]


def test_a_run_shows_all_its_models_and_what_came_of_each(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, runs / "first")
    assert heads(text) == [(1, "sft"), (2, "rft"), (2, "other")]
    summary = json.loads((runs / "first/summary.json").read_text())
    for name, result in {"base": summary["base"], **{s["name"]: s for s in summary["stages"]}}.items():
        low, high = result["evals"]["held"]["ci95"]
        assert f"[{low * 100:.1f}, {high * 100:.1f}]" in text, name
    for fact in ("LoRA rank 2 on all linear layers: ", "rft.jsonl  ", "plugin  ", "tokens sampled", "reward 0."):
        assert fact in text
    for stage in ("sft", "rft", "other"):
        assert lineage.weights(runs / "first/models" / stage)[:8] in text
    marked = next(line for line in text.splitlines() if "◀ this model" in line)
    assert "other" in marked and text.count("◀") == 1


def test_a_model_shows_its_own_ancestors_alone_over_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, runs / "second/models/more")
    assert heads(text) == [(1, "sft"), (2, "rft"), (3, "more")]
    assert "held" in text and "parameters" in text and "fits here?" in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_tree_keeps_to_the_width_and_loses_nothing(
    width: int, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharpen.cli.table.WIDTH", width)
    text = said(capsys, runs / "second")
    tree = text[text.index("where it began") - 20 :]
    assert max(map(len, text.splitlines())) <= width and "…" not in tree
    assert heads(text) == [(1, "sft"), (2, "rft"), (3, "more")]
    plain = "".join(re.sub(r"[│├└─]", "", tree).split())
    assert "LoRArank2onalllinearlayers:" in plain and "tokenssampled" in plain


def test_json_has_the_tree_with_everything_in_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, runs / "first", "--json"))
    assert walked(found["lineage"]) == [(0, "model"), (1, "sft"), (2, "rft"), (2, "other")]
    (root,) = found["lineage"]
    (sft,) = root["children"]
    own = lineage.read(runs / "first/models/sft")
    assert own and sft["metrics"] == own["metrics"] and sft["recipe"] == own["recipe"]
    assert sft["folder"] == str(runs / "first/models/sft") and sft["sha256"] == lineage.weights(Path(sft["folder"]))
    summary = json.loads((runs / "first/summary.json").read_text())
    assert sft["evals"] == summary["stages"][0]["evals"] and root["evals"] == summary["base"]["evals"]


def test_evals_of_an_ancestor_that_was_trained_anew_are_not_shown(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lineage says which weights they were; those in the folder now are others."""
    first, model = runs / "first", runs / "second/models/more"
    moved = first.with_name("kept")
    shutil.copytree(first, moved)
    try:
        with manifest.publish(first / "models/rft", {}) as aside:
            shutil.copytree(moved / "models/rft", aside, dirs_exist_ok=True)
            flip(aside / "model.safetensors")
        (root,) = json.loads(said(capsys, model, "--json"))["lineage"]
        (sft,) = root["children"]
        (rft,) = sft["children"]
        assert sft["evals"] and not rft["evals"]
    finally:
        shutil.rmtree(first)
        moved.rename(first)


def test_what_has_no_lineage_is_shown_as_ever(
    runs: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Path(shutil.copytree(runs / "first/models/sft", tmp_path / "old"))
    (old / lineage.NAME).unlink()
    for name in (world.model, str(old), "qwen3-8b"):
        assert json.loads(said(capsys, name, "--json"))["lineage"] == []
        assert "where it began" not in said(capsys, name)


def test_a_broken_lineage_is_one_paragraph(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = Path(shutil.copytree(runs / "first/models/sft", tmp_path / "broken"))
    (broken / lineage.NAME).write_text("{")
    assert main(["models", "show", str(broken)]) == 2
    printed = capsys.readouterr()
    assert "lineage.json" in printed.err and "Traceback" not in printed.err + printed.out
