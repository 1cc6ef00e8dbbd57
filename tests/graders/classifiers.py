"""Tiny random classifiers, written as whole local folders: one that reads like BERT, one like a causal model."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

from tests.tiny import tiny_tokenizer

SHAPE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,  # scores far enough apart
}


def bert(folder: Path, **settings: Any) -> Path:
    """Reads at most 40 tokens, one a character; [CLS] and [SEP] stand around texts. No chat template."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(**{**SHAPE, "max_position_embeddings": 40, "pad_token_id": 0, "num_labels": 1, **settings})
    return _write(folder, BertForSequenceClassification, config, _of_bert())


def llama(folder: Path, **settings: Any) -> Path:
    """Takes the last token; has a chat template, and neither config nor tokenizer names a token for padding."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    given = {"max_position_embeddings": 512, "pad_token_id": None, "num_labels": 1, "num_key_value_heads": 2}
    return _write(folder, LlamaForSequenceClassification, LlamaConfig(**{**SHAPE, **given, **settings}), tokenizer)


def _write(folder: Path, kind: Any, config: Any, tokenizer: Any) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = kind(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _of_bert() -> Any:
    from tokenizers import Tokenizer, models, processors
    from transformers import PreTrainedTokenizerFast

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    characters = string.ascii_letters + string.digits + string.punctuation + " \n"
    vocabulary = {token: index for index, token in enumerate([*special, *characters])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="[UNK]"))
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
