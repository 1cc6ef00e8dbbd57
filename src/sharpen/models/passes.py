"""What stands between the products of a decoder layer, in few passes over memory, with gradients.

Shapes: T tokens, W width, D head size, I inner width.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def window_of(attention: Any) -> int | None:
    """Tokens that a layer sees; models say it in the layer or, for all layers, in their configuration."""
    found = getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None))
    return int(found) if found else None


@cache
def loops() -> Any:
    """The compiled loops (`models.kernels`), where they can run; else None, and torch does the same."""
    try:
        from sharpen.models import kernels  # needs numba, which is optional
    except ImportError:
        return None
    return kernels if kernels.ready() else None


def norm(inputs: Tensor, module: Any, dtype: torch.dtype) -> Tensor:
    """RMS norm (arXiv:1910.07467) of (…, W) computed in float32, rounded to `dtype`."""
    if not torch.is_grad_enabled():  # a Function's own call costs as much as a decoding step's norm
        return _norm(inputs, module.weight, module.variance_epsilon, dtype)[0]
    output: Tensor = _Norm.apply(inputs, module.weight, module.variance_epsilon, dtype)  # type: ignore[no-untyped-call]
    return output


def _norm(inputs: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """As `normed`, by a loop where there is one: then without the scales."""
    if (inputs.dtype, dtype, inputs.ndim) == (torch.float32, torch.bfloat16, 2) and loops():
        return loops().add_norm(inputs.contiguous(), None, weight.float(), torch.tensor([epsilon])), None
    return normed(inputs, weight, epsilon, dtype)


def normed(inputs: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """RMS norm, and what each row (…, 1) was scaled by."""
    wide = inputs.float()
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    scale = length.square_().div_(inputs.shape[-1]).add_(epsilon).rsqrt_()
    return (wide * scale).mul_(weight).to(dtype), scale


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        output, scale = _norm(inputs, weight, epsilon, dtype)
        ctx.save_for_backward(inputs, weight, scale)
        ctx.epsilon = epsilon
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, scale = ctx.saved_tensors
        if scale is None:
            given = inputs.contiguous(), weight.float(), torch.tensor([ctx.epsilon]), gradients[0].contiguous()
            d_inputs, d_weight = loops().norm_back(*given)
            return d_inputs, d_weight.to(weight.dtype) if ctx.needs_input_grad[1] else None, None, None
        gradient = gradients[0].float()
        unit = inputs * scale
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = (gradient * unit).flatten(0, -2).sum(0).to(weight.dtype)
        gradient = gradient * weight
        along = torch.linalg.vecdot(gradient, unit).unsqueeze(-1).div_(unit.shape[-1])
        return gradient.sub_(unit.mul_(along)).mul_(scale).to(inputs.dtype), d_weight, None, None


def add(total: Tensor, added: Tensor) -> None:
    """Add to float32 numbers in place."""
    if added.dtype == torch.bfloat16 and loops():
        loops().accumulate(total, added.contiguous())
    else:
        total += added


def rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding (arXiv:2104.09864) of heads (T, ·, D), whose pairs are half a head apart; cos and sin are
    (T, 1, D/2), and the same with −sin is its gradient."""
    left, right = heads.chunk(2, -1)
    output = torch.empty_like(heads)
    first, second = output.chunk(2, -1)
    torch.mul(left, cos, out=first).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=second).addcmul_(left, sin)
    return output


def swish(activation: nn.Module) -> bool:
    """Whether it is x · σ(x) (arXiv:1702.03118), by torch or transformers."""
    return type(activation).__name__ in ("SiLU", "SiLUActivation")


def gated(made: Tensor, activation: nn.Module) -> Tensor:
    """act(gate) · up for gate and up side by side, (T, 2I) -> (T, I)."""
    if swish(activation) and torch.is_grad_enabled():
        output: Tensor = _Swish.apply(made)  # type: ignore[no-untyped-call]
        return output
    gate, up = made.chunk(2, -1)
    acted: Tensor = activation(gate)
    return acted * up


class _Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, made: Tensor) -> Tensor:
        ctx.save_for_backward(made)
        if made.dtype == torch.bfloat16 and loops():
            output: Tensor = loops().gate(made)
            return output
        gate, up = made.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (made,) = ctx.saved_tensors
        if made.dtype == torch.bfloat16 and loops():
            found: Tensor = loops().gate_back(made, gradients[0].contiguous())
            return found
        gate, up = made.chunk(2, -1)
        output = torch.empty_like(made)
        d_gate, d_up = output.chunk(2, -1)
        torch.mul(gradients[0], F.silu(gate), out=d_up)
        d_gate.copy_(torch.ops.aten.silu_backward(gradients[0] * up, gate))
        return output
