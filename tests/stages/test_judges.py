"""Judges in whole runs: budgets that pause and can be raised, what leaves the machine, and keys that stand nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharpen.client import http
from sharpen.errors import ConfigError, GraderError
from sharpen.runs import statistics
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.client.fake import (
    Behaviour,
    Fake,
    Request,
    by,
    content_score,
    judged_by_content,
    material,
    reply,
    says,
    verdict,
)
from tests.runs.lab import World, bits, differences, events

ASKED = [{"role": "user", "content": "How good is {{ sample.output_text }}? It should be {{ item.answer }}."}]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(http, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(statistics, "RESAMPLES", 40)
    yield


def judge(server: Fake, **settings: Any) -> dict[str, Any]:
    return {"type": "score_model", "input": ASKED, "model": "judge", "base_url": server.url, **settings}


@pytest.mark.parametrize("in_multi", [False, True])
def test_a_spent_budget_pauses_the_run_and_a_larger_one_lets_it_go_on_to_the_same_bits(
    world: World, tmp_path: Path, in_multi: bool
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    price = {"input": 1.0, "output": 1.0}  # an answer takes 100 tokens

    def recipe(server: Fake, budget: dict[str, Any]) -> Any:
        own = judge(server, budget=budget, price=price, max_concurrent=1)
        multi = {"type": "multi", "graders": {"own": own}, "calculate_output": "own"}
        stage = world.rft_stage(grader=multi if in_multi else own, steps=3, max_fault_share=1.0, max_fault_steps=99)
        return world.recipe(stage)

    with Fake(otherwise=judged_by_content()) as server:
        pipeline.run(recipe(server, {}), whole, base=world.folder)
        asked = len(server.requests)
        with pytest.raises(GraderError, match=r"budget of a grader is used up.*800 tokens are spent of 800.*--resume"):
            pipeline.run(recipe(server, {"tokens": 800}), run, base=world.folder)
        assert len(server.requests) == asked + 8
        assert events(run)[-1]["event"] == "paused" and "800 tokens" in events(run)[-1]["cause"]
        summary = json.loads((run / "summary.json").read_text())
        ((name, spent),) = summary["cost"]["judges"].items()
        assert name.startswith("judge@")
        assert spent == {"requests": 8, "tokens": 800, "usd": pytest.approx(8 * 100 / 1e6)}
        with pytest.raises(GraderError, match="is used up"):
            pipeline.resume(run)
        assert len(server.requests) == asked + 8, "nothing was asked"
        place = f"stages.rft.grader.{'graders.own.' if in_multi else ''}"
        with pytest.raises(GraderError, match="is used up"):
            pipeline.resume(run, [f"{place}budget.usd=0.00095", f"{place}budget.tokens=null"])
        assert len(server.requests) == asked + 10
        pipeline.resume(run, [f"{place}budget.tokens=9999999", f"{place}budget.usd=null", f"{place}max_retries=1"])
    assert len(server.requests) == 2 * asked, "what was paid for was not paid for again"
    assert not differences(bits(run), bits(whole))
    assert [event["kind"] for event in events(run, "alert")] == []


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("stages.rft.grader.graders.own.model=other", "stages.0.grader.graders.own.model"),
        ("stages.rft.grader.graders.own.range=[0, 2]", "stages.0.grader.graders.own.range.1"),
        ("stages.rft.grader.graders.own.sampling_params.seed=1", "stages.0.grader.graders.own.sampling_params.seed"),
        ("stages.rft.grader.graders.own.base_url=http://localhost:1/", "stages.0.grader.graders.own.base_url"),
        ("stages.rft.grader.graders.vowel.time_limit=5", "stages.0.grader.graders.vowel.time_limit"),
        ("stages.rft.grader.calculate_output=own", "stages.0.grader.calculate_output"),
    ],
)
def test_what_the_scores_so_far_depend_on_does_not_change(paused: Path, override: str, path: str) -> None:
    with pytest.raises(ConfigError, match="max_concurrent") as caught:
        pipeline.resume(paused, [override])
    assert caught.value.path == path


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose judge is away."""
    folder = tmp_path_factory.mktemp("paused")
    world = World(folder / "world")
    with Fake() as server:
        own = judge(server, max_retries=0)
    graders = {"own": own, "vowel": {"type": "regex", "pattern": "[aeiou]"}}
    stage = world.rft_stage(grader={"type": "multi", "graders": graders, "calculate_output": "own + vowel"})
    with pytest.raises(GraderError, match="ConnectError"):
        pipeline.run(world.recipe(stage), folder / "run", base=world.folder)
    return folder / "run"


