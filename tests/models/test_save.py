"""What is saved, plain transformers reads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sharpen.models.load import load, save
from tests.tiny import ARCHITECTURES, tiny_model


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_transformers_loads_what_was_saved_with_the_same_weights(tmp_path: Path, architecture: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours = load(tiny_model(tmp_path / "model", architecture), torch.float32)
    with torch.no_grad():
        ours.model.lm_head.weight[5] += 1  # a trained weight, tied in some architectures
    save(ours.model, ours.tokenizer, tmp_path / "saved", torch.float32)
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "saved")

    expected = ours.model.state_dict()
    assert plain.dtype == torch.float32
    assert plain.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in plain.state_dict().items())
    assert tokenizer.chat_template == ours.tokenizer.chat_template
    assert plain.generation_config.eos_token_id == sorted(ours.stop)
    text = (tmp_path / "saved/config.json").read_text()
    assert "sharpen" not in text and str(tmp_path) not in text
    plain.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_folder_says_the_type_it_was_saved_in(tmp_path: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import load_file

    ours = load(tiny_model(tmp_path / "model"), torch.bfloat16)
    save(ours.model, ours.tokenizer, tmp_path / "saved", dtype)
    stored = load_file(tmp_path / "saved/model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    assert "lm_head.weight" not in stored, "tied to the embeddings, and kept once"
    assert f"torch.{json.loads((tmp_path / 'saved/config.json').read_text())['dtype']}" == str(dtype)
    assert ours.model.lm_head.weight.dtype == torch.bfloat16, "saving leaves the model alone"


def test_equal_weights_give_equal_bytes_wherever_they_came_from(tmp_path: Path) -> None:
    first = load(tiny_model(tmp_path / "model"), torch.float32)
    save(first.model, first.tokenizer, tmp_path / "one", torch.float32)
    again = load(tmp_path / "one", torch.float32)
    save(again.model, again.tokenizer, tmp_path / "two", torch.float32)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
