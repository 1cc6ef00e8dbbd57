"""A worker's loop, in this process: whose adapter is loaded, and what its model says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig

from sharpen.models import adapters
from sharpen.models.adapter_files import save_adapter
from sharpen.models.load import Loaded, load
from sharpen.server.worker.loading import loaded_of
from sharpen.server.worker.serve import Worker
from tests.tiny import tiny_model


def spoken(loaded: Loaded, *lines: dict[str, Any]) -> list[dict[str, Any]]:
    """All that a worker says while it answers these lines."""
    said: list[dict[str, Any]] = []
    ended = threading.Event()

    def hear(line: dict[str, Any]) -> None:
        said.append(line)
        if sum("done" in each or "failed" in each for each in said) == len(lines):
            ended.set()

    def written() -> Iterator[str]:
        yield from map(json.dumps, lines)
        ended.wait(20)

    Worker(loaded, hear).serve(written())
    return said


def ask(id: str = "1", **more: Any) -> dict[str, Any]:
    return {"ask": id, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 6, "temperature": 0} | more


def test_the_adapter_of_a_checkpoint_is_merged_into_its_base(tmp_path: Path) -> None:
    """Both models are made to be equal to the last bit by float32, so greedy texts agree."""
    base = tiny_model(tmp_path / "base")
    trained = load(str(base), torch.float32)
    adapters.attach(
        trained.model,
        LoraConfig(
            r=2, target_modules=["q_proj", "down_proj"], base_model_name_or_path=str(base), task_type="CAUSAL_LM"
        ),
        seed=0,
    )
    for name, parameter in trained.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    run = tmp_path / "run"
    checkpoint = run / "stages/01-sft/checkpoints/step-00004"
    save_adapter(trained.model, checkpoint)
    (run / "recipe.yaml").write_text(yaml.safe_dump({"model": str(base)}))
    adapters.merge(trained.model)
    found = loaded_of(str(checkpoint))
    own = dict(trained.model.named_parameters())
    assert not adapters.attached(found.model)
    for name, parameter in found.model.named_parameters():
        torch.testing.assert_close(parameter.float(), own[name].float(), rtol=1e-2, atol=1e-2)
    plain = dict(load(str(base), torch.float32).model.named_parameters())
    assert any(not torch.allclose(plain[name], own[name], atol=0.05) for name in plain)


def content(said: list[dict[str, Any]], id: str) -> str:
    parts = [part for line in said for part in line.get("said", ()) if part[0] == id]
    return "".join(part[2].get("content", "") for part in parts)


def test_requests_are_answered_side_by_side_and_faults_are_their_own(tmp_path: Path) -> None:
    loaded = load(str(tiny_model(tmp_path, vocab_size=101)), torch.float32)
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nope"}}}
    said = spoken(
        loaded,
        ask("a"),
        ask("b", messages=[{"role": "user", "content": "ho"}], n=2),
        ask("c", response_format=bad),
        ask("d", max_tokens=99_999),
        ask("e", messages=[{"role": "user", "content": "\ud800"}]),
        ask("f"),
    )
    assert said[0] == {"ready": {"context": 2048, "notice": ""}}
    failed = {line["failed"]: line["error"] for line in said if "failed" in line}
    assert {id: error["status"] for id, error in failed.items()} == {"c": 400, "d": 400, "e": 400}
    assert failed["d"]["code"] == "context_length_exceeded" and failed["c"]["param"] == "response_format"
    assert content(said, "a") == content(said, "f") != content(said, "b")
    done = {line["done"]: line["usage"]["completion_tokens"] for line in said if "done" in line}
    assert done["a"] <= 6 and done["b"] <= 12


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 + 1?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "2"},
]


def test_tools_reach_a_model_whose_template_has_no_place_for_them(tmp_path: Path) -> None:
    loaded = load(str(tiny_model(tmp_path)), torch.float32)
    worker = Worker(loaded, print)
    text = loaded.tokenizer.decode(worker._prompt(CHAT, [TOOL]))
    assert text.startswith("<|im_start|>system\nBe brief.\n\n# Tools") and json.dumps(TOOL) in text
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    assert f"<|im_start|>assistant\n{call}<|im_end|>" in text
    assert "<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>" in text
    assert loaded.tokenizer.decode(worker._prompt(CHAT[:2], [])).count("# Tools") == 0


def test_a_template_that_writes_tools_itself_is_left_to_it(tmp_path: Path) -> None:
    loaded = load(str(tiny_model(tmp_path)), torch.float32)
    own = "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}"
    loaded.tokenizer.chat_template = own + loaded.tokenizer.chat_template
    text = loaded.tokenizer.decode(Worker(loaded, print)._prompt(CHAT[:2], [TOOL]))
    assert text.startswith("TOOLS [") and "# Tools" not in text


@pytest.mark.long
def test_the_real_model_knows_the_capital_of_france() -> None:
    loaded = loaded_of("smollm2-135m-instruct")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    said = spoken(loaded, ask("a", messages=question, max_tokens=20), ask("b", messages=question, max_tokens=3))
    assert content(said, "a") == "The capital of France is Paris." and content(said, "b") == "The capital of"
    finish = {part[0]: part[4] for line in said for part in line.get("said", ()) if part[4]}
    assert finish == {"a": "stop", "b": "length"}
