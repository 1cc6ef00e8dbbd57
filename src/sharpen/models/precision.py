"""bfloat16 matrix products inside a float32 residual stream, without touching a model's code.

What autocast does, at a fraction of its overhead per call: linear weights stay bfloat16, each linear layer
rounds its own input, and the stream between layers is float32, because the embedding widens it at the start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def widen_stream(model: nn.Module) -> None:
    """Hook a bfloat16 model so that what flows between its layers is float32."""
    model.get_input_embeddings().register_forward_hook(_widen)  # type: ignore[operator]
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(_narrow)


def _widen(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output.float()


def _narrow(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].to(torch.bfloat16), *inputs[1:])
