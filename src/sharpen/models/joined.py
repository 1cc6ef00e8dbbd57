"""Linear layers that read the same input, computed as one product.

Their weights lie one after another in one tensor, of which each layer's own is a view: names, shapes and files
stay what they were. Where they do not lie so (a reference's copies, a merge under way) each use puts them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def join(layers: Sequence[nn.Linear]) -> None:
    """Lay the layers' weights out one after another, from now on."""
    if len(layers) > 1 and whole([layer.weight for layer in layers]) is None:
        together = torch.cat([layer.weight for layer in layers])
        for layer, part in zip(layers, together.split([layer.out_features for layer in layers]), strict=True):
            layer.weight.data = part


def whole(weights: Sequence[Tensor]) -> Tensor | None:
    """The one tensor (sum of outputs, inputs) that weights (outputs, inputs) laid out together are; else None."""
    first = weights[0]
    place = first.data_ptr()
    for weight in weights:
        if weight.data_ptr() != place or weight.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            return None
        place += weight.numel() * weight.element_size()
    return first.detach().as_strided((sum(map(len, weights)), first.shape[1]), (first.shape[1], 1))


def together(weights: Sequence[Tensor]) -> Tensor:
    """The weights as one tensor, copied if need be; carries no gradient."""
    if len(weights) == 1:
        return weights[0].detach()
    found = whole(weights)
    return torch.cat([weight.detach() for weight in weights]) if found is None else found


def linear(inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    """inputs (T, in) · weightsᵀ + biases -> (T, sum of outputs)."""
    output: Tensor = _Linear.apply(inputs, len(weights), *weights, *biases)  # type: ignore[no-untyped-call]
    return output


def joined_bias(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor | None:
    """The biases as one tensor, zeros for a layer without; None if no layer has one."""
    if all(bias is None for bias in biases):
        return None
    pairs = zip(weights, biases, strict=True)
    return torch.cat([weight.new_zeros(len(weight)) if bias is None else bias.detach() for weight, bias in pairs])


class Laid(NamedTuple):
    """Layers' joined weight laid out for the matrix units, their bias, and the two factors that adapters add."""

    weight: Tensor
    bias: Tensor | None
    factors: tuple[Tensor, Tensor] | None = None

    def of(self, inputs: Tensor) -> Tensor:
        """inputs (T, in) -> (T, sum of outputs), without gradients."""
        output = _laid_product(inputs, self.weight, self.bias)
        if self.factors:
            low = _laid_product(inputs, self.factors[0], None)
            output += _laid_product(low, self.factors[1], None)
        return output


def lay_out(weight: Tensor, bias: Tensor | None, factors: tuple[Tensor, Tensor] | None) -> Laid:
    """Weight (outputs, inputs), bias and factors laid out; all bfloat16, where oneDNN multiplies that in hardware."""
    reorder = torch.ops.mkldnn._reorder_linear_weight
    return Laid(reorder(weight), bias, factors and (reorder(factors[0]), reorder(factors[1])))


def _laid_product(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    output: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return output


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, count: int, *parameters: Tensor | None) -> Tensor:
        weights: Any = parameters[:count]
        ctx.save_for_backward(inputs, *weights)
        return F.linear(inputs, together(weights), joined_bias(weights, parameters[count:]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        inputs, *weights = ctx.saved_tensors
        count, sizes = len(weights), [len(weight) for weight in weights]
        needed = ctx.needs_input_grad
        d_inputs = gradient @ together(weights) if needed[0] else None
        d_weights: list[Tensor | None] = [None] * count
        if any(needed[2 : 2 + count]):
            d_weights = list((gradient.T @ inputs).split(sizes))
        d_biases: list[Tensor | None] = [None] * count
        if any(needed[2 + count :]):
            d_biases = list(gradient.sum(0).split(sizes))
        taken = [part if need else None for part, need in zip(d_weights + d_biases, needed[2:], strict=True)]
        return d_inputs, None, *taken
