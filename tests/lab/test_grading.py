"""`sharpen grade` as a function: gold answers that fail, sub-scores, sources' own graders, samples of a model."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sharpen.config.graders.version import version
from sharpen.config.recipe import Eval
from sharpen.errors import ConfigError, SharpenError
from sharpen.lab import grading
from sharpen.lab.grading import Wanted, faultless, grade
from sharpen.lab.measures import wilson
from tests.lab.inprocess import InProcess, config, rows
from tests.tiny import tiny_model


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading, "GraderPool", InProcess)


def graded(spec: Eval, base: Path = Path(), **wanted: Any) -> dict[str, Any]:
    found = asyncio.run(grade(spec, Wanted(**wanted), base=base))
    assert json.loads(json.dumps(found, allow_nan=False)) == found  # plain values, as --json prints them
    return found


def samples(tmp_path: Path, *lines: dict[str, Any]) -> Path:
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_grader_that_fails_its_own_gold_answers_is_told_which_and_why() -> None:
    found = graded(config({"type": "numeric", "take": "only"}, rows("7", "8 apples", "nine", "10", None)))
    gold = found["gold"]
    assert (gold["n"], gold["without"], gold["passed"], gold["share"]) == (4, 1, 2, 0.5)
    assert gold["ci95"] == list(wilson(2, 4))
    assert [one["id"] for one in gold["failed"]] == ["r1", "r2"]
    apples, nine = gold["failed"]
    assert (apples["text"], apples["score"], apples["fault"]["kind"]) == ("8 apples", 0.0, "sample_parse_error")
    assert (nine["score"], nine["fault"]["kind"]) == (None, "invalid_variable_error")
    assert gold["faults"] == {"completion": {"sample_parse_error": 1}, "grader": {"invalid_variable_error": 1}}
    assert not faultless(found)


def test_gold_answers_may_stand_in_a_field_or_a_template() -> None:
    given = [{**row, "sign": "-", "solution": f"-{row['answer']}"} for row in rows("7", "8")]
    grader = {"type": "string_check", "reference": "-{{ item.answer }}"}
    assert graded(config(grader, given))["gold"]["passed"] == 0
    assert graded(config(grader, given), gold="solution")["gold"]["passed"] == 2
    assert graded(config(grader, given), gold="{{ item.sign }}{{ item.answer }}")["gold"]["passed"] == 2
    with pytest.raises(ConfigError, match=r"--gold: no row has a reference answer there .*\['answer', .*'solution'"):
        graded(config(grader, given), gold="missing")


def test_the_threshold_says_what_full_marks_are() -> None:
    half = {"type": "multi", "graders": {"same": {"type": "string_check"}}, "calculate_output": "same / 2"}
    found = graded(config(half, rows("7", "8")))
    assert (found["gold"]["passed"], found["gold"]["highest"], found["graders"][0]["full_marks"]) == (0, 0.5, 1.0)
    found = graded(config(half, rows("7", "8")), threshold=0.5)
    assert (found["gold"]["passed"], found["graders"][0]["full_marks"]) == (2, 0.5)
    assert faultless(found)


def test_samples_have_scores_sub_scores_faults_and_times(tmp_path: Path) -> None:
    parts = {"right": {"type": "numeric"}, "short": {"type": "regex", "pattern": ".{1,3}", "mode": "fullmatch"}}
    spec = config({"type": "multi", "graders": parts, "calculate_output": "right * short"}, rows("7", "8"))
    lines = [{"id": "r1", "text": "8"}, {"id": "r0", "text": "It is 7"}, {"id": "r0", "text": "no"}]
    found = graded(spec, samples=samples(tmp_path, *lines))["samples"]
    assert (found["n"], found["rows"], found["score"]) == (3, 2, 0.5)
    assert found["metrics"] == {"right": pytest.approx(2 / 3), "short": pytest.approx(2 / 3)}
    assert found["faults"] == {"completion": {"sample_parse_error": 1}, "grader": {}}
    assert found["histogram"]["counts"] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    first, second, third = found["trials"]
    assert (first["id"], first["score"], first["metrics"]) == ("r1", 1.0, {"right": 1.0, "short": 1.0})
    assert (second["id"], second["sample"], second["metrics"]) == ("r0", 0, {"right": 1.0, "short": 0.0})
    assert (third["sample"], third["fault"]["kind"]) == (1, "sample_parse_error")
    assert all(one["seconds"] > 0 and one["explanation"] for one in found["trials"])


def test_each_source_may_have_a_grader_of_its_own(tmp_path: Path) -> None:
    own = {"type": "regex", "pattern": "^x$", "name": "exes"}
    data = [
        {"type": "inline", "rows": rows("7", "8")},
        {"type": "inline", "rows": [{"id": "x", "prompt": "Say x", "answer": "y"}], "grader": own},
    ]
    spec = Eval.model_validate({"name": "e", "data": data, "grader": {"type": "numeric"}})
    path = samples(tmp_path, {"id": "r0", "text": "7"}, {"id": "x", "text": "x"}, {"id": "r1", "text": "x"})
    found = graded(spec, samples=path)
    assert [one["score"] for one in found["samples"]["trials"]] == [1.0, 1.0, 0.0]
    assert [(one["name"], one["rows"]) for one in found["graders"]] == [("numeric", 2), ("exes", 1)]
    assert spec.grader and found["graders"][0]["version"] == version(spec.grader)
    assert [one["id"] for one in found["gold"]["failed"]] == ["x"]


def test_a_model_is_sampled_k_times_and_equally_with_an_equal_seed(tmp_path: Path) -> None:
    model = str(tiny_model(tmp_path / "model", num_hidden_layers=1))
    spec = config({"type": "regex", "pattern": "[aeiou]"}, rows("a", "b"), samples=3, max_tokens=6)
    first, again, other = (graded(spec, model=model, seed=seed)["samples"] for seed in (1, 1, 2))
    assert (first["n"], first["rows"], first["each"], first["source"]) == (6, 2, 3, model)
    texts = [one["text"] for one in first["trials"]]
    assert texts == [one["text"] for one in again["trials"]] != [one["text"] for one in other["trials"]]
    assert len(set(texts)) > 3
    assert [(one["id"], one["sample"]) for one in first["trials"]] == [(f"r{r}", k) for r in (0, 1) for k in (0, 1, 2)]
    assert [one["score"] for one in first["trials"]] == [float(any(c in "aeiou" for c in text)) for text in texts]
    shorter = graded(config({"type": "math"}, rows("a", "b"), samples=3, max_tokens=2), model=model, seed=1)["samples"]
    cut = [one["text"] for one in shorter["trials"]]
    assert cut != texts and all(text.startswith(start) for text, start in zip(texts, cut, strict=True))
    cold = config({"type": "math"}, rows("a", "b"), samples=3, max_tokens=6, temperature=1e-4)
    greedy = [one["text"] for one in graded(cold, model=model, seed=1)["samples"]["trials"]]
    assert greedy != texts and len(set(greedy)) == 2


def test_attacks_are_made_where_asked_for_and_a_success_is_a_fault() -> None:
    spec = config({"type": "string_check", "operation": "ilike"}, rows("seven", "eight"))
    assert graded(spec)["red_team"] is None and faultless(graded(spec))
    assert faultless(graded(spec, red_team=True))
    fooled = graded(config({"type": "regex", "pattern": "seven|eight|:"}, rows("seven", "eight")), red_team=True)
    assert {one["attack"] for one in fooled["red_team"] if one["rate"] == 1} >= {"signs", "another answer"}
    assert not fooled["gold"]["failed"] and not faultless(fooled)


def test_labels_are_held_against_the_samples(tmp_path: Path) -> None:
    lines = [{"id": "r0", "text": "7", "human": True}, {"id": "r1", "text": "7", "human": True}]
    path = samples(tmp_path, *lines, {"id": "r1", "text": "6", "human": False})
    found = graded(config({"type": "numeric"}, rows("7", "8")), samples=path, labels="human")["labels"]
    assert (found["n"], found["good"], found["at_full_marks"]["agreement"]["value"]) == (3, 2, pytest.approx(2 / 3))
    ratings = graded(
        config({"type": "numeric"}, [{**row, "rating": 3} for row in rows("7", "8")]),
        samples=path,
        labels="rating",
        passing=2.0,
    )["labels"]
    assert (ratings["n"], ratings["good"], ratings["passing"]) == (3, 3, 2.0)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"samples": Path("s.jsonl"), "model": "m"}, "samples come from a file or from a model"),
        ({"labels": "human"}, "--labels: labels are people's words on texts"),
        ({"samples": Path("missing.jsonl")}, "cannot read the file"),
    ],
)
def test_what_does_not_fit_is_told(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(SharpenError, match=said):
        graded(config({"type": "numeric"}, rows("7")), **wanted)
