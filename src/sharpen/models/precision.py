"""bfloat16 matrix products inside a float32 residual stream, without touching a model's code.

What autocast does, at a fraction of its overhead per call: linear weights and experts stay bfloat16 and round
their own input, and the stream between layers is float32, because the embedding widens it at the start. Small
layers that take one type only (layer norms, routers) compute in float32, with their weights widened for the call.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def widen_stream(model: nn.Module) -> None:
    """Hook a bfloat16 model so that what flows between its layers is float32."""
    model.get_input_embeddings().register_forward_hook(_widen)  # type: ignore[operator]
    for module in model.modules():
        own = max((weight.ndim for weight in module.parameters(recurse=False)), default=0)
        if isinstance(module, nn.Linear) or own == 3:  # a third dimension counts experts
            module.register_forward_pre_hook(_narrow)
        elif isinstance(module, nn.LayerNorm) or (own == 2 and not isinstance(module, nn.Embedding)):
            module.forward = partial(_forward, module)


def _widen(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output.float()


def _narrow(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].to(torch.bfloat16), *inputs[1:])


class _Wide:
    """A module to look at, its own weights float32."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        return value.float() if isinstance(value, nn.Parameter) else value


def _forward(module: Any, *inputs: Any, **named: Any) -> Any:
    """The class's own forward pass, on widened weights."""
    return type(module).forward(_Wide(module), *inputs, **named)
