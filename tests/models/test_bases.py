"""The registry's facts, against transformers' own count, the numbers on the model cards, and what runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sharpen.errors import ModelError
from sharpen.models import registry
from sharpen.models.bases import BASES, Base, Shape
from sharpen.models.folder import described, resolve
from sharpen.models.load import load
from tests import tiny
from tests.models.shapes import config_of
from tests.tiny import tiny_model

ALL = pytest.mark.parametrize("base", BASES.values(), ids=BASES)

PUBLISHED = {
    "smollm2-135m-instruct": "0.135",
    "smollm2-360m-instruct": "0.36",
    "smollm2-1.7b-instruct": "1.7",
    "smollm3-3b": "3.08",
    "qwen2.5-0.5b-instruct": "0.49",
    "qwen2.5-7b-instruct": "7.62",
    "qwen3-0.6b": "0.6",
    "qwen3-1.7b": "1.7",
    "qwen3-4b": "4.0",
    "qwen3-4b-instruct-2507": "4.0",
    "qwen3-8b": "8.2",
    "qwen3-32b": "32.8",
    "llama-3.2-1b-instruct": "1.24",
    "llama-3.2-3b-instruct": "3.21",
    "llama-3.1-8b-instruct": "8.03",
    "gemma-3-270m-it": "0.27",
    "gemma-3-1b-it": "1.0",
    "mistral-7b-instruct-v0.3": "7.25",
    "gpt-oss-20b": "20.9",
}
"""Billions of parameters, as model cards and the hub's pages give them."""


@ALL
def test_transformers_counts_as_many_parameters_in_a_model_of_that_shape(base: Base) -> None:
    from transformers import AutoModelForCausalLM

    config = config_of(base.shape)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == base.parameters
    assert base.shape.parameters == pytest.approx(counted, rel=1e-3)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    assert base.shape.linear == sum(module.weight.numel() for module in linear if "router" not in str(type(module)))
    assert Shape.of(config.to_dict()) == base.shape


@ALL
def test_the_count_is_the_published_one(base: Base) -> None:
    figure = PUBLISHED[base.alias]
    digits = len(figure.partition(".")[2])
    assert f"{base.parameters / 1e9:.{digits}f}" == figure


@ALL
def test_names_are_lower_case_and_ask_for_the_model_that_they_say(base: Base) -> None:
    told = base.hub.partition("/")[2].lower().removesuffix("-bf16")
    assert base.alias == told == base.alias.lower()


@pytest.mark.parametrize("kind", sorted({base.shape.kind for base in BASES.values()}))
def test_every_kind_runs_on_the_fast_path(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiny._EXTRAS, "smollm3", {"tie_word_embeddings": True, "head_dim": None})
    loaded = load(tiny_model(tmp_path, kind, num_hidden_layers=4 if kind == "smollm3" else 2), torch.float32)
    assert loaded.notice == ""


def test_the_packaged_model_is_the_first_of_the_list_and_has_the_same_facts() -> None:
    first, packaged = next(iter(BASES.values())), registry.ALIASES[registry.DEFAULT]
    assert (first.alias, first.parameters, first.licence) == (packaged.alias, packaged.parameters, packaged.licence)
    assert [row.base for row in registry.listing()] == list(BASES.values())


def test_a_folder_is_described_by_its_config(tmp_path: Path) -> None:
    found = described(str(tiny_model(tmp_path, "qwen3_moe")))
    assert found.shape == Shape("qwen3_moe", 2, 32, 16, 4, 2, 8, 128, tied=False, experts=4, active=2)
    assert found.base is None and found.folder == tmp_path


def test_a_config_in_other_words_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not say the model's shape.*bloom"):
        described(str(tiny_model(tmp_path, "bloom")))


@pytest.mark.parametrize("name", ["qwen3-0.6b", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B@v1", "qwen3-0.6b@v1"])
def test_a_model_of_the_list_is_described_by_either_name(name: str) -> None:
    assert described(name).base == BASES["qwen3-0.6b"]


@pytest.mark.parametrize(("name", "near"), [("qwen-3-0.6b", "qwen3-0.6b"), ("smollm2-135m", "smollm2-135m-instruct")])
def test_a_misspelt_name_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ModelError, match=f"no such model.*Did you mean '{near}'"):
        resolve(name)
