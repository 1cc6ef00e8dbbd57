"""GGUF files: their numbers against llama.cpp's layout worked by hand, and what cannot be written is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, TokenType, dequantize
from safetensors.torch import load_file
from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from sharpen.errors import ModelError
from sharpen.export import gguf, reading
from sharpen.export.vocabulary import SPLITTERS, begins, splitter_of, vocabulary
from sharpen.models.load import load_tokenizer
from tests.export.worlds import byte_model, byte_tokenizer
from tests.tiny import tiny_tokenizer

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}


def written(model: Path, file: Path, kind: str = "f16") -> GGUFReader:
    words, stop = load_tokenizer(str(model))
    gguf.write(model, words, stop, file, kind, {"name": "tiny", "license": "mit"}, print)
    return GGUFReader(file)


def field(reader: GGUFReader, name: str) -> Any:
    return reader.fields[name].contents()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_model(tmp_path_factory.mktemp("model"))


def test_a_head_s_halves_become_pairs() -> None:
    rows = np.arange(8)[:, None]  # two heads of size 4: [0 1 | 2 3] and [4 5 | 6 7]
    assert gguf.permuted(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_keys_and_weights_stand_where_llama_cpp_looks_for_them(model: Path, tmp_path: Path) -> None:
    reader = written(model, tmp_path / "m.gguf")
    keys = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.license": "mit",
        "general.file_type": 1,
        "llama.block_count": 2,
        "llama.embedding_length": 32,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 8,
        "llama.context_length": 2048,
        "llama.vocab_size": 310,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {name: field(reader, name) for name in keys} == keys
    assert field(reader, "llama.rope.freq_base") == pytest.approx(10000)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert "output.weight" not in tensors  # tied
    weights = load_file(model / "model.safetensors")
    key = weights["model.layers.1.self_attn.k_proj.weight"].numpy()
    turned = key.reshape(2, 2, 4, 32).swapaxes(1, 2).reshape(16, 32)
    assert np.array_equal(tensors["blk.1.attn_k.weight"].data, turned.astype(np.float16))
    norm = tensors["blk.0.attn_norm.weight"]
    assert norm.tensor_type.name == "F32" and norm.data.tolist() == [1.0] * 32


def test_q8_0_keeps_32_numbers_to_one_scale(model: Path, tmp_path: Path) -> None:
    reader = written(model, tmp_path / "m.gguf", "q8_0")
    stored = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.ffn_up.weight")
    given = load_file(model / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].numpy()
    assert (stored.tensor_type.name, field(reader, "general.file_type")) == ("Q8_0", 7)
    steps = np.abs(given).reshape(64, 1, 32).max(-1) / 127
    wrong = np.abs(dequantize(stored.data, stored.tensor_type) - given)
    assert (wrong <= steps * 0.57).all() and wrong.max() > 0  # half a step, and F16's 2^-11 of the scale, 127 times


def test_rows_that_are_no_whole_number_of_blocks_stay_f16(tmp_path: Path) -> None:
    model = byte_model(tmp_path / "model", intermediate_size=48)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in written(model, tmp_path / "m.gguf", "q8_0").tensors}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_transformers_reads_back_what_was_written(architecture: str, tmp_path: Path) -> None:
    model = byte_model(tmp_path / "model", architecture)
    written(model, tmp_path / "m.gguf")
    found, words = reading.packed(tmp_path / "m.gguf")
    tokens = torch.tensor([words.encode("the fox is in the house")])
    with torch.no_grad():
        wanted, given = (each(tokens).logits for each in (reading.causal(model), found))
    assert type(found).__name__.lower().startswith(architecture)
    assert torch.allclose(wanted, given, atol=2e-2) and not torch.equal(wanted, given)  # rounded to F16


def test_stretched_positions_of_llama_3_are_those_of_transformers(tmp_path: Path) -> None:
    config = {
        **LlamaConfig(rope_parameters=LLAMA3_ROPE, hidden_size=64, num_attention_heads=2).to_dict(),
        "head_dim": 32,
    }
    factors = gguf.rope_factors(config)
    assert factors is not None
    wanted, _ = ROPE_INIT_FUNCTIONS["llama3"](LlamaConfig(**config), torch.device("cpu"))
    plain = 500000.0 ** -(np.arange(0, 32, 2) / 32)
    assert np.allclose(plain / factors, wanted.numpy(), rtol=1e-5)
    assert factors[0] == 1 and factors[-1] == 8
    model = byte_model(tmp_path / "model", rope_parameters=LLAMA3_ROPE)
    written(model, tmp_path / "m.gguf")
    found, _ = reading.packed(tmp_path / "m.gguf")
    original = reading.causal(model)
    assert torch.allclose(found.model.rotary_emb.inv_freq, original.model.rotary_emb.inv_freq, rtol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "change", "fact"),
    [
        ("mistral", {}, "architecture"),
        ("qwen2", {"use_sliding_window": True}, "setting"),
        ("llama", {"attention_bias": True}, "setting"),
        ("llama", {"hidden_act": "gelu"}, "setting"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "positions"),
    ],
)
def test_what_is_not_written_right_is_not_written(architecture: str, change: dict[str, Any], fact: str) -> None:
    from tests.tiny import _EXTRAS, _SHAPE

    with pytest.raises(ModelError, match=fact) as caught:
        gguf.check({"model_type": architecture, **_SHAPE, **_EXTRAS[architecture], **change})
    assert "Supported: llama, qwen2, qwen3" in str(caught.value)


def test_tokens_have_kinds_and_empty_rows_are_filled() -> None:
    words = byte_tokenizer()
    words.add_tokens(["<tool>"])
    made = vocabulary(words, 310)
    assert made.tokens[:3] == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert made.kinds[:4] == (TokenType.CONTROL,) * 3 + (TokenType.NORMAL,)
    place = words.convert_tokens_to_ids("<tool>")
    assert (made.tokens[place], made.kinds[place]) == ("<tool>", TokenType.USER_DEFINED)
    assert (made.tokens[309], made.kinds[309]) == ("[PAD309]", TokenType.UNUSED)
    first = json.loads(words.backend_tokenizer.to_str())["model"]["merges"][0]
    assert made.merges[0] == " ".join(first)


@pytest.mark.parametrize("name", SPLITTERS)
def test_a_way_to_split_is_known_by_what_it_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = byte_tokenizer(splitter=splitter_of(name))
    words.backend_tokenizer.model.ignore_merges = name == "llama-bpe"
    made = vocabulary(words, 310)
    assert made.splitter == name
    pieces = {"gpt-2": ["a", "Ġ1234"], "smollm": ["a", "Ġ", "1", "2", "3", "4"]}
    pieces |= {"llama-bpe": ["a", "Ġ", "123", "4"], "qwen2": ["a", "Ġ", "1", "2", "3", "4"]}
    assert [piece for piece, _ in splitter_of(name).pre_tokenize_str("a 1234")] == pieces[name]


def test_other_tokenizers_are_refused() -> None:
    other = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    with pytest.raises(ModelError, match="splits text in a way"):
        vocabulary(byte_tokenizer(splitter=other), 310)
    with pytest.raises(ModelError, match="another kind"):
        vocabulary(tiny_tokenizer(), 128)
    lower = byte_tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelError, match="another kind"):
        vocabulary(lower, 310)


def test_a_bos_is_put_first_where_tokenizer_and_template_both_do_so() -> None:
    from tokenizers.processors import TemplateProcessing

    words = byte_tokenizer("{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}")
    assert not begins(words)
    adds = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    words.backend_tokenizer.post_processor = adds
    assert begins(words)
    words.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert not begins(words)


def test_a_wave_longer_than_the_first_training_s_context_is_stretched_whole() -> None:
    config = {"head_dim": 4, "rope_parameters": {**LLAMA3_ROPE, "rope_theta": 1e4}, "hidden_size": 4}
    factors = gguf.rope_factors({**config, "num_attention_heads": 1})
    wave = 2 * math.pi * 1e4**0.5  # of the second pair: 628 positions, over 512, so that it is stretched whole
    assert wave > 512 and factors is not None and factors.tolist() == [1.0, 8.0]
