"""Linear layers whose weights are held in 4 bits (QLoRA, arXiv:2305.14314), and are dense only while they are read.

The 4 bits are bitsandbytes', its products are not: for inference on some processors those round the scales, and the
sampler would compute something else than the trainer. Here both multiply by the same dense weight, made anew each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.errors import ConfigError
from sharpen.models.joined import joined_bias, together
from sharpen.models.quiet import quiet

BLOCK = 64
"""Numbers that share a scale, as in the paper."""


class FourBits(NamedTuple):
    """How weights become 4 bits."""

    kind: Literal["nf4", "fp4"] = "nf4"
    double: bool = True
    """The scales are quantised too."""


class Quantized(nn.Module):
    """A frozen linear layer, its weight in 4 bits."""

    def __init__(self, layer: nn.Linear, how: FourBits) -> None:
        """In the place of `layer`, whose weight is empty from now on."""
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        # As one row: bitsandbytes 0.50 restores rows that are no whole number of blocks wrongly on some processors.
        flat = layer.weight.detach().reshape(-1)
        self._packed, self._state = functional().quantize_4bit(
            flat, blocksize=BLOCK, compress_statistics=how.double, quant_type=how.kind
        )
        layer.weight.data = flat.new_empty(0)
        self._dense = (layer,)  # no part of this module, whose numbers would be counted
        self._forward_pre_hooks.update(layer._forward_pre_hooks)  # `precision` has hung in what rounds the input

    @property
    def dense(self) -> nn.Linear:
        """The layer in whose place this one is; for as long, its weight is empty."""
        return self._dense[0]

    @property
    def weight(self) -> Tensor:
        """The weight (outputs, inputs) that the 4 bits stand for, in the type it had; made at each call."""
        flat: Tensor = functional().dequantize_4bit(self._packed, self._state)
        return flat.view(self.out_features, self.in_features)

    @property
    def held_bytes(self) -> int:
        """What the weight takes."""
        state = self._state
        scales = [state.absmax, state.code] + ([state.state2.absmax, state.state2.code] if state.nested else [])
        return sum(tensor.nbytes for tensor in (self._packed, *scales))

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (..., in) -> (..., out)."""
        return product(inputs, [self])


def functional() -> Any:
    """bitsandbytes' functions; typed Any because it is optional. Raises ConfigError where it is not installed."""
    try:
        with quiet():
            import bitsandbytes.functional  # 120 MB that most do without
    except ImportError as error:
        raise ConfigError(
            "weights in 4 bits need bitsandbytes 0.50 or newer, which is not installed",
            path="adapter.type",
            value="qlora",
            remedy="Install it (pip install 'sharpen[8bit]'), or choose lora",
        ) from error
    return bitsandbytes.functional


def quantize(model: nn.Module, how: FourBits) -> None:
    """Hold all linear layers but the head in 4 bits, from now on; adapters stay what they are."""
    held: Any = model
    head = held.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear and layer is not head and ".lora_" not in name:
            model.set_submodule(name, Quantized(layer, how))


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, Quantized]]:
    """Those of the model, by name."""
    for name, module in model.named_modules():
        if isinstance(module, Quantized):
            yield name, module


def product(inputs: Tensor, layers: Sequence[Any]) -> Tensor:
    """What frozen layers make of inputs (..., in), side by side: (..., sum of outputs); no dense weight is kept."""
    output: Tensor = _Product.apply(inputs, layers)  # type: ignore[no-untyped-call]
    return output


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layers: Sequence[Any]) -> Tensor:
        ctx.layers = layers
        weights = [layer.weight for layer in layers]
        return F.linear(inputs, together(weights), joined_bias(weights, [layer.bias for layer in layers]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] @ together([layer.weight for layer in ctx.layers]), None
