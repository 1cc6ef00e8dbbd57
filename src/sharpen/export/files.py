"""What each kind of export consists of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharpen.export import gguf, modelfile
from sharpen.export.source import Source
from sharpen.models.adapter_files import ADAPTER

Say = Callable[[str], None]

OURS = ("manifest.json", "lineage.json", "sharpen-model.json", "README.md")
"""Files of a model's folder that say something about that folder; an export has its own."""

KINDS = (".safetensors", ".json", ".jinja", ".txt", ".model")


def whole(source: Source, folder: Path) -> None:
    """The model as `save_pretrained` has it: weights, configuration, tokenizer, chat template."""
    for path in sorted(source.folder.iterdir()):
        if path.is_file() and path.suffix in KINDS and path.name not in OURS:
            shutil.copyfile(path, folder / path.name)


def adapter(source: Source, folder: Path, base: str, revision: str | None) -> None:
    """The adapter as PEFT has it, naming its base so that it is found from anywhere on this machine."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(source.folder / ADAPTER / "adapter_model.safetensors", folder / "adapter_model.safetensors")
    settings: dict[str, Any] = json.loads((source.folder / ADAPTER / "adapter_config.json").read_text("utf-8"))
    settings |= {"base_model_name_or_path": base, "revision": revision}
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")


def language(source: Source, folder: Path) -> None:
    """The tokenizer, the chat template and what that is told."""
    told = ("tokenizer", "special_tokens", "added_tokens", "chat_template", "vocab", "merges")
    for path in sorted(source.folder.iterdir()):
        if path.is_file() and path.suffix in KINDS and path.name.startswith(told):
            shutil.copyfile(path, folder / path.name)


def packed(source: Source, words: Any, stop: frozenset[int], folder: Path, kind: str, say: Say) -> Path:
    """The model as one GGUF."""
    file = folder / f"{source.name}-{kind.upper()}.gguf"
    facts = {"name": source.name}
    if source.known:
        facts |= {"license": source.known.licence.lower().replace(" ", "-")}
    gguf.write(source.folder, words, stop, file, kind, facts, say)
    return file


def for_ollama(source: Source, words: Any, stop: frozenset[int], file: Path, template: str) -> Path:
    """The Modelfile beside a GGUF."""
    stops = [str(words.convert_ids_to_tokens(token)) for token in sorted(stop)]
    path = file.with_name("Modelfile")
    path.write_text(modelfile.write(file.name, template, stops, source.system), "utf-8")
    return path
