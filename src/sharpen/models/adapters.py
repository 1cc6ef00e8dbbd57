"""Low-rank adapters inside a model, by peft: put in, scaled for sampling, merged, saved.

They are injected into the model itself, so that its names, attention and head stay what sampler and trainer
know. Their weights are float32 over a base of any type, and the base is frozen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.errors import ModelError
from sharpen.models.quiet import quiet

if TYPE_CHECKING:
    from peft import LoraConfig

NAME = "default"
"""peft's name for an adapter; a model of ours has one at most."""

_PREFIX = "base_model.model."  # in peft's files, before each name of the model's own
_CONFIG = "adapter_config.json"


def attached(model: nn.Module) -> bool:
    """Whether the model has an adapter."""
    return any(True for _ in _layers(model))


def attach(model: nn.Module, settings: LoraConfig, seed: int) -> None:
    """Put a new adapter into the model and freeze all else; its random numbers start from `seed`.

    At first the model computes what it did before: B is 0, and DoRA's magnitudes are the weights' own norms.
    """
    with quiet():
        from peft import inject_adapter_in_model  # takes seconds to import
    with seeded(seed):
        inject_adapter_in_model(settings, model, NAME)
    for _, layer in _layers(model):
        for name, parameter in layer.named_parameters():
            if not name.startswith("base_layer."):
                parameter.data = parameter.data.float()
        if NAME in layer.lora_magnitude_vector:  # peft took the norm in the base's type
            layer.lora_magnitude_vector[NAME].weight.data = layer.base_layer.weight.detach().float().norm(dim=1)
    model.eval()


def save_adapter(model: nn.Module, folder: Path) -> None:
    """Write the adapter in PEFT's format; equal adapters give equal bytes."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    held: Any = model
    state = get_peft_model_state_dict(model, adapter_name=NAME, save_embedding_layers=False)
    tensors = {_PREFIX + name: tensor.detach().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    content = {**held.peft_config[NAME].to_dict(), "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in content.items()}
    (folder / _CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n", "utf-8")


def attach_saved(model: nn.Module, folder: Path) -> None:
    """Put the adapter that `save_adapter` wrote into its base model, to be trained on.

    Raises ModelError when it does not fit the model.
    """
    with quiet():
        from peft import LoraConfig  # takes seconds to import
    settings = LoraConfig.from_pretrained(str(folder))
    settings.inference_mode = False
    attach(model, settings, 0)
    load_adapter(model, folder)


def load_adapter(model: nn.Module, folder: Path) -> None:
    """Give the model's adapter the weights that `save_adapter` wrote. Raises ModelError when they do not fit."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    stored = load_file(folder / "adapter_model.safetensors")
    state = {name.removeprefix(_PREFIX): tensor for name, tensor in stored.items()}
    found: Any = set_peft_model_state_dict(model, state, adapter_name=NAME)
    if found.unexpected_keys or any(".lora_" in name for name in found.missing_keys):
        raise ModelError("the adapter does not fit the model", value=str(folder), remedy="Start a new adapter")


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add the adapter to the weights for good, and take it out; every weight can be trained again."""
    held: Any = model
    for name, layer in list(_layers(model)):
        layer.base_layer.weight.data = _merged(layer)
        model.set_submodule(name, layer.base_layer)
    if hasattr(held, "peft_config"):
        del held.peft_config
    model.requires_grad_(True)


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Inside this block the model is plain: the adapter is added to its weights, and out of the way."""
    before = [(name, layer, layer.base_layer.weight.data) for name, layer in _layers(model)]
    try:
        for name, layer, _ in before:
            layer.base_layer.weight.data = _merged(layer)
            model.set_submodule(name, layer.base_layer)
        yield
    finally:
        for name, layer, weight in before:
            layer.base_layer.weight.data = weight
            model.set_submodule(name, layer)


@contextmanager
def fixed_scales(model: nn.Module) -> Iterator[None]:
    """Inside this block DoRA's row scales are computed once, not at every token: the weights may only be read."""
    layers = [layer for _, layer in _layers(model) if NAME in layer.lora_magnitude_vector]
    for layer in layers:
        layer.forward = partial(_scaled, layer, _scale(layer))
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own forward is back


@contextmanager
def dropping(model: nn.Module, seed: int) -> Iterator[None]:
    """Inside this block adapters drop inputs, by random numbers that start from `seed`."""
    layers = [layer for _, layer in _layers(model)]
    with seeded(seed):
        try:
            for layer in layers:
                layer.train()
            yield
        finally:
            for layer in layers:
                layer.eval()


def plain_adapter(layer: Any) -> bool:
    """Whether the layer is a linear one with an adapter that only adds to its output: LoRA, not DoRA."""
    return hasattr(layer, "lora_A") and type(layer.base_layer) is nn.Linear and NAME not in layer.lora_magnitude_vector


