"""Exports and their originals as plain transformers and peft read them; ours is only the rounding to 4 bits."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sharpen.export.vocabulary import splitter_of
from sharpen.models.quantized import FourBits, quantize, quantized_layers
from sharpen.models.quiet import quiet

READER_KNOWS = ("gpt-2", "llama-bpe", "qwen2")
"""The ways to split text that transformers takes from a GGUF; of others it knows the name alone."""


def causal(folder: Path) -> Any:
    """The language model in a folder, in float32."""
    from transformers import AutoModelForCausalLM

    with _silent():
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()


def scorer(folder: Path) -> Any:
    """The reward model in a folder, in float32."""
    from transformers import AutoModelForSequenceClassification

    with _silent():
        return AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()


def tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder."""
    from transformers import AutoTokenizer

    with _silent():
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def adapted(base: Path, adapter: Path, dtype: torch.dtype, four_bits: FourBits | None) -> Any:
    """A base with an adapter in PEFT's format merged into it by peft, in float32; the sum is rounded once to `dtype`.

    With `four_bits` the base's linear layers are first what such a base computes with.
    """
    model = causal(base)
    if four_bits:
        model.to(dtype)
        quantize(model, four_bits)
        for name, layer in list(quantized_layers(model)):
            plain, weight = layer.dense, layer.weight
            plain.weight.data = weight
            model.set_submodule(name, plain)
    with _silent():
        from peft import PeftModel  # takes seconds to import

        merged: Any = PeftModel.from_pretrained(model.float(), adapter).merge_and_unload()
    return merged.to(dtype).float().eval()


def packed(file: Path) -> tuple[Any, Any]:
    """The model and the tokenizer of a GGUF, unpacked to float32."""
    from gguf import GGUFReader
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    fields = GGUFReader(file)
    kind = fields.fields["general.architecture"].contents()
    with _silent():
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        config.head_dim = fields.fields[f"{kind}.attention.key_length"].contents()  # not read for every architecture
        loader: Any = AutoModelForCausalLM
        model = loader.from_pretrained(
            file.parent,
            config=config,
            gguf_file=file.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        ).eval()
        words = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    stretched = next((tensor.data for tensor in fields.tensors if tensor.name == "rope_freqs.weight"), None)
    if stretched is not None:  # transformers leaves it out; llama.cpp divides the frequencies by it
        rotary = model.model.rotary_emb
        rotary.inv_freq = rotary.inv_freq / torch.from_numpy(stretched.copy())
    splitter = fields.fields["tokenizer.ggml.pre"].contents()
    if splitter not in READER_KNOWS:
        words.backend_tokenizer.pre_tokenizer = splitter_of(splitter)
    return model, words


@contextmanager
def _silent() -> Iterator[None]:
    """Without advice, and without the bars of transformers' GGUF reader."""
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        yield
