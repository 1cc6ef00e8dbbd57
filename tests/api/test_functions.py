"""Functions and objects as graders, of stages and evals: what they are called, what is refused, and resuming."""

from __future__ import annotations

import json
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import sharpen as sh
from sharpen.api.graders import Graded, graded, name_of
from sharpen.config.graders import MathAnswer
from sharpen.config.recipe import Eval
from sharpen.errors import ConfigError, GraderError
from sharpen.graders.plugin import PluginGrader
from sharpen.runs.store import read_lines
from sharpen.types import Example, Fault, Grade, Sample
from tests.runs.lab import World, bits, prompts, quick


def letters(sample: dict[str, Any], item: dict[str, Any]) -> float:
    text = sample["output_text"]
    return len(set(text)) / 8


class Longer:
    """An object that is called."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, sample: dict[str, Any], item: dict[str, Any]) -> float:
        return min(1.0, len(sample["output_text"]) / self.most)

    def method(self, sample: dict[str, Any], item: dict[str, Any]) -> float:
        return self(sample, item)


class Whole:
    """An object with our protocol: it sees the example itself, and says why."""

    async def grade(self, example: Example, sample: Sample) -> Grade:
        return Grade(0.5, {"asked": float(len(example.messages))}, f"{example.id}: {sample.finish}")


class Plain:
    """The same, but plain: a number will do."""

    def grade(self, example: Example, sample: Sample) -> float:
        return len(example.messages[0]["content"])


EXAMPLE = Example("row:1", ({"role": "user", "content": "four"},), {"answer": "x"})


async def said(function: Any) -> Grade:
    config = graded(Eval, {"name": "held", "data": {"path": "x"}}, function)
    assert isinstance(config, Graded)
    return await PluginGrader(config.config.grader, config.grader).grade(EXAMPLE, Sample("text"))  # type: ignore[arg-type]


def run(work: Any) -> Any:
    import asyncio

    return asyncio.run(work)


@pytest.mark.parametrize(
    ("grader", "name"),
    [
        (letters, f"{__name__}:letters"),
        (Longer(3), f"{__name__}:Longer()"),
        (Longer(3).method, f"{__name__}:Longer().method"),
        (Whole(), f"{__name__}:Whole()"),
        (lambda sample, item: 1, f"{__name__}:<lambda>"),
        (partial(letters), "functools:partial()"),
    ],
)
def test_a_recipe_names_a_function_and_an_object_as_what_no_recipe_can_import(grader: Any, name: str) -> None:
    assert name_of(grader) == name


@pytest.mark.parametrize(
    ("grader", "grade"),
    [
        (letters, Grade(3 / 8)),
        (Longer(8), Grade(0.5)),
        (Longer(8).method, Grade(0.5)),
        (Whole(), Grade(0.5, {"asked": 1.0}, "row:1: stop")),
        (Plain(), Grade(4.0)),
    ],
)
def test_functions_methods_and_objects_grade(grader: Any, grade: Grade) -> None:
    assert run(said(grader)) == grade


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("good", "the function's return is no number: 'good'"),
        (None, "the function's return is no number: None"),
        (float("nan"), "not a finite number: {'score': nan}"),
        ({"points": 1}, "the returned dict has no \"score\", only ['points']"),
        ({"score": 1, "form": "yes"}, "'form' in the returned dict is no number: 'yes'"),
    ],
)
def test_a_return_that_is_no_score_names_the_function_the_value_and_the_remedy(returned: Any, words: str) -> None:
    def checks(sample: dict[str, Any], item: dict[str, Any]) -> Any:
        return returned

    told = f'checks: {words}. Return a finite number, or a dict with "score"'
    assert run(said(checks)) == Grade(None, explanation=told, fault=Fault("python_grader_runtime_error", told))


def locking() -> Any:
    lock = threading.Lock()
    return lambda sample, item: lock.locked()


def one_argument(sample: dict[str, Any]) -> float:
    return 1.0


def for_trl(completions: list[str], **columns: Any) -> list[float]:
    return [1.0]


@pytest.mark.parametrize(
    ("grader", "words"),
    [
        (Longer, "a class is no grader (got 'Longer'). Give an object of it: Longer()"),
        (one_argument, "one_argument cannot be called with (sample, item): too many positional arguments"),
        (for_trl, "A function written for TRL goes into a module: {'type': 'trl', 'use': 'module:function'}"),
        (partial(letters, item={}), "cannot be called with (sample, item)"),
        (locking(), "cannot be sent to the processes in which graders run"),
        ([letters], "should be a mapping"),
        ("mathematics", "unknown type `mathematics`"),
        (None, "grader"),
    ],
)
@pytest.mark.parametrize("made", [sh.RFT, sh.Eval])
def test_what_could_grade_nothing_is_refused_at_once(made: Any, grader: Any, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        made("rows.jsonl", grader=grader)
    assert words in str(refused.value)


def test_a_type_alone_is_a_grader() -> None:
    assert sh.Eval("rows.jsonl", grader="math").grader == MathAnswer()


def recipe(world: World, of_stage: Any, of_eval: Any) -> sh.Recipe:
    stage = sh.RFT(
        prompts("say", 6),
        grader=of_stage,
        probe=None,
        prompts_per_step=2,
        group_size=3,
        steps=2,
        save_every=1,
        sampling={"max_tokens": 8},
        optim={"lr": 3e-3},
    )
    held_out = sh.Eval(prompts("ask", 4), grader=of_eval, max_tokens=8, samples=1)
    return sh.Recipe(model=world.model, stages=[stage], evals=[held_out], dtype="float32", threads=1)


def test_an_eval_is_graded_by_its_function_and_the_recipe_says_which(world: World, tmp_path: Path) -> None:
    def long(sample: dict[str, Any], item: dict[str, Any]) -> float:
        return float(len(sample["output_text"]))

    with quick():
        run = sh.run(recipe(world, letters, long), out=tmp_path / "run")
    written = yaml.safe_load((run.path / "recipe.yaml").read_text())
    assert written["stages"][0]["grader"]["use"] == f"{__name__}:letters"
    assert written["evals"][0]["grader"]["use"].endswith("<locals>.long")
    for row in run.evals(as_frame=False):
        assert row["score"] == len(row["text"]) and row["correct"] == int(row["score"] >= 1)
        assert row["samples"][0]["score"] == len(row["samples"][0]["text"])
    for row in run.rollouts(as_frame=False):
        assert row["score"] == len(set(row["text"])) / 8


def test_a_run_goes_on_with_the_functions_it_is_handed_and_asks_for_those_it_lacks(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counts(sample: dict[str, Any], item: dict[str, Any]) -> float:
        return letters(sample, item)

    def breaks(sample: dict[str, Any], item: dict[str, Any]) -> float:
        raise ValueError("not yet")

    with quick():
        whole = sh.run(recipe(world, counts, counts), out=tmp_path / "whole")
    stopped = tmp_path / "stopped"
    with pytest.raises(GraderError) as paused:
        sh.run(recipe(world, breaks, breaks), out=stopped)
    assert "ValueError: not yet" in str(paused.value) and "the held-out item" in str(paused.value)
    with quick():
        with pytest.raises(ConfigError) as missing:
            sh.resume(stopped, graders={"rft": counts})
        words = "evals.held_out.grader: the grader was handed over in Python, and nothing here has it"
        assert words in str(missing.value)
        assert "sharpen.resume(FOLDER, graders={'evals.held_out': ...})" in str(missing.value)
        with pytest.raises(ConfigError, match=r"Graded by one: rft, evals\.held_out"):
            sh.resume(stopped, graders={"rft": counts, "held_out": counts, "sft": counts})
        resumed = sh.resume(stopped, graders={"rft": counts, "held_out": counts})
    assert bits(resumed.path) == bits(whole.path)

    # What recipe.yaml calls `__main__:counts` is taken from the program that is running.
    text = (stopped / "recipe.yaml").read_text().replace(f"{__name__}:{breaks.__qualname__}", "__main__:counts")
    (stopped / "recipe.yaml").write_text(text)
    with quick(), pytest.raises(ConfigError, match="__main__:counts"):
        sh.resume(stopped, set=["stages.rft.steps=3"])
    monkeypatch.setattr(sys.modules["__main__"], "counts", counts, raising=False)
    with quick(lambda sample, item: pytest.fail("the function of the program grades")):
        longer = sh.resume(stopped, set=["stages.rft.steps=3"])
    assert [line["step"] for line in longer.metrics] == [1, 2, 3]


def test_a_grader_that_returns_text_pauses_the_run_with_words_for_python(world: World, tmp_path: Path) -> None:
    def verdict(sample: dict[str, Any], item: dict[str, Any]) -> Any:
        return "good"

    folder = tmp_path / "run"
    with pytest.raises(GraderError) as paused:
        sh.run(recipe(world, verdict, letters), out=folder)
    assert "verdict: the function's return is no number: 'good'. Return a finite number" in str(paused.value)
    assert str(paused.value).endswith(f"Mend it, then: sharpen.resume({str(folder)!r})")
    assert sh.open_run(folder).summary["status"] == "paused"
    assert [row["model"] for row in sh.open_run(folder).evals(as_frame=False)] == ["base"] * 4, "nothing is lost"
    resumed = sh.resume(folder, graders={"rft": letters})
    assert resumed.summary["status"] == "finished"


def test_a_grader_is_tried_on_texts_before_any_training() -> None:
    def exact(sample: dict[str, Any], item: dict[str, Any]) -> float:
        return float(sample["output_text"] == item["answer"])

    rows = [{"prompt": f"say {letter}", "answer": letter} for letter in "abc"]
    tried = sh.grade(exact, rows, samples=["a", "x", {"text": "c"}])
    assert [trial["score"] for trial in tried["samples"]["trials"]] == [1.0, 0.0, 1.0]
    assert tried["gold"]["share"] == 1.0 and json.dumps(tried)
    assert sh.grade("string_check", rows)["gold"]["share"] == 1.0


def test_a_model_is_evaluated_without_a_run_as_the_run_evaluated_it(world: World, tmp_path: Path) -> None:
    held_out = sh.Eval(prompts("ask", 4), grader=letters, max_tokens=8)
    with quick():
        run = sh.run(sh.Recipe(model=world.model, evals=[held_out], dtype="float32", threads=1), out=tmp_path / "run")
        scores = sh.evaluate(run, held_out, out=tmp_path / "alone")
        assert scores == sh.evaluate(world.model, held_out)
    ours, alone = read_lines(run.path / "evals/held_out/base.jsonl"), read_lines(tmp_path / "alone/eval.jsonl")
    for name in ("prompt", "text", "score", "explanation"):
        assert [line[name] for line in ours] == [line[name] for line in alone]
