"""Write a model so that plain transformers reads it: same weights, same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharpen.models.quiet import quiet
from sharpen.models.template import keep

_PRIVATE = {
    "config.json": ("_name_or_path", "_model_name_or_path"),
    "generation_config.json": ("_from_model_config",),
    "tokenizer_config.json": ("is_local", "local_files_only", "name_or_path"),
}
"""What transformers writes about the folder or the session a model came from."""


def save(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write model, tokenizer and chat template in `save_pretrained` layout, with weights of `dtype`, and what the
    template is told.

    Equal weights give equal bytes, wherever the model was loaded from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(folder, state_dict=_cast(model, dtype))
        tokenizer.save_pretrained(folder)
    keep(tokenizer, folder)
    _tidy(folder, dtype)


def _cast(model: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights as `dtype`; tied ones stay one tensor."""
    cast: dict[tuple[int, torch.Size], Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        wanted = dtype if tensor.is_floating_point() else tensor.dtype
        key = (tensor.data_ptr(), tensor.shape)
        if key not in cast:
            cast[key] = tensor.detach().to(wanted)
        state[name] = cast[key]
    return state


def _tidy(folder: Path, dtype: torch.dtype) -> None:
    """State the type that was written, and drop what says nothing about the model."""
    for name, private in _PRIVATE.items():
        path = folder / name
        if not path.is_file():
            continue
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        content = {key: value for key, value in content.items() if key not in private}
        if name == "config.json":
            content["dtype"] = str(dtype).removeprefix("torch.")
        path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
