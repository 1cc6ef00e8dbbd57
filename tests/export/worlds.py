"""Tiny models with a byte-level tokenizer, as GGUF needs one, and a run of one that had an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sharpen.cli.main import main
from tests.runs.lab import labelled, write_rows
from tests.tiny import tiny_model

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = ("the fox is in the house, and there it's warm 12 34", "what is the capital of this and that other thing?")


def byte_tokenizer(template: str = CHATML, splitter: Any = None) -> Any:
    """Byte-level BPE, trained on a few words; by default it splits as GPT-2's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = splitter or pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        WORDS,
        trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def byte_model(folder: Path, architecture: str = "llama", template: str = CHATML, **config: Any) -> Path:
    """A tiny model with that tokenizer; it has more embeddings than the tokenizer has tokens."""
    settings = {"vocab_size": 310, "initializer_range": 0.15, "num_hidden_layers": 2, **config}
    tiny_model(folder, architecture, **settings)
    byte_tokenizer(template).save_pretrained(folder)
    return folder


def adapted_run(folder: Path, model: Path, *stages: dict[str, Any], **settings: Any) -> Path:
    """A run of one SFT stage with a LoRA, or of the stages given."""
    import json

    rows = write_rows(folder / "rows.jsonl", labelled("count", 12))
    data = {"data": {"path": rows}, "epochs": 2, "batch_size": 4, "optim": {"lr": 3e-3}}
    adapter = {"type": "lora", "rank": 4, "targets": "attention"}
    given = [{**data, **stage} for stage in stages] or [{"type": "sft", "adapter": adapter, **data}]
    recipe = {"model": str(model), "dtype": "float32", "threads": 1, "stages": given, **settings}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["run", str(folder / "recipe.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"
