"""What a run's handle tells, against the run's own files."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd  # type: ignore[import-untyped]
import pytest

import sharpen as sh
from sharpen.api.frames import EVALS, ROLLOUTS, prompt_text
from sharpen.api.watching import Lines
from sharpen.errors import ConfigError, RunError
from sharpen.types import Grade
from tests.runs.lab import World, labelled, prompts, quick

SVG = "{http://www.w3.org/2000/svg}"


def graded(sample: dict[str, Any], item: dict[str, Any]) -> Any:
    text = sample["output_text"]
    if "z" in text:
        return Grade(None, explanation="no z, please")
    return Grade(len(set(text)) / 8, {"long": float(len(text))}, f"{len(text)} characters")


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> sh.Run:
    stages = [
        sh.SFT(labelled("count", 8), batch_size=4, validation=labelled("hold", 2), eval_every=1),
        sh.RFT(
            prompts("say", 6),
            grader=graded,
            max_fault_share=1.0,
            probe=None,
            prompts_per_step=2,
            group_size=3,
            steps=3,
            sampling={"max_tokens": 8},
        ),
    ]
    held_out = sh.Eval(prompts("ask", 4), grader=lambda sample, item: len(sample["output_text"]), max_tokens=8)
    recipe = sh.Recipe(model=world.model, stages=stages, evals=[held_out], dtype="float32", threads=1)
    with quick(graded):
        return sh.run(recipe, out=tmp_path_factory.mktemp("results") / "run")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rollouts_are_a_row_a_completion(run: sh.Run) -> None:
    frame = run.rollouts()
    assert isinstance(frame, pd.DataFrame) and list(frame.columns) == [*ROLLOUTS, "scores.long"]
    raw = [(step, line) for step in (1, 2, 3) for line in lines(run.path / f"rollouts/rft/step-{step:05d}.jsonl")]
    assert len(raw) == len(frame) == 18
    for (step, line), row in zip(raw, frame.to_dict("records"), strict=True):
        assert (row["stage"], row["step"], row["example"], row["text"]) == ("rft", step, line["example"], line["text"])
        assert row["prompt"] == line["prompt"][0]["content"] and row["tokens"] == len(line["tokens"])
        for name in ("reward", "advantage"):
            assert row[name] == line[name] or (math.isnan(row[name]) and line[name] is None)
    graded_rows = frame[frame["score"].notna()]
    assert (graded_rows["scores.long"] == graded_rows["text"].str.len()).all()
    assert run.rollouts("rft", 2, as_frame=False) == [row for row in run.rollouts(as_frame=False) if row["step"] == 2]


def test_evals_are_a_row_a_problem_and_model(run: sh.Run) -> None:
    frame = run.evals()
    assert list(frame.columns) == list(EVALS) and list(frame["model"].unique()) == ["base", "sft", "rft"]
    for model, own in frame.groupby("model"):
        raw = lines(run.path / f"evals/held_out/{model}.jsonl")
        assert list(own["text"]) == [line["text"] for line in raw]
        entry = run.summary["base"] if model == "base" else next(s for s in run.summary["stages"] if s["name"] == model)
        assert own["correct"].mean() == entry["evals"]["held_out"]["score"]
        assert run.evals("held_out", model, as_frame=False) == own.to_dict("records")


def test_a_chat_is_told_turn_by_turn() -> None:
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert prompt_text(chat) == "system: be brief\n\nuser: hi" and prompt_text(chat[1:]) == "hi"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda run: run.rollouts("sft"), "stage: the run has nothing of this stage (got 'sft'). It has: rft"),
        (lambda run: run.rollouts("rft", 9), "step: the run has nothing of this step (got 9). It has: 1, 2, 3"),
        (lambda run: run.evals("other"), "It has: held_out"),
        (lambda run: run.evals(model="dpo"), "It has: base, sft, rft"),
        (lambda run: run.curves("other"), "It has: sft, rft"),
    ],
)
def test_what_a_run_does_not_have_is_named_beside_what_it_has(run: sh.Run, asked: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        asked(run)
    assert said in str(refused.value)


def test_without_pandas_a_list_of_dicts_remains(run: sh.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"needs pandas.*pip install pandas, or .*as_frame=False"):
        run.rollouts()
    assert len(run.rollouts(as_frame=False)) == 18


def test_curves_are_a_picture_that_needs_no_style_sheet(run: sh.Run, tmp_path: Path) -> None:
    svg = run.curves()._repr_svg_()
    assert run.curves().save(tmp_path / "curves.svg").read_text() == svg
    root = ElementTree.fromstring(svg)
    assert not [part for part in root.iter() if "class" in part.attrib or part.tag == f"{SVG}style"]
    titles = [part.text for part in root.iter(f"{SVG}text") if part.get("font-weight") == "600"]
    assert titles[:3] == ["SFT", "Loss", "Token accuracy"] and titles[4:6] == ["RFT", "Reward"]
    last = next(line for line in run.metrics[::-1] if line["type"] == "rft")["reward"]["mean"]
    words = [part.text for part in root.iter(f"{SVG}text")]
    assert f"train {last:.3f}".replace("-", "\N{MINUS SIGN}") in words
    # Three steps are three points: every line of the reward has as many.
    drawn = [part for part in root.iter(f"{SVG}path") if part.get("stroke") == "#d55e00" and part.get("fill") == "none"]
    assert drawn and drawn[0].get("d", "").count("L") == 2
    only = ElementTree.fromstring(run.curves("rft")._repr_svg_())
    assert "SFT" not in [part.text for part in only.iter(f"{SVG}text")]


def test_metrics_of_ones_own_are_drawn_too() -> None:
    own = [{"stage": "mine", "type": "rft", "step": step, "reward": {"mean": step / 10}} for step in (1, 2)]
    words = [part.text for part in ElementTree.fromstring(sh.Curves(own)._repr_svg_()).iter(f"{SVG}text")]
    assert {"mine", "Reward", "train 0.200"} <= set(words)
    with pytest.raises(ConfigError, match="no metrics"):
        sh.Curves([])


def test_the_report_and_the_verdict_are_at_hand(run: sh.Run) -> None:
    assert run.verdict == run.summary["verdict"] and run.verdict
    page = run.report()
    assert page == run.path / "report.html" and run.verdict[:30] in page.read_text()
    assert repr(run) == f"Run({str(run.path)!r})"


def test_a_folder_without_a_run_is_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run"):
        sh.open_run(tmp_path)
    (tmp_path / "recipe.yaml").write_text("model: m\n")
    begun = sh.open_run(tmp_path)
    assert (
        begun.metrics == [] and begun.rollouts(as_frame=False) == [] and list(begun.rollouts().columns) == [*ROLLOUTS]
    )
    with pytest.raises(RunError, match="no summary yet"):
        begun.verdict  # noqa: B018
    with pytest.raises(ConfigError, match="no metrics"):
        begun.curves()


def test_a_run_is_told_in_lines(run: sh.Run, capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    watcher = Lines(said.append)
    for event in lines(run.path / "events.jsonl"):
        watcher.event(event)
    for line in run.metrics:
        watcher.metrics(line)
    scores = [entry["evals"]["held_out"]["score"] for entry in (run.summary["base"], *run.summary["stages"])]
    for name, score in zip(("base", "sft", "rft"), scores, strict=True):
        assert f"held_out on {name}: {score:.1%} right" in said
    chosen = next(event for event in lines(run.path / "events.jsonl") if event["event"] == "lr_chosen")
    assert chosen["message"] in said
    told = [line for line in said if "step" in line]
    assert told[0].startswith("sft: step 1 of 2  loss") and told[-1].startswith("rft: step 3 of 3  reward")
    Lines().event({"event": "alert", "message": "slow"})
    assert capsys.readouterr().out == "slow\n"