def low_rank(inputs: Tensor, output: Tensor, layers: Sequence[Any]) -> Tensor:
    """The output (T, sum of outputs) of layers side by side, with what their adapters add: s·B·A·inputs each.

    Computed in the inputs' type, as the layers are; the adapters' own weights stay what they are.
    """
    added = []
    for layer in layers:
        if hasattr(layer, "lora_A"):
            down, up = _factors(layer, inputs.dtype)
            added.append(F.linear(F.linear(layer.lora_dropout[NAME](inputs), down), up))
        else:
            added.append(inputs.new_zeros(()).expand(len(inputs), layer.out_features))
    return output + torch.cat(added, -1)


@torch.no_grad()
def low_rank_factors(layers: Sequence[Any], kind: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """What `low_rank` adds as two products for all layers: (sum of ranks, inputs) and (sum of outputs, sum of ranks).

    None where no layer has an adapter.
    """
    if not any(hasattr(layer, "lora_A") for layer in layers):
        return None
    downs, ups = [], []
    for layer in layers:
        if hasattr(layer, "lora_A"):
            down, up = _factors(layer, kind)
            downs.append(down)
        else:
            up = torch.zeros(layer.out_features, 0, dtype=kind)
        ups.append(up)
    return torch.cat(downs), torch.block_diag(*ups)


def _factors(layer: Any, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """A (rank, inputs) and s·B (outputs, rank), rounded to a type."""
    up = layer.lora_B[NAME].weight * layer.scaling[NAME]
    return layer.lora_A[NAME].weight.to(kind), up.to(kind)


def drops(model: nn.Module) -> bool:
    """Whether the model has an adapter with dropout."""
    return any(isinstance(layer.lora_dropout[NAME], nn.Dropout) for _, layer in _layers(model))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside this block torch's random numbers start from `seed`; afterwards they go on as if nothing had been."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def target_names(model: nn.Module, wanted: str | tuple[str, ...]) -> list[str]:
    """The linear layers that `all-linear`, `attention` or names mean, as peft's `target_modules`.

    Experts that are held as one tensor are no linear layers, and get none. Raises ModelError for a name that no linear
    layer but the head has, and where there is no linear layer.
    """
    held: Any = model
    head = held.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    if isinstance(wanted, tuple):
        for target in wanted:
            if not any(_is(name, target) for name in linear):
                names = ", ".join(sorted({_last(name) for name in linear}))
                raise ModelError(
                    "the model has no linear layer of this name that could get an adapter",
                    value=target,
                    remedy=f"Its layers are {names}" + (" (its experts cannot get one)" if has_experts(model) else ""),
                )
        chosen = [name for name in linear if any(_is(name, target) for target in wanted)]
    elif wanted == "attention":
        chosen = [name for name in linear if _in_attention(model, name)]
    else:
        chosen = linear
    if not chosen:
        raise ModelError(
            "the model has no linear layers that could get an adapter",
            value=wanted,
            remedy="Train all weights (adapter: none), or name other layers as `targets`",
        )
    short = sorted({_last(name) for name in chosen})
    return short if [name for name in linear if _last(name) in short] == chosen else chosen


def has_experts(model: nn.Module) -> bool:
    """Whether the model holds its experts as one tensor, which is no linear layer."""
    return any(weight.ndim == 3 and "expert" in name for name, weight in model.named_parameters())


def trainable(model: nn.Module) -> tuple[int, int]:
    """How many numbers are trained, of how many."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(count for count, trained in counts if trained), sum(count for count, _ in counts)


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that carry an adapter, by name; typed Any because peft's types are."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            yield name, module


def _update(layer: Any) -> Tensor:
    """W + s·B·A in float32, (out, in)."""
    down, up = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
    wide: Tensor = layer.base_layer.weight.float() + layer.scaling[NAME] * (up @ down)
    return wide


@torch.no_grad()
def _scale(layer: Any) -> Tensor:
    """DoRA's m / ‖W + s·B·A‖, a number for each row (arXiv:2402.09353, equation 5)."""
    scale: Tensor = layer.lora_magnitude_vector[NAME].weight / _update(layer).norm(dim=1)
    return scale


def _merged(layer: Any) -> Tensor:
    """The weight that alone computes what the layer does, rounded once to the base's type."""
    weight = _update(layer)
    if NAME in layer.lora_magnitude_vector:
        weight *= _scale(layer)[:, None]
    return weight.to(layer.base_layer.weight.dtype)


def _scaled(layer: Any, scale: Tensor, inputs: Tensor) -> Tensor:
    """DoRA's forward pass with its scales given."""
    base = layer.base_layer(inputs)
    bias = layer.base_layer.bias
    low = layer.lora_B[NAME](layer.lora_A[NAME](inputs.float())) * layer.scaling[NAME]
    plain = base if bias is None else base - bias
    output: Tensor = (plain + low) * scale
    return (output if bias is None else output + bias).to(base.dtype)


def _in_attention(model: nn.Module, name: str) -> bool:
    return type(model.get_submodule(name.rpartition(".")[0])).__name__.endswith("Attention")


def _is(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _last(name: str) -> str:
    return name.rpartition(".")[2]
