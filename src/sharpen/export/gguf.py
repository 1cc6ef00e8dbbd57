"""A model as one GGUF file, for llama.cpp and what is built on it.

Keys and names are those of llama.cpp's convert_hf_to_gguf.py and of the `gguf` package. Matrices are F16 or Q8_0,
vectors F32. One tensor is in memory at a time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.errors import ModelError
from sharpen.export.vocabulary import Vocabulary, vocabulary

ARCHITECTURES = {"llama": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3"}
"""transformers' `model_type`, and what `gguf` calls it."""

Progress = Callable[[str], None]

Record = Mapping[str, Any]


def check(config: Record) -> None:
    """Raise ModelError where the model computes something that is not written here into a GGUF."""
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise _unsupported("this architecture", kind)
    rope = _rope(config)
    if rope.get("rope_type", "default") not in ("default", "llama3"):
        raise _unsupported("this stretching of positions", f"rope_type: {rope['rope_type']}")
    fields = {"hidden_act": "silu", "use_sliding_window": False, "mlp_bias": False}
    if kind != "qwen2":  # whose configuration does not have it, and whose q, k, v have a bias always
        fields["attention_bias"] = False
    for name, wanted in fields.items():
        if config.get(name, wanted) not in (wanted, None):
            raise _unsupported("this setting of its configuration", f"{name}: {config[name]}")


def write(
    folder: Path, tokenizer: Any, stop: frozenset[int], file: Path, kind: str, facts: Record, say: Progress
) -> None:
    """Write the model in `folder` to `file`, its matrices as `f16` or `q8_0`.

    `facts` are the strings of `general.*`, such as the name and the licence. Raises ModelError as `check` and
    `vocabulary` do.
    """
    import gguf  # takes a moment to import

    config = json.loads((folder / "config.json").read_text("utf-8"))
    check(config)
    words = vocabulary(tokenizer, config["vocab_size"])
    architecture = getattr(gguf.MODEL_ARCH, ARCHITECTURES[config["model_type"]])
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[architecture])
    _describe(writer, config, facts, kind)
    _speak(writer, tokenizer, words, stop)
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    tensors = list(_tensors(folder, config, names))
    for name, shape, _ in tensors:
        code = _code(shape, kind)
        size = math.prod(shape) if code.name != "Q8_0" else 0
        stored = gguf.quant_shape_to_byte_shape(shape, code) if code.name == "Q8_0" else shape
        bytes_ = math.prod(stored) if code.name == "Q8_0" else size * (4 if code.name == "F32" else 2)
        holder = np.uint8 if code.name == "Q8_0" else np.float32 if code.name == "F32" else np.float16
        writer.add_tensor_info(name, stored, np.dtype(holder), bytes_, raw_dtype=code)
    writer.write_header_to_file(path=file)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    total = sum(math.prod(shape) for _, shape, _ in tensors)
    done, told = 0, 0.0
    for _, shape, read in tensors:
        writer.write_tensor_data(gguf.quantize(read(), _code(shape, kind)))
        done += math.prod(shape)
        if total > 500e6 and done / total - told >= 0.2:
            told = done / total
            say(f"  {told:.0%} of the weights written")
    writer.close()


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix from transformers' order (a head's halves) to llama.cpp's (pairs side by side)."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def rope_factors(config: Record) -> np.ndarray | None:
    """What Llama 3.1 divides each pair's frequency by; None where nothing is stretched.

    arXiv:2407.21783 stretches long waves, and what lies between `low_freq_factor` and `high_freq_factor` in part.
    """
    rope = _rope(config)
    if rope.get("rope_type", "default") != "llama3":
        return None
    size, base = _head(config), float(rope["rope_theta"])
    waves = 2 * math.pi * base ** (np.arange(0, size, 2, dtype=np.float64) / size)
    low, high, factor = (float(rope[name]) for name in ("low_freq_factor", "high_freq_factor", "factor"))
    blend = (rope["original_max_position_embeddings"] / waves - low) / (high - low)
    smooth = np.clip(blend, 0, 1)
    divisors: np.ndarray = (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
    return divisors


def _describe(writer: Any, config: Record, facts: Record, kind: str) -> None:
    import gguf

    writer.add_type("model")
    for name, text in facts.items():
        writer.add_string(f"general.{name}", text)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if kind == "f16" else gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(_shared_heads(config))
    writer.add_key_length(_head(config))
    writer.add_value_length(_head(config))
    writer.add_rope_dimension_count(_head(config))
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _speak(writer: Any, tokenizer: Any, words: Vocabulary, stop: frozenset[int]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.splitter)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.kinds)
    writer.add_token_merges(words.merges)
    ends = sorted(stop)
    end = tokenizer.eos_token_id if tokenizer.eos_token_id in stop else ends[0]
    writer.add_eos_token_id(end)
    others = [token for token in ends if token != end]
    if others:  # what ends a turn, where that is not what ends a text
        writer.add_eot_token_id(others[-1])
    for index, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if index is not None:
            add(index)
    writer.add_add_bos_token(words.starts)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    template = tokenizer.chat_template
    writer.add_chat_template(template if isinstance(template, str) else template["default"])


def _tensors(folder: Path, config: Record, names: Any) -> Iterator[tuple[str, tuple[int, ...], Callable[[], Any]]]:
    """GGUF's name, the shape, and what reads each weight of the model."""
    from safetensors import safe_open

    heads = {"q_proj": config["num_attention_heads"], "k_proj": _shared_heads(config)}
    factors = rope_factors(config)
    if factors is not None:
        yield "rope_freqs.weight", factors.shape, lambda: factors
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():
                name = names.get_name(key, try_suffixes=(".weight", ".bias"))
                if config.get("tie_word_embeddings") and key == "lm_head.weight":
                    continue
                if name is None:
                    raise _unsupported("one of its weights", key)
                turned = heads.get(key.split(".")[-2]) if config["model_type"] == "llama" else None
                yield name, tuple(file.get_slice(key).get_shape()), _reader(path, key, turned)


def _reader(path: Path, key: str, heads: int | None) -> Callable[[], Any]:
    def read() -> Any:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            weight = file.get_tensor(key).float().numpy()
        return permuted(weight, heads) if heads else weight

    return read


def _code(shape: tuple[int, ...], kind: str) -> Any:
    """Vectors stay F32; rows that are no whole number of Q8_0's blocks become F16, as with llama.cpp."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) < 2:
        return GGMLQuantizationType.F32
    whole = shape[-1] % GGML_QUANT_SIZES[GGMLQuantizationType.Q8_0][0] == 0
    return GGMLQuantizationType.Q8_0 if kind == "q8_0" and whole else GGMLQuantizationType.F16


def _rope(config: Record) -> Record:
    """The settings of rotary positions; configurations before transformers 5 have them in two places."""
    older = {"rope_theta": config.get("rope_theta", 10000.0), **(config.get("rope_scaling") or {})}
    return config.get("rope_parameters") or older


def _shared_heads(config: Record) -> int:
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def _head(config: Record) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _unsupported(what: str, value: str) -> ModelError:
    return ModelError(
        f"{what} cannot be written into a GGUF here",
        value=value,
        remedy=f"Supported: {', '.join(ARCHITECTURES)}, without sliding windows. Export with --to hf, and convert that "
        "folder with llama.cpp's convert_hf_to_gguf.py",
    )
