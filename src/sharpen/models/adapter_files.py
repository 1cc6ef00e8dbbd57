"""Adapters as PEFT writes them: saved, put back, and those of a stack written as one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.errors import ModelError
from sharpen.models.adapters import BELOW, NAME, attach, inject
from sharpen.models.quantized import FourBits
from sharpen.models.quiet import quiet

ADAPTER = "adapter"
"""The folder of the adapter, inside its model's: all that lies on the base, as one."""

_PREFIX = "base_model.model."  # before each name of the model's own
_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"


def save_adapter(model: nn.Module, folder: Path) -> None:
    """Write the adapter that is trained, in PEFT's format; equal adapters give equal bytes."""
    from peft import get_peft_model_state_dict

    held: Any = model
    state = get_peft_model_state_dict(model, adapter_name=NAME, save_embedding_layers=False)
    _write(folder, {_PREFIX + name: tensor for name, tensor in state.items()}, held.peft_config[NAME].to_dict())


def save_stack(model: nn.Module, folder: Path) -> None:
    """Write the adapter that is trained and the one below as a single LoRA for the base of both, which computes what
    the two do: ranks add up, and where a layer has one of the two only, the other's part is 0.

    s·B is written for B, and the scale is 1: so two adapters of different scales are one.
    """
    held: Any = model
    below, top = held.peft_config[BELOW], held.peft_config[NAME]
    ranks = {BELOW: below.r, NAME: top.r}
    state: dict[str, Tensor] = {}
    for name, layer in model.named_modules():
        if not hasattr(layer, "lora_A"):
            continue
        downs = [_padded(layer.lora_A, part, (ranks[part], layer.in_features)) for part in ranks]
        ups = [_padded(layer.lora_B, part, (layer.out_features, ranks[part])) for part in ranks]
        scales = [layer.scaling.get(part, 1.0) for part in ranks]
        state[f"{_PREFIX}{name}.lora_A.weight"] = torch.cat(downs)
        state[f"{_PREFIX}{name}.lora_B.weight"] = torch.cat(
            [up * scale for up, scale in zip(ups, scales, strict=True)], 1
        )
    rank = sum(ranks.values())
    _write(
        folder,
        state,
        {
            **top.to_dict(),
            "base_model_name_or_path": below.base_model_name_or_path,
            "r": rank,
            "lora_alpha": rank,
            "use_rslora": False,
            "lora_dropout": 0.0,
            "target_modules": set(below.target_modules) | set(top.target_modules),
        },
    )


def attach_saved(model: nn.Module, folder: Path, four_bits: FourBits | None = None) -> None:
    """Put the adapter that `save_adapter` wrote into its base model, to be trained on.

    Raises ModelError when it does not fit the model.
    """
    _fitting(folder, lambda settings: attach(model, settings, 0, four_bits))
    load_adapter(model, folder)


def attach_below(model: nn.Module, folder: Path) -> None:
    """Put a saved LoRA into its base model as what another adapter is to be stacked on.

    Raises ModelError when it does not fit the model.
    """

    def put(settings: Any) -> None:
        settings.lora_dropout = 0.0  # it is no longer trained
        inject(model, settings, BELOW)

    _fitting(folder, put)
    load_adapter(model, folder, BELOW)


def load_adapter(model: nn.Module, folder: Path, name: str = NAME) -> None:
    """Give the model's adapter the weights that a folder holds. Raises ModelError when they do not fit."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    stored = load_file(folder / _WEIGHTS)
    state = {key.removeprefix(_PREFIX): tensor for key, tensor in stored.items()}
    try:
        found: Any = set_peft_model_state_dict(model, state, adapter_name=name)
    except RuntimeError as error:  # torch's: other shapes
        raise _misfit(folder) from error
    if found.unexpected_keys or any(".lora_" in key and f".{name}." in key for key in found.missing_keys):
        raise _misfit(folder)


def base_of(folder: Path) -> str:
    """The name of the model that a saved adapter was put into."""
    return str(json.loads((folder / _CONFIG).read_text("utf-8"))["base_model_name_or_path"])


def _fitting(folder: Path, put: Callable[[Any], None]) -> None:
    with quiet():
        from peft import LoraConfig  # takes seconds to import
    settings = LoraConfig.from_pretrained(str(folder))
    settings.inference_mode = False
    try:
        put(settings)
    except ValueError as error:  # peft's: none of the layers are there
        raise _misfit(folder) from error


def _misfit(folder: Path) -> ModelError:
    return ModelError(
        "the adapter does not fit the model",
        value=str(folder),
        remedy=f"It was made for {base_of(folder)}: start a new adapter on this model",
    )


def _padded(parts: Any, name: str, shape: tuple[int, int]) -> Tensor:
    return parts[name].weight.detach() if name in parts else torch.zeros(shape)


def _write(folder: Path, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    content = {**settings, "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in content.items()}
    (folder / _CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n", "utf-8")
