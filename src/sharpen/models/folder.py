"""From a model's name to a folder that may be loaded, or the reason why not. Imports no torch."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sharpen.errors import ModelError
from sharpen.models.pull import pull
from sharpen.models.registry import ALIASES

_HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model"]
_UNWANTED = ["*/*", "consolidated*"]  # subfolders hold other formats, `consolidated` a second copy
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
_OF_THEIR_OWN = {
    "final_logit_softcapping": "caps its logits",
    "attn_logit_softcapping": "caps its attention scores",
    "logit_scale": "scales its logits",
    "logits_scaling": "scales its logits",
    "lm_head_multiplier": "scales its logits",
    "attention_chunk_size": "attends in chunks",
}
"""What a few tokens may not show, and our attention and head do not do."""


def resolve(name: str, report: Callable[[str], None] = print) -> Path:
    """The folder of a model: an alias (fetched when missing), a folder, or a hub id `org/name[@revision]`.

    Raises ModelError when there is no such model, or when it may not be loaded.
    """
    folder = trusted(name, report)
    _check_causal(folder)
    return folder


def trusted(name: str, report: Callable[[str], None] = print) -> Path:
    """As `resolve`, for a model of any kind: an encoder, a classifier."""
    folder = _find(name, report)
    _check_trust(folder)
    return folder


def _find(name: str, report: Callable[[str], None]) -> Path:
    if name in ALIASES:
        return pull(name, report)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    match = _HUB_ID.fullmatch(name)
    if match:
        return _snapshot(match["repo"], match["revision"])
    near = difflib.get_close_matches(name, ALIASES, 1)
    raise ModelError(
        "no such model",
        value=name,
        remedy=f"Did you mean {near[0]!r}?" if near else "Give a name of `sharpen models list`, a folder, or org/name",
    )


def _snapshot(repo: str, revision: str | None) -> Path:
    """The hub's safetensors, configs and tokenizer files; never its pickles or code."""
    from huggingface_hub import snapshot_download  # not needed for folders and aliases
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(
            f"no folder of this name, and the hub did not give the model: {_first_line(error)}",
            value=f"{repo}@{revision}" if revision else repo,
            remedy="Check the spelling, the network and, for gated models, `hf auth login`; "
            "offline, name a folder that holds the model",
        ) from error


def _check_causal(folder: Path) -> None:
    """Raise ModelError unless the folder holds a causal language model."""
    architectures = _config(folder).get("architectures") or []
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        raise ModelError(
            "not a causal language model",
            value=architectures,
            remedy="Use a text model whose config.json names an architecture that ends in ForCausalLM",
        )


def _check_trust(folder: Path) -> None:
    """Raise ModelError unless the folder holds whole weights in safetensors, and no code."""
    config = _config(folder)
    tokenizer_config = _read(folder / "tokenizer_config.json")
    if "auto_map" in config or "auto_map" in tokenizer_config:
        raise ModelError(
            "the model brings its own Python code (`auto_map`), which sharpen never runs",
            value=str(folder),
            remedy="Use a model whose architecture is part of transformers; if this one's is, delete `auto_map` "
            "from its config.json and tokenizer_config.json",
        )
    _check_weights(folder)
    if "quantization_config" in config:
        raise ModelError(
            "the weights are quantised, and quantised weights cannot be trained",
            value=config["quantization_config"].get("quant_method"),
            remedy="Use the model's unquantised weights",
        )


def peculiar(folder: Path) -> str:
    """What the model's configuration says it does that our attention and head do not; empty for nothing."""
    config = _config(folder)
    found = [key for key in _OF_THEIR_OWN if config.get(key) not in (None, 0, 1)]
    return f"{_OF_THEIR_OWN[found[0]]} ({found[0]}: {config[found[0]]})" if found else ""


def _config(folder: Path) -> dict[str, Any]:
    if (folder / "config.json").is_file():
        return _read(folder / "config.json")
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            "this is an adapter, not a model",
            value=str(folder),
            remedy="Merge it into its base model first (peft's `merge_and_unload`)",
        )
    raise ModelError(
        "the folder holds no model: config.json is missing",
        value=str(folder),
        remedy="Name a folder that transformers' `save_pretrained` wrote",
    )


def _check_weights(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    reason = "only safetensors are read: pickled weights can run code when opened" if pickled else "no safetensors"
    raise ModelError(
        f"the model cannot be read; {reason}",
        value=pickled or str(folder),
        remedy="Use a revision with *.safetensors, or load it once in a place you trust and call "
        "`model.save_pretrained(FOLDER)`",
    )


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing."""
    try:
        content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ModelError(f"not valid JSON: {error}", value=str(path), remedy="Fetch the model again") from error
    if not isinstance(content, dict):
        raise ModelError("not a JSON object", value=str(path), remedy="Fetch the model again")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
