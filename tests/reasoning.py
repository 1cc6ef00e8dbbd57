"""Tiny tokenizers and models that think: with the marks and the chat templates of the families in tests/templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny import tiny_model, tiny_tokenizer

TEMPLATES = Path(__file__).parent / "templates"
HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>")


def thinking_tokenizer(family: str) -> Any:
    """With the family's template, and a token of its own for each of its marks."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
    if family == "gpt_oss":
        tokenizer.add_special_tokens({"additional_special_tokens": list(HARMONY), "eos_token": "<|return|>"})
    else:
        tokenizer.add_tokens(["<think>", "</think>"])  # not special, as in Qwen3's tokenizer
    return tokenizer


def thinking_model(folder: Path, family: str, **config: Any) -> Path:
    """A tiny model of random weights with such a tokenizer."""
    tiny_model(folder, **config)
    thinking_tokenizer(family).save_pretrained(folder)
    return folder
