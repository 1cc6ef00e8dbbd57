"""Whole runs in environments: parity, credit, journal, faults, evaluation, the report, and learning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from sharpen.errors import ConfigError, GraderError, Interrupted
from sharpen.reports.html import page
from sharpen.reports.read import read
from sharpen.runs.observer import Observer
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.core.test_render import STRIPPING
from tests.runs.lab import World, bits, differences, events, quick

HERE = "tests.stages.episodes"
END = 2  # <|im_end|>
COUNT = {"type": "plugin", "use": f"{HERE}:Count"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return brief(World(tmp_path_factory.mktemp("world")))


def brief(world: World) -> World:
    """The world with a model that ends its turns soon: at random it would speak until it is cut off."""
    path = Path(world.model) / "model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"][END] *= 2
    save_file(tensors, path, {"format": "pt"})
    return world


def stage(world: World, **changes: Any) -> dict[str, Any]:
    """RFT with the environment's own reward; two turns share 14 tokens."""
    base = world.rft_stage(steps=3, save_every=2, sampling={"max_tokens": 14}, env={**COUNT, "max_turns": 2})
    base.pop("grader")
    return {**base, **changes}


def lines(run: Path) -> list[dict[str, Any]]:
    return [line for path in sorted((run / "rollouts" / "rft").glob("*.jsonl")) for line in read_lines(path)]


def thinker(folder: Path) -> World:
    """A world whose model's template drops from earlier turns all up to a letter, as if it were thought."""
    world = brief(World(folder))
    template = STRIPPING.replace("split('</think>')", "split('a')")
    (Path(world.model) / "chat_template.jinja").write_text(template)
    return world


