"""The quickstart's own recipe on the real model, cut short: the whole path, and what it leaves on disk."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sharpen.config.load import load as load_recipe
from sharpen.data.render import Renderer
from sharpen.models.load import load, resolve
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler
from sharpen.stages import pipeline

RECIPE = Path(__file__).parent.parent / "examples" / "quickstart" / "recipe.yaml"
SHORT = (
    "stages.sft.epochs=2",
    "stages.sft.validation.count=4",
    "stages.rft.steps=1",
    "stages.rft.prompts_per_step=2",
    "stages.rft.group_size=4",
    "stages.rft.validation.count=4",
    "evals.held_out.data.count=12",
    "evals.held_out.samples=2",
)
TOP_TWO = 1e-4
"""Where the two likeliest tokens are closer than this, rounding may choose."""


def test_the_quickstart_runs_on_the_real_model_and_leaves_one_that_transformers_reads(tmp_path: Path) -> None:
    summary = pipeline.run(load_recipe(RECIPE, SHORT), tmp_path, base=RECIPE.parent)
    assert summary["status"] == "finished"
    assert [stage["name"] for stage in summary["stages"]] == ["sft", "rft"]
    assert summary["base"]["evals"]["held_out"]["score"] < 0.2  # the base model rambles
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] > 1.0  # nats a token before any training
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    (gap,) = [event["logprob_gap_mean"] for event in events if event["event"] == "parity"]
    assert gap <= 0.02  # 0.003 to 0.005 in whole quickstarts; free text of the base model has 0.021
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert_same_greedy_answers(tmp_path / "models" / "rft")


def assert_same_greedy_answers(folder: Path, prompts: int = 20, tokens: int = 12) -> None:
    """transformers' own generate, in float32, says what our sampler says."""
    ours = load(folder, torch.float32)
    renderer = Renderer(ours.tokenizer, ours.stop)
    chats = [[{"role": "user", "content": f"Name a thing that begins like {chr(97 + n)}."}] for n in range(prompts)]
    encoded = [renderer.prompt(chat) for chat in chats]
    sampler = LocalSampler(ours.model, ours.stop)
    segments = asyncio.run(sampler.sample([Request(prompt, ()) for prompt in encoded], Params(tokens, 0.0)))
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.apply_chat_template(chats[0], add_generation_prompt=True, tokenize=False)
    for prompt, segment in zip(encoded, segments, strict=True):
        output = theirs.generate(
            torch.tensor([prompt]),
            max_new_tokens=tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        expected = output.sequences[0][len(prompt) :].tolist()
        made = list(segment.tokens[len(prompt) :])
        for place, (one, other) in enumerate(zip(made, expected, strict=False)):
            if one != other:
                best = output.logits[place][0].topk(2).values
                assert best[0] - best[1] < TOP_TWO, (prompt, place)
                break
        else:
            assert len(made) == len(expected)


def test_the_cache_holds_the_pinned_model() -> None:
    assert (resolve("smollm2-135m-instruct") / "model.safetensors").stat().st_size == 269_060_552
