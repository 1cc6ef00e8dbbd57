"""Runs of reasoning models: what the template is told, what graders and the run directory see, and the budget."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from sharpen.cli.main import main
from sharpen.config.load import parse
from sharpen.data.render import Renderer
from sharpen.errors import ConfigError
from sharpen.lab.samples import read
from sharpen.models.load import load, load_tokenizer
from sharpen.models.template import FILE, variables
from sharpen.reports.html import page
from sharpen.reports.read import read as read_run
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from sharpen.types import Example
from tests.reasoning import thinking_model, thinking_tokenizer
from tests.runs.lab import World, bits, differences, quick

CLOSED = {"enable_thinking": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    made = World(tmp_path_factory.mktemp("world"))
    made.model = str(thinking_model(made.folder / "thinking", "qwen3_opened", seed=2, num_hidden_layers=1))
    return made


@pytest.fixture
def seen() -> Iterator[list[dict[str, Any]]]:
    """What graders were handed, in runs within the test."""
    found: list[dict[str, Any]] = []

    def grade(sample: dict[str, Any], item: dict[str, Any]) -> float:
        found.append(sample)
        return len(sample["output_text"]) / 100

    with quick(grade):
        yield found


def bounded(world: World, budget: int | None, **settings: Any) -> Any:
    sampling = {"max_tokens": 16, "thinking_budget": budget}
    stage = world.rft_stage(steps=2, sampling=sampling, validation=world.rft_validation, **settings)
    return world.recipe(stage, evals=[world.eval_config(max_tokens=16, thinking_budget=budget)])


def test_a_run_trains_on_thoughts_and_answer_and_tells_them_apart(
    world: World, tmp_path: Path, seen: list[dict[str, Any]]
) -> None:
    pipeline.run(bounded(world, 5), tmp_path / "run", base=world.folder)
    renderer = Renderer(*load_tokenizer(world.model))
    lines = read_lines(tmp_path / "run/rollouts/rft/step-00001.jsonl")
    thoughts = [line["reasoning"] for line in lines if "reasoning" in line]
    assert all(thoughts) and any("Considering the limited time" in text for text in thoughts)
    for line in lines:
        assert len(line["tokens"]) <= 16
        sampled = renderer.tokenizer.decode(line["tokens"])
        assert sampled.removesuffix("<|im_end|>").endswith(line["text"])
    handed = [(sample["output_text"], sample["reasoning_text"]) for sample in seen]
    assert {(line["text"], line.get("reasoning", "")) for line in lines} <= {*handed}
    validated = handed[10 + 2 * 6 :][:3]  # after the base model's answers and both steps
    assert any("Considering the limited time" in reasoning for _, reasoning in validated)
    items = read_lines(tmp_path / "run/evals/held/rft.jsonl")
    drawn = [sample for item in items for sample in item["samples"]]
    assert any("reasoning" in item for item in items) and any("reasoning" in sample for sample in drawn)
    html = page(read_run(tmp_path / "run"))
    assert "thoughts, " in html and "Considering the limited time" in html


def test_a_runs_lines_are_graded_again_with_their_thoughts(world: World, tmp_path: Path) -> None:
    with quick():
        pipeline.run(world.recipe(evals=[world.eval_config(max_tokens=16)]), tmp_path / "run", base=world.folder)
    path = tmp_path / "run/evals/held/base.jsonl"
    items = read_lines(path)
    examples = [Example(item["id"], tuple(item["prompt"])) for item in items]
    thoughts = [text.sample.reasoning for text in read(path, examples).texts]
    wanted = [one.get("reasoning", "") for item in items for one in (item, *item["samples"])]
    assert thoughts == wanted and any(wanted)


def test_the_budget_of_a_stage_and_that_of_an_eval_change_what_comes_out(world: World, tmp_path: Path) -> None:
    with quick():
        runs = [tmp_path / name for name in ("free", "bounded", "never")]
        for run, budget in zip(runs, (None, 5, 15), strict=True):
            pipeline.run(bounded(world, budget), run, base=world.folder)
    free, tight, loose = map(bits, runs)
    for name in ("evals/held/base.jsonl", "rollouts/rft/step-00001.jsonl", "models/rft/model.safetensors"):
        assert name in differences(free, tight)
        assert loose[name] != tight[name]


def test_thoughts_wait_with_their_completions_and_a_resumed_run_has_the_same_bits(world: World, tmp_path: Path) -> None:
    recipe = bounded(world, 5, algorithm={"overlong_buffer": 0.0, "max_lag": 1}, save_every=1)
    with quick():
        pipeline.run(recipe, tmp_path / "whole", base=world.folder)
        pipeline.run(recipe, tmp_path / "parts", base=world.folder)
        (checkpoint,) = (tmp_path / "parts/stages/01-rft/checkpoints").glob("step-00001")
        (waiting,) = json.loads((checkpoint / "state.json").read_text())["stage"]["waiting"]
        assert any("reasoning" in rollout["sample"] for group in waiting["groups"] for rollout in group)
        for later in (tmp_path / "parts/stages/01-rft/checkpoints").glob("step-00002"):
            (later / "manifest.json").unlink()
        (tmp_path / "parts/models/rft/manifest.json").unlink()
        pipeline.resume(tmp_path / "parts")
    assert differences(bits(tmp_path / "whole"), bits(tmp_path / "parts")) == []


def test_what_the_template_is_told_changes_training_and_stays_with_the_model(world: World, tmp_path: Path) -> None:
    with quick():
        for name, told in (("free", {}), ("closed", CLOSED)):
            stages = world.sft_stage(), world.rft_stage(steps=1)
            recipe = world.recipe(*stages, evals=[world.eval_config()], chat_template_kwargs=told)
            pipeline.run(recipe, tmp_path / name, base=world.folder)
    free, closed = bits(tmp_path / "free"), bits(tmp_path / "closed")
    assert {"models/sft/model.safetensors", "evals/held/base.jsonl"} <= {*differences(free, closed)}
    model = tmp_path / "closed/models/rft"
    assert json.loads((model / FILE).read_text()) == CLOSED
    assert FILE in json.loads((model / "manifest.json").read_text())["files"]
    assert not (tmp_path / "free/models/rft" / FILE).exists()
    asked = [{"role": "user", "content": "1+1?"}]
    tokenizer, stop = load_tokenizer(str(model))
    assert tokenizer.decode(Renderer(tokenizer, stop).prompt(asked)).endswith("<think>\n\n</think>\n\n")
    again = load_tokenizer(str(model), chat_template_kwargs={"enable_thinking": True})
    assert again[0].decode(Renderer(*again).prompt(asked)).endswith("assistant\n<think>\n"), (
        "what is given stands above"
    )
    assert AutoTokenizer.from_pretrained(model).chat_template == tokenizer.chat_template, (
        "transformers reads it as ever"
    )
    assert load(model, torch.float32).tokenizer.chat_template_kwargs == CLOSED


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"enable_thinkng": False}, r"enable_thinkng: .*does not read this.*Did you mean 'enable_thinking'\?"),
        ({"reasoning_effort": "low"}, r"reasoning_effort: .*does not read this"),
        ({"messages": []}, r"messages: sharpen gives the chat template this itself"),
    ],
)
def test_what_the_template_does_not_read_is_refused_before_anything_is_trained(
    world: World, tmp_path: Path, told: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^chat_template_kwargs\.{words}"):
        pipeline.run(world.recipe(world.sft_stage(), chat_template_kwargs=told), tmp_path / "run", base=world.folder)
    assert not (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("family", "name"),
    [("qwen3", "enable_thinking"), ("smollm3", "enable_thinking"), ("gpt_oss", "reasoning_effort")],
)
def test_what_templates_read_is_found_also_where_they_set_it_themselves(family: str, name: str) -> None:
    template = thinking_tokenizer(family).chat_template
    assert name in variables(template) and name in variables({"default": template, "tools": "{{ messages }}"})
    own_tags = "{% for m in messages %}{% generation %}{{ m }}{%- endgeneration -%}{% break %}{% endfor %}"
    assert variables(own_tags) == {"messages"}, "transformers knows them"


def test_values_that_json_cannot_hold_and_budgets_without_an_answer_are_refused(world: World) -> None:
    with pytest.raises(ConfigError, match=r"chat_template_kwargs: .*date is not JSON"):
        parse({"model": "m", "chat_template_kwargs": {"today": date(2026, 1, 1)}})
    for values in ({"max_tokens": 16, "thinking_budget": 16}, {"max_tokens": 8, "thinking_budget": 9}):
        with pytest.raises(ConfigError, match="leaves no token to answer in"):
            world.recipe(world.rft_stage(sampling=values))
        with pytest.raises(ConfigError, match="leaves no token to answer in"):
            world.recipe(evals=[world.eval_config(**values)])
    form = {"response_format": {"type": "json_object"}}
    with pytest.raises(ConfigError, match="no thoughts to bound"):
        world.recipe(world.rft_stage(sampling={"max_tokens": 16, "thinking_budget": 5}, **form))
    with pytest.raises(ConfigError, match="no thoughts to bound"):
        world.recipe(evals=[world.eval_config(max_tokens=16, thinking_budget=5, **form)])


def test_a_budget_for_a_model_that_does_not_think_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    plain = World(tmp_path / "plain")
    stage = plain.rft_stage(sampling={"max_tokens": 16, "thinking_budget": 5})
    evaluation = plain.eval_config(max_tokens=16, thinking_budget=5)
    for recipe, place in (
        (plain.recipe(stage), "stages.rft.sampling"),
        (plain.recipe(evals=[evaluation]), "evals.held"),
    ):
        run = tmp_path / place
        with quick(), pytest.raises(ConfigError, match=rf"^{place}\.thinking_budget: the model does not think"):
            pipeline.run(recipe, run, base=plain.folder)
        assert not (run / "metrics.jsonl").exists()


def test_data_check_and_eval_tell_the_template(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    check = ["data", "check", str(tmp_path / "rows.jsonl"), "--for", "sft"]
    rendered = []
    for told in ([], ["--chat-template-kwargs", "{enable_thinking: false}"]):
        assert main([*check, "--model", world.model, "--json", *told]) == 0
        rendered.append(json.loads(capsys.readouterr().out))
    assert rendered[0] != rendered[1]
    assert main([*check, "--chat-template-kwargs", "{enable_thinking: false}"]) == 2
    assert "Add --model" in capsys.readouterr().err
    evaluation = ["eval", world.model, "--data", world.eval["path"], "--grader", "math", "--max-tokens", "16"]
    thoughts: list[str] = []
    for more in (["--thinking-budget", "5"], ["--chat-template-kwargs", '{"enable_thinking": false}']):
        out = tmp_path / str(len(thoughts))
        with quick():
            assert main([*evaluation, *more, "--out", str(out)]) == 0
        thoughts.append("".join(item.get("reasoning", "") for item in read_lines(out / "eval.jsonl")))
    assert "Considering" in thoughts[0] and not thoughts[1]
    capsys.readouterr()
    assert main([*evaluation, "--chat-template-kwargs", "{enable_thinkng: false}"]) == 2
    assert "Did you mean 'enable_thinking'?" in capsys.readouterr().err