def test_a_run_in_an_environment_records_every_turn_and_its_reward(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = stage(world, env={**COUNT, "args": {"opening": "Count."}})
    with quick():
        summary = pipeline.run(world.recipe(config, evals=[eval_config(world)]), run, base=world.folder)
    made = lines(run)
    two = [line for line in made if len(line["messages"]) == 4]
    assert two and len(made) == 18
    for line in two:
        first, reply, second, _ = line["messages"]
        assert [turn["role"] for turn in line["messages"]] == ["assistant", "user", "assistant", "user"]
        assert reply["content"] == f"{len(first['content'])} letters" and line["text"] == second["content"]
        assert line["prompt"][0] == {"role": "system", "content": "Count."}
        assert line["env_state"] == {"lengths": [len(first["content"]), len(second["content"])]}
    for line in made:
        said = [turn["content"] for turn in line["messages"] if turn["role"] == "assistant"]
        share = [sum(map(str.islower, text)) / max(1, len(text)) / 2 for text in said]
        assert line["env_reward"] == line["reward"] == line["scores"]["score"] == pytest.approx(sum(share))
        assert len(line["tokens"]) <= 14 and (len(line["tokens"]) == 14 or line["finish"] == "stop")
    for step, metrics in enumerate(read_lines(run / "metrics.jsonl")):
        own = made[6 * step : 6 * step + 6]
        assert metrics["reward"]["by_grader"] == {"environment": pytest.approx(np.mean([o["reward"] for o in own]))}
        assert metrics["length"]["mean"] == pytest.approx(np.mean([len(o["tokens"]) for o in own]))
        assert metrics["length"]["truncated_share"] == np.mean([o["finish"] == "length" for o in own])
    assert summary["status"] == "finished"
    text = page(read(run))
    assert text.count('class="turns"') >= 6 and f"{two[0]['env_state']['lengths'][0]} letters" in text


def eval_config(world: World) -> dict[str, Any]:
    config = world.eval_config(env=COUNT, max_tokens=14)
    config.pop("grader")
    return config


def test_an_evaluation_plays_the_environment_and_takes_its_reward(world: World, tmp_path: Path) -> None:
    with quick():
        pipeline.run(world.recipe(evals=[eval_config(world)]), tmp_path / "run", base=world.folder)
    items = read_lines(tmp_path / "run" / "evals" / "held" / "base.jsonl")
    assert len(items) == 5
    for item in items:
        said = [turn["content"] for turn in item["messages"] if turn["role"] == "assistant"]
        assert item["score"] == pytest.approx(sum(sum(map(str.islower, t)) / max(1, len(t)) / 2 for t in said))
        assert item["env_state"]["lengths"] == [len(text) for text in said] and item["text"] == said[-1]
    assert any(len(item["messages"]) > 2 for item in items)


@pytest.mark.parametrize("strips", [False, True])
def test_sampler_and_trainer_agree_on_every_turn(world: World, tmp_path: Path, strips: bool) -> None:
    """The parity check of the first step covers all segments; the next steps compare them again."""
    world = thinker(tmp_path / "world") if strips else world
    run = tmp_path / "run"
    with quick():
        pipeline.run(world.recipe(stage(world, prompts_per_step=4)), run, base=world.folder)
    (parity,) = events(run, "parity")
    assert parity["logprob_gap_max"] < 1e-4 and not events(run, "alert")
    assert parity["tokens"] == sum(len(line["tokens"]) for line in lines(run)[:12])
    assert all(line["logprob_gap"]["max"] < 1e-4 for line in read_lines(run / "metrics.jsonl"))
    made = lines(run)
    split = [line for line in made if len(line["messages"]) == 4 and "a" in line["messages"][0]["content"]]
    assert split, "some episodes have two segments where the template strips"


def test_a_grader_may_read_the_turns_and_the_state(world: World, tmp_path: Path) -> None:
    """In real workers, of grader and environment both."""
    grader = {"type": "plugin", "use": f"{HERE}:talkative"}
    run = tmp_path / "run"
    pipeline.run(world.recipe(stage(world, grader=grader, steps=1)), run, base=world.folder)
    for line in lines(run):
        said = "".join(turn["content"] for turn in line["messages"] if turn["role"] == "assistant")
        assert line["reward"] == pytest.approx(sum(map(str.islower, said)) / max(1, len(said)))
        assert line["fault"] is None and line["env_reward"] is not None


def test_validation_plays_the_environment(world: World, tmp_path: Path) -> None:
    with quick():
        config = stage(world, validation=world.rft_validation, eval_every=1)
        pipeline.run(world.recipe(config), tmp_path / "run", base=world.folder)
    looks = [line["validation"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")]
    assert all(look["n"] == 3 and 0 < look["reward"] <= 1 for look in looks)


class Stop(Observer):
    """Ends the run after its last step, before the model is published, as if it had been killed there."""

    def metrics(self, line: Mapping[str, Any]) -> None:
        if line["step"] == 3:
            raise Interrupted("killed by the test")


def test_answers_that_cannot_be_repeated_are_those_of_before_on_resume(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    recipe = world.recipe(stage(world))
    with quick():
        pipeline.run(recipe, undisturbed, base=world.folder)
        with pytest.raises(Interrupted):
            pipeline.run(recipe, run, base=world.folder, observer=Stop())
        monkeypatch.setattr(f"{HERE}.CountEpisode.step", None)  # whoever asks it now fails
        pipeline.resume(run)
    assert not differences(bits(run), bits(undisturbed))
    noted = read_lines(run / "journal" / "rft+env.jsonl")
    assert [line["key"][:3] for line in noted] == [[s, p, a] for s in range(3) for p in range(2) for a in range(3)]


def test_another_answer_of_the_model_is_not_given_the_journals_reply(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with quick():
        with pytest.raises(Interrupted):
            pipeline.run(world.recipe(stage(world, save_every=50)), run, base=world.folder, observer=Stop())
        recipe = (run / "recipe.yaml").read_text()
        (run / "recipe.yaml").write_text(recipe.replace("seed: 3", "seed: 4"))  # as other versions would: other answers
        pipeline.resume(run)
    for line in lines(run):
        said = [turn["content"] for turn in line["messages"] if turn["role"] == "assistant"]
        replies = [turn["content"] for turn in line["messages"] if turn["role"] == "user"]
        assert replies == [f"{len(text)} letters" for text in said][: len(replies)]


def test_our_own_tools_need_no_journal(world: World, tmp_path: Path) -> None:
    with quick():
        config = world.rft_stage(steps=1, env={"type": "tools"}, sampling={"max_tokens": 14})
        pipeline.run(world.recipe(config), tmp_path / "run", base=world.folder)
    assert not (tmp_path / "run" / "journal" / "rft+env.jsonl").exists()
    assert "<tools>" in lines(tmp_path / "run")[0]["prompt"][0]["content"]


def test_faults_of_the_environment_mask_their_rollouts_and_are_counted(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    env = {**COUNT, "args": {"fails": "abcdefgh"}}
    config = stage(world, env=env, max_fault_share=1.0, max_fault_steps=99, prompts_per_step=4, group_size=4)
    with quick():
        pipeline.run(world.recipe(config), run, base=world.folder)
    made = lines(run)
    broken = [line for line in made if line["fault"]]
    assert 0 < len(broken) < len(made)
    for line in made:
        first = [turn["content"][:1] for turn in line["messages"] if turn["role"] == "assistant"]
        failed = any(letter and letter in "abcdefgh" for letter in first)
        assert (line["fault"] == "environment_error") == failed
        assert (line["reward"] is None) == (line["scores"]["score"] is None) == failed
        assert not failed or (not line["advantage"] and "out of order" in line["explanation"])
    counted = [line["faults"].get("environment_error", 0) for line in read_lines(run / "metrics.jsonl")]
    assert counted == [sum(bool(line["fault"]) for line in made[16 * step : 16 * step + 16]) for step in range(3)]


def test_too_many_faults_pause_the_run_and_a_mended_environment_goes_on_to_the_same_bits(
    world: World, tmp_path: Path
) -> None:
    run, undisturbed, mended = tmp_path / "run", tmp_path / "undisturbed", tmp_path / "mended"
    letters = "".join(map(chr, range(32, 127)))
    env = {**COUNT, "args": {"fails": letters, "mended": str(mended)}}
    with quick():
        with pytest.raises(GraderError, match=r"the environment failed on \d of 6 .*out of order.*--resume"):
            pipeline.run(world.recipe(stage(world, env=env)), run, base=world.folder)
        assert events(run)[-1]["event"] == "paused"
        mended.touch()
        pipeline.resume(run)
        pipeline.run(world.recipe(stage(world, env=env)), undisturbed, base=world.folder)
    assert not differences(bits(run), bits(undisturbed))


def test_an_environment_without_rewards_needs_a_grader(world: World, tmp_path: Path) -> None:
    silent = {**COUNT, "args": {"reward": False}}
    long = stage(world, env=silent, sampling={"max_tokens": 60})
    with quick(), pytest.raises(GraderError, match="gave no reward, and there is no grader"):
        pipeline.run(world.recipe(long), tmp_path / "run", base=world.folder)
    lost = stage(world, env=silent, sampling={"max_tokens": 1}, steps=1)
    with quick():
        pipeline.run(world.recipe(lost), tmp_path / "cut", base=world.folder)
    assert {(line["fault"], line["reward"]) for line in lines(tmp_path / "cut")} == {("cut_off", 0.0)}
    with pytest.raises(ConfigError, match=r"stages\.0.*gives no rewards"):
        world.recipe(stage(world, env={"type": "tools"}))
    with pytest.raises(ConfigError, match=r"stages\.0.*a grader is missing"):
        world.recipe(stage(world, env=None))
    with pytest.raises(ConfigError, match=r"evals\.0.*a grader is missing"):
        world.recipe(evals=[{**eval_config(world), "env": None}])


def test_a_failing_environment_of_an_evaluation_pauses_the_run_with_the_item(world: World, tmp_path: Path) -> None:
    config = {**eval_config(world), "env": {**COUNT, "args": {"fails": "".join(map(chr, range(32, 127)))}}}
    with quick(), pytest.raises(GraderError, match=r"the environment failed on the held-out item eval:\d"):
        pipeline.run(world.recipe(evals=[config]), tmp_path / "run", base=world.folder)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "paused"
