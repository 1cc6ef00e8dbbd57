"""From a model's name to a folder that may be loaded, or the reason why not. Imports no torch."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sharpen.errors import ModelError
from sharpen.models import hub
from sharpen.models.bases import BASES, Base, Shape
from sharpen.models.pull import pull
from sharpen.models.registry import ALIASES
from sharpen.models.registry import folder as in_cache

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
    """The folder of a model: an alias (fetched when missing), a folder, or a hub id; both `NAME[@revision]`.

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


def pinned(name: str) -> str:
    """The name of a model that `resolve` has found; a hub model's says its commit, and so means the same for ever."""
    found = None if name in ALIASES or Path(name).expanduser().is_dir() else hub.parse(name)
    folder = found and hub.here(found)
    return f"{found.repo}@{folder.name}" if found and folder else name


class Described(NamedTuple):
    """A model by its configuration alone; `base` where it has a name of its own, `folder` where it is here."""

    shape: Shape
    base: Base | None
    folder: Path | None


def described(name: str) -> Described:
    """What is known of a model without its weights; of a hub model that is not here, config.json is asked for.

    Raises ModelError where there is no such model, or its configuration does not say its shape.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return Described(_shape(_config(path), name), None, path)
    found = hub.parse(name)
    if found is None:
        raise _unknown(name)
    base = next((base for base in BASES.values() if base.hub == found.repo), None)
    if base is None:
        return Described(_shape(_read(hub.config(found)), name), None, hub.here(found))
    return Described(base.shape, base, in_cache(base.alias) if name == base.alias else hub.here(found))


def _shape(config: dict[str, Any], name: str) -> Shape:
    shape = Shape.of(config)
    if shape is None:
        kind = config.get("model_type")
        raise ModelError(
            "config.json does not say the model's shape in the usual words, so its memory cannot be told",
            value=f"{name}, a {kind}" if kind else name,
            remedy="Write a recipe with it: `sharpen bench RECIPE` measures its memory",
        )
    return shape


def _find(name: str, report: Callable[[str], None]) -> Path:
    if name in ALIASES:
        return pull(name, report)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if found := hub.parse(name):
        return hub.fetch(found, report)
    raise _unknown(name)


def _unknown(name: str) -> ModelError:
    near = difflib.get_close_matches(name, {**ALIASES, **BASES}, 1)
    return ModelError(
        "no such model",
        value=name,
        remedy=f"Did you mean {near[0]!r}?" if near else "Give a name of `sharpen models list`, a folder, or org/name",
    )


def _check_causal(folder: Path) -> None:
    """Raise ModelError unless the folder holds a causal language model."""
    architectures = _config(folder).get("architectures") or []
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        scores = any(name.endswith("ForSequenceClassification") for name in architectures)
        raise ModelError(
            "not a causal language model",
            value=architectures,
            remedy="It scores texts and writes none: name it as a grader's model, `{type: reward_model, model: ...}`"
            if scores
            else "Use a text model whose config.json names an architecture that ends in ForCausalLM",
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
