"""Tiny random models of several architectures, written as whole local folders: weights, tokenizer, chat template."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3_text", "mistral", "qwen3_moe", "gpt_oss")
"""Those that compute on our attention."""

WINDOW = 8
"""Tokens a sliding-window layer sees (mistral: every layer; gemma3_text, gpt_oss: the first of two)."""

SLOW_ARCHITECTURES = ("gemma2", "bloom", "mamba")
"""Those that do not: with soft caps, with ALiBi in an attention of its own, with a state and no attention."""

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unk|>")
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SHAPE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,  # logits far enough apart for greedy answers to be clear-cut
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_EXTRAS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {"tie_word_embeddings": False},
    "qwen3": {"tie_word_embeddings": True},
    "gemma3_text": {
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 8,
    },
    "mistral": {"sliding_window": WINDOW, "tie_word_embeddings": False},
    "qwen3_moe": {
        "tie_word_embeddings": False,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "norm_topk_prob": True,
    },
    "gpt_oss": {
        "tie_word_embeddings": False,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 131072,  # what its YaRN factor makes of 4096
    },
    "gemma2": {"sliding_window": WINDOW, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0},
    "bloom": {},
    "mamba": {"state_size": 4},
    "gpt2": {},
    "phi": {"head_dim": None, "num_key_value_heads": 4},  # a head with a bias
    "granite": {"logits_scaling": 4.0},
    "rwkv": {},  # its head has another name, its state is a list
    "recurrent_gemma": {"lru_width": 32, "num_hidden_layers": 3, "attention_window_size": WINDOW},
    "lfm2": {"head_dim": None, "layer_types": ["conv", "full_attention"]},
}


def tiny_tokenizer() -> Any:
    """One token a printable ASCII character, ChatML marks, and an unknown token for the rest."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    characters = string.ascii_letters + string.digits + string.punctuation + " \n\t"
    vocabulary = {token: index for index, token in enumerate([*_SPECIAL, *characters])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<|unk|>"))
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|unk|>",
        chat_template=_CHATML,
        clean_up_tokenization_spaces=False,
    )


def tiny_model(folder: Path, architecture: str = "llama", seed: int = 0, **config: Any) -> Path:
    """Write a float32 model of random weights into `folder` and return it.

    `config` overrides entries of the architecture's configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    given = {**_SHAPE, **_EXTRAS[architecture], **config}
    settings = {name: value for name, value in given.items() if value is not None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **settings), dtype=torch.float32)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
