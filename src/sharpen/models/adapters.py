"""Low-rank adapters inside a model, by peft: put in, stacked, scaled for sampling, merged.

They are injected into the model itself, so that its names, attention and head stay what sampler and trainer
know. Their weights are float32 over a base of any type, 4 bits too (`quantized`), and the base is frozen.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.errors import ModelError
from sharpen.models.quantized import FourBits, Quantized, quantize, quantized_layers
from sharpen.models.quiet import quiet

if TYPE_CHECKING:
    from peft import LoraConfig

NAME = "default"
"""peft's name for the adapter that is trained; a model of ours has one at most."""

BELOW = "below"
"""The name of what it is stacked on: the adapters of stages before as one, frozen and active."""


def attached(model: nn.Module) -> bool:
    """Whether the model has an adapter."""
    return any(True for _ in adapted(model))


def stacked(model: nn.Module) -> bool:
    """Whether the model's adapter lies on another."""
    return any(BELOW in layer.lora_A for layer in adapted(model))


def attach(model: nn.Module, settings: LoraConfig, seed: int, four_bits: FourBits | None = None) -> None:
    """Put a new adapter into the model and freeze all else; its random numbers start from `seed`.

    At first the model computes what it did before: B is 0, and DoRA's magnitudes are the weights' own norms. With
    `four_bits` all its linear layers but the head are held so from now on. Raises ConfigError where that needs what is
    not installed.
    """
    with seeded(seed):
        inject(model, settings, NAME)
    if four_bits:
        quantize(model, four_bits)
    for layer in adapted(model):
        if NAME in layer.lora_magnitude_vector:  # peft took the norm of the dense weight, in its type
            layer.lora_magnitude_vector[NAME].weight.data = layer.base_layer.weight.detach().float().norm(dim=1)


def inject(model: nn.Module, settings: LoraConfig, name: str) -> None:
    """Put an adapter of that name into the model, in float32; all else is frozen, and all adapters are active."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a second adapter: we know
        from peft import inject_adapter_in_model  # takes seconds to import

        inject_adapter_in_model(settings, model, name)
    for layer in adapted(model):
        layer.set_adapter([BELOW, NAME])
        for part, parameter in layer.named_parameters():
            if not part.startswith("base_layer."):
                parameter.data = parameter.data.float()
                parameter.requires_grad_(f".{BELOW}." not in part)
    model.eval()


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add the adapters to the weights for good, and take them out; every weight is dense and can be trained again."""
    held: Any = model
    for name, layer in _changed(model):
        plain, weight = _plain(layer), _merged(layer)
        plain.weight.data = weight
        model.set_submodule(name, plain)
    if hasattr(held, "peft_config"):
        del held.peft_config
    model.requires_grad_(True)


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Inside this block the model is plain: its adapters are added to its weights, which are dense."""
    before = [(name, layer, _plain(layer), _plain(layer).weight.data) for name, layer in _changed(model)]
    try:
        for name, layer, plain, _ in before:
            plain.weight.data = _merged(layer)
            model.set_submodule(name, plain)
        yield
    finally:
        for name, layer, plain, weight in before:
            plain.weight.data = weight
            model.set_submodule(name, layer)


@contextmanager
def fixed_scales(model: nn.Module) -> Iterator[None]:
    """Inside this block DoRA's row scales are computed once, not at every token: the weights may only be read."""
    layers = [layer for layer in adapted(model) if NAME in layer.lora_magnitude_vector]
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
    layers = list(adapted(model))
    with seeded(seed):
        try:
            for layer in layers:
                layer.train()
            yield
        finally:
            for layer in layers:
                layer.eval()


def plain_adapter(layer: Any) -> bool:
    """Whether the layer is a linear one with adapters that only add to its output: LoRA, not DoRA."""
    linear = hasattr(layer, "lora_A") and type(layer.base_layer) in (nn.Linear, Quantized)
    return linear and NAME not in layer.lora_magnitude_vector


def low_rank(inputs: Tensor, output: Tensor, layers: Sequence[Any]) -> Tensor:
    """The output (T, sum of outputs) of layers side by side, with what their adapters add: s·B·A·inputs each.

    Computed in the inputs' type, as the layers are; the adapters' own weights stay what they are.
    """
    added = []
    for layer in layers:
        if not hasattr(layer, "lora_A"):
            added.append(inputs.new_zeros(()).expand(len(inputs), layer.out_features))
            continue
        parts = []
        for name in layer.lora_A:
            down, up = _factors(layer, name, inputs.dtype)
            parts.append(F.linear(F.linear(layer.lora_dropout[name](inputs), down), up))
        added.append(parts[0] if len(parts) == 1 else parts[0] + parts[1])
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
            both = [_factors(layer, name, kind) for name in layer.lora_A]
            downs += [down for down, _ in both]
            up = torch.cat([up for _, up in both], 1)
        else:
            up = torch.zeros(layer.out_features, 0, dtype=kind)
        ups.append(up)
    return torch.cat(downs), torch.block_diag(*ups)


def _factors(layer: Any, name: str, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """An adapter's A (rank, inputs) and s·B (outputs, rank), rounded to a type."""
    up = layer.lora_B[name].weight * layer.scaling[name]
    return layer.lora_A[name].weight.to(kind), up.to(kind)


def drops(model: nn.Module) -> bool:
    """Whether the model has an adapter with dropout."""
    return any(isinstance(drop, nn.Dropout) for layer in adapted(model) for drop in layer.lora_dropout.values())


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
    """How many numbers are trained, of how many; those held in 4 bits count as the others."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    packed = sum(layer.out_features * layer.in_features for _, layer in quantized_layers(model))
    return sum(count for count, trained in counts if trained), packed + sum(count for count, _ in counts)


def adapted(model: nn.Module) -> Iterator[Any]:
    """The layers that carry adapters; typed Any because peft's types are."""
    for module in model.modules():
        if hasattr(module, "lora_A"):
            yield module


def _changed(model: nn.Module) -> list[tuple[str, Any]]:
    """The layers that a plain model has others in the place of: with adapters, or in 4 bits; by name."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") or (isinstance(module, Quantized) and not name.endswith(".base_layer"))
    ]


def _plain(layer: Any) -> Any:
    """The linear layer under adapters and 4 bits."""
    base = getattr(layer, "base_layer", layer)
    return base.dense if isinstance(base, Quantized) else base


def _update(layer: Any) -> Tensor:
    """W + s·B·A of each adapter in float32, (out, in)."""
    wide: Tensor = layer.base_layer.weight.float()
    for name in layer.lora_A:
        wide = wide + layer.scaling[name] * (layer.lora_B[name].weight @ layer.lora_A[name].weight)
    return wide


@torch.no_grad()
def _scale(layer: Any) -> Tensor:
    """DoRA's m / ‖W + s·B·A‖, a number for each row (arXiv:2402.09353, equation 5)."""
    scale: Tensor = layer.lora_magnitude_vector[NAME].weight / _update(layer).norm(dim=1)
    return scale


@torch.no_grad()
def _merged(layer: Any) -> Tensor:
    """The weight that alone computes what the layer does, rounded once to the base's type."""
    if isinstance(layer, Quantized):
        return layer.weight
    weight = _update(layer)
    if NAME in layer.lora_magnitude_vector:
        weight *= _scale(layer)[:, None]
    return weight.to(_plain(layer).weight.dtype)


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
