"""The Python API: rows and a function in, a handle on the run out; also inside a running event loop."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import sharpen as sh
from sharpen.config.data import FileData, InlineData, ReasoningGymData
from sharpen.config.graders import StringCheck
from sharpen.config.preferences import IPO, Sigmoid
from sharpen.errors import ConfigError, GraderError, RunError
from sharpen.runs.observer import Observer
from tests.runs.lab import World, bits, differences, labelled, prompts, quick

SMALL: dict[str, Any] = {
    "probe": None,
    "prompts_per_step": 2,
    "group_size": 3,
    "steps": 2,
    "sampling": {"max_tokens": 8},
    "optim": {"lr": 3e-3},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def recipe(world: World, grader: Any, seed: int = 0, **settings: Any) -> sh.Recipe:
    return sh.Recipe(
        model=world.model,
        stages=[
            sh.SFT(labelled("count", 8), batch_size=4, optim={"lr": 3e-3}),
            sh.RFT(prompts("say", 6), grader=grader, **SMALL),
        ],
        dtype="float32",
        threads=1,
        seed=seed,
        **settings,
    )


def test_rows_and_a_closure_make_a_run(world: World, tmp_path: Path) -> None:
    wanted = set("aeiou")

    def vowels(sample: dict[str, Any], item: dict[str, Any]) -> dict[str, float]:
        share = sum(letter in wanted for letter in sample["output_text"]) / 8
        return {"score": share + (item["answer"] in sample["output_text"]), "vowels": share}

    run = sh.run(
        recipe(world, vowels, evals=[sh.Eval(prompts("ask", 4), grader={"type": "string_check"}, max_tokens=8)]),
        out=tmp_path / "run",
    )
    assert run.path == tmp_path / "run"
    assert [(line["stage"], line["step"]) for line in run.metrics] == [("sft", 1), ("sft", 2), ("rft", 1), ("rft", 2)]
    assert run.metrics[2]["reward"]["std"] > 0 and run.metrics[2]["grad_norm"] > 0
    assert run.summary["status"] == "finished" and set(run.summary["base"]["evals"]) == {"held_out"}
    answers = run.generate(["one", [{"role": "system", "content": "be brief"}, {"role": "user", "content": "two"}]])
    assert len(answers) == 2 and all(isinstance(answer, str) for answer in answers)
    assert run.generate(["one"], max_tokens=4)[0] == answers[0][:4]
    drawn = {run.generate(["one"], temperature=1.0, seed=seed, max_tokens=8)[0] for seed in (1, 1, 2, 3)}
    assert len(drawn) == 3
    assert run._repr_html_().startswith("<iframe srcdoc=") and "rft" in run._repr_html_()
    again = sh.open_run(str(run.path))
    assert again.metrics == run.metrics and again.generate(["one"]) == answers[:1]


def test_a_run_inside_a_running_loop_is_the_same_run(world: World, tmp_path: Path) -> None:
    async def main() -> tuple[sh.Run, list[str]]:
        run = sh.run(recipe(world, lambda sample, item: len(set(sample["output_text"])) / 8), out=tmp_path / "inside")
        return run, run.generate(["one"])

    inside, answers = asyncio.run(main())
    outside = sh.run(recipe(world, lambda sample, item: len(set(sample["output_text"])) / 8), out=tmp_path / "outside")
    assert answers == outside.generate(["one"])
    one, two = bits(inside.path), bits(outside.path)
    assert differences(one, two) == []


def test_the_seed_decides_every_bit(world: World, tmp_path: Path) -> None:
    weights = {}
    with quick():
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            run = sh.run(recipe(world, {"type": "plugin", "use": "x:y"}, seed), out=tmp_path / name)
            files = sorted(run.path.glob("models/*/model.safetensors"))
            weights[name] = [file.read_bytes() for file in files]
    assert weights["a"] == weights["b"]
    assert len(weights["a"]) == 2
    assert all(one != other for one, other in zip(weights["a"], weights["c"], strict=True))


class Shorter:
    """A grader that is an object."""

    def __call__(self, sample: dict[str, Any], item: dict[str, Any]) -> float:
        return -len(sample["output_text"])


def weighted(weight: float, sample: dict[str, Any], item: dict[str, Any]) -> float:
    return weight * len(set(sample["output_text"]))


@pytest.mark.parametrize("grader", [Shorter(), partial(weighted, 0.5)])
def test_any_callable_may_grade(world: World, tmp_path: Path, grader: Any) -> None:
    stage = sh.RFT(prompts("say", 4), grader=grader, **{**SMALL, "steps": 1})
    run = sh.run(sh.Recipe(model=world.model, stages=[stage], dtype="float32", threads=1), out=tmp_path / "run")
    assert run.metrics[0]["faults"] == {}


def test_a_function_that_raises_pauses_the_run_with_its_words(world: World, tmp_path: Path) -> None:
    def broken(sample: dict[str, Any], item: dict[str, Any]) -> float:
        raise KeyError("no such field")

    with pytest.raises(GraderError, match="KeyError: 'no such field'"):
        sh.run(recipe(world, broken), out=tmp_path / "run")
    assert sh.open_run(tmp_path / "run").summary["status"] == "paused"


def test_data_may_be_a_path_a_source_or_rows(world: World) -> None:
    def data(stage: Any) -> Any:
        return stage.data

    path, rows = world.sft["path"], labelled("count", 2)
    assert data(sh.SFT(path)) == data(sh.SFT(world.sft)) == data(sh.SFT(Path(path))) == FileData(path=path)
    assert data(sh.SFT(iter(rows))) == InlineData(rows=tuple(rows))
    assert sh.SFT(rows, validation=rows[:1]).validation == InlineData(rows=tuple(rows[:1]))
    gym = {"type": "reasoning_gym", "generator": "chain_sum", "count": 3}
    assert data(sh.RFT(gym, grader={"type": "reasoning_gym"})) == ReasoningGymData(generator="chain_sum", count=3)
    assert sh.Eval(rows, grader=StringCheck()).grader == StringCheck()


def test_a_preference_stage_takes_rows_and_its_loss_by_name() -> None:
    pairs = [{"prompt": "1 + 1", "chosen": "2", "rejected": "3"}]
    stage = sh.DPO(pairs, loss="ipo", validation=iter(pairs))
    assert stage.loss == IPO() and stage.validation == stage.data == InlineData(rows=tuple(pairs))
    assert sh.DPO("pairs.jsonl", loss={"beta": 0.5}).loss == Sigmoid(beta=0.5)
    assert sh.Recipe(model="m", stages=[stage]).config.stages == (stage,)


NONE: Any = None
THREE: Any = 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: sh.SFT([], epochs=0), "epochs"),
        (lambda: sh.SFT("rows.jsonl", epoch=2), "did you mean `epochs`"),
        (lambda: sh.SFT("rows.jsonl", optim={"lr": "high"}), "optim.lr"),
        (lambda: sh.DPO("rows.jsonl", loss={"bet": 1}), "did you mean `beta`"),
        (lambda: sh.DPO("rows.jsonl", loss="dp0"), "loss"),
        (lambda: sh.RFT("rows.jsonl", grader={"type": "sting_check"}), "did you mean `string_check`"),
        (lambda: sh.RFT("rows.jsonl", grader=NONE), "grader"),
        (lambda: sh.RFT("rows.jsonl", grader=Shorter(), group_size=1), "group_size"),
        (lambda: sh.Eval("rows.jsonl", grader={"type": "math"}, name="a/b"), "name"),
        (lambda: sh.Recipe(model=THREE), "model"),
        (lambda: sh.Recipe(model="m", stages=[sh.SFT("a"), sh.SFT("b")]), "two stages are named 'sft'"),
        (lambda: sh.Recipe(model="m", thread=2), "did you mean `threads`"),
        (lambda: sh.run("no-such-recipe.yaml"), "cannot read the recipe"),
    ],
)
def test_wrong_settings_are_config_errors_that_name_the_place(make: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    assert said in str(refused.value)


def test_a_recipe_file_runs_relative_to_its_own_folder(world: World, tmp_path: Path) -> None:
    file = world.folder / "recipe.yaml"
    file.write_text("model: model\nthreads: 1\nstages:\n- {type: sft, data: {path: sft.jsonl}, epochs: 0.3}\n")
    seen: list[str] = []

    class Watch(Observer):
        def event(self, event: Any) -> None:
            seen.append(event["event"])

    run = sh.run(file, out=tmp_path / "run", observer=Watch())
    assert run.summary["status"] == "finished" and seen[0] == "started" and seen[-1] == "finished"
    with pytest.raises(RunError, match="already holds a run"):
        sh.run(file, out=tmp_path / "run")


def test_a_run_without_stages_generates_with_the_model_it_began_with(world: World, tmp_path: Path) -> None:
    run = sh.run(sh.Recipe(model=world.model, dtype="float32", threads=1), out=tmp_path / "run")
    assert len(run.generate(["one"], max_tokens=4)[0]) > 0


def test_a_run_graded_by_a_function_can_be_resumed_with_it(world: World, tmp_path: Path) -> None:
    def length(sample: dict[str, Any], item: dict[str, Any]) -> float:
        return len(set(sample["output_text"])) / 8

    def breaks(sample: dict[str, Any], item: dict[str, Any]) -> float:
        raise ValueError("not yet")

    whole = sh.run(recipe(world, length), out=tmp_path / "whole")
    with pytest.raises(GraderError, match="not yet"):
        sh.run(recipe(world, breaks), out=tmp_path / "stopped")
    resumed = sh.resume(tmp_path / "stopped", graders={"rft": length})
    assert resumed.summary["status"] == "finished"
    assert differences(bits(resumed.path), bits(whole.path)) == []