KEY, TOKEN = "sk-judge-0123456789", "endpoint-token-987654321"


def test_what_leaves_the_machine_is_said_before_and_no_key_is_written_down_though_the_servers_repeat_them(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine is played by a proxy: what is sent to it would have left this one."""
    run = tmp_path / "run"
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setenv("TOKEN", TOKEN)
    for name in ("NO_PROXY", "no_proxy", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    said_before: list[list[str]] = []
    broken = [True]

    def other_machines(request: Request) -> Behaviour:
        said_before.append([event["host"] for event in events(run, "remote")])
        if broken[0]:
            return reply(f"no: {request.headers}", "401 Unauthorized")
        if request.path == "http://score.example/grade":
            assert request.headers["x-token"] == TOKEN
            return reply(json.dumps({"score": len(request.body["sample"]["output_text"]), TOKEN: 1, "key": TOKEN}))
        assert request.path == "http://judge.example/v1/chat/completions"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        return says(verdict(content_score(material(request)), f"your key is {KEY}"))

    with Fake(otherwise=by(other_machines)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        graders = {
            "own": judge(proxy, base_url="http://judge.example/v1", api_key_env="JUDGE_KEY", allow_remote=True),
            "far": {
                "type": "endpoint",
                "url": "http://score.example/grade",
                "headers": {"X-Token": "${TOKEN}"},
                "allow_remote": True,
            },
        }
        stage = world.rft_stage(
            grader={"type": "multi", "graders": graders, "calculate_output": "own + far"}, steps=2, probe={"prompts": 2}
        )
        with pytest.raises(GraderError, match="status 401") as caught:
            pipeline.run(world.recipe(stage), run, base=world.folder)
        broken[0] = False
        pipeline.resume(run)
    assert said_before and all(hosts[:2] == ["judge.example", "score.example"] for hosts in said_before)
    first, second = events(run, "remote")[:2]
    assert (first["grader"], first["fields"]) == ("own", ["sample.output_text", "item.answer"])
    assert (second["grader"], second["fields"]) == ("far", ["item", "sample"])
    assert "judge.example" in first["message"] and "sample.output_text, item.answer" in first["message"]
    kinds = [event["event"] for event in events(run)]
    assert kinds.index("remote") < kinds.index("stage_started")
    for secret in (KEY, TOKEN):
        assert secret not in str(caught.value)
        for path in run.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    recipe = (run / "recipe.yaml").read_text()
    assert "JUDGE_KEY" in recipe and "${TOKEN}" in recipe
    assert len(read_lines(run / "judges.jsonl")) > 0


def test_a_key_that_is_missing_is_told_before_anything_is_trained(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    own = {"type": "score_model", "input": ASKED, "model": "judge", "base_url": "http://judge.example/v1"}
    grader = {**own, "api_key_env": "JUDGE_KEY", "allow_remote": True}
    recipe = world.recipe(world.sft_stage(), world.rft_stage(grader=grader))
    with pytest.raises(ConfigError, match="export JUDGE_KEY="):
        pipeline.run(recipe, tmp_path / "run", base=world.folder)
    assert not read_lines(tmp_path / "run" / "metrics.jsonl")


def test_a_judge_on_this_machine_is_no_departure(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Fake(otherwise=judged_by_content()) as server:
        pipeline.run(world.recipe(world.rft_stage(grader=judge(server), steps=1)), tmp_path / "run", base=world.folder)
    assert not events(tmp_path / "run", "remote")
    assert "authorization" not in server.requests[0].headers
