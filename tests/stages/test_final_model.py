"""The model that a run leaves behind is plain transformers', and answers as the run's own sampler does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import sharpen as sh
from sharpen.stages import pipeline
from tests.runs.lab import World
from tests.tiny import tiny_model


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.usefixtures("here")
def test_greedy_answers_of_from_pretrained_are_those_of_our_sampler(
    world: World, tmp_path: Path, architecture: str
) -> None:
    model = tiny_model(tmp_path / "model", architecture, seed=5)
    recipe = world.recipe(world.sft_stage(), world.rft_stage(), model=str(model))
    pipeline.run(recipe, tmp_path / "run", base=world.folder)
    prompts = [f"question {number}: {'ab' * number}?" for number in range(20)]
    ours = sh.open_run(tmp_path / "run").generate(prompts, max_tokens=24)
    folder = tmp_path / "run" / "models" / "rft"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert theirs.dtype == torch.float32
    answers = []
    for prompt in prompts:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        given = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        made = theirs.generate(**given, max_new_tokens=24, do_sample=False)[0, given["input_ids"].shape[1] :].tolist()
        ended = made and made[-1] == tokenizer.eos_token_id
        answers.append(tokenizer.decode(made[:-1] if ended else made, skip_special_tokens=False))
    assert ours == answers
    assert len(set(ours)) > 10
