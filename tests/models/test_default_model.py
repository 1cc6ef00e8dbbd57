"""The embedded default model, really downloaded and converted: it loads, and answers as plain transformers does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from sharpen.models import registry
from sharpen.models.load import load
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler


@pytest.mark.long
def test_the_default_model_is_fetched_and_answers_like_plain_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("SHARPEN_HOME", str(tmp_path))
    ours = load(registry.DEFAULT, torch.float32)
    model = registry.ALIASES[registry.DEFAULT]
    assert sum(parameter.numel() for parameter in ours.model.parameters()) == model.parameters

    plain: Any = AutoModelForCausalLM.from_pretrained(ours.path, dtype=torch.float32)
    asked = [[{"role": "user", "content": f"What is {n} + 5?"}] for n in (3, 40, 871)]
    prompts = [
        tuple(ours.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"])
        for messages in asked
    ]
    requests = [Request(prompt, (0,)) for prompt in prompts]
    params = Params(max_tokens=12, temperature=0.0)
    segments = asyncio.run(LocalSampler(ours.model, ours.stop).sample(requests, params))
    for prompt, segment in zip(prompts, segments, strict=True):
        tokens = torch.tensor(prompt)[None]
        expected = plain.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=12, do_sample=False)
        assert segment.tokens == tuple(expected[0].tolist())
