"""The optimisers: AdamW, with moments in float32 or in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.config.optim import Optim
from sharpen.errors import ConfigError
from sharpen.models.quiet import quiet


def build(config: Optim, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """The optimiser that a recipe names. Raises ConfigError when what it needs is not installed."""
    settings: dict[str, Any] = {
        "lr": config.peak,
        "betas": (config.beta1, config.beta2),
        "weight_decay": config.weight_decay,
    }
    if config.type == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **settings)
    try:
        with quiet():
            from bitsandbytes.optim.adamw import AdamW8bit  # 120 MB that most do without
    except ImportError as error:
        raise ConfigError(
            "the 8-bit optimiser needs bitsandbytes 0.50 or newer, which is not installed",
            path="optim.type",
            value=config.type,
            remedy="Install it (pip install 'sharpen[8bit]'), or choose adamw",
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit(parameters, **settings)
    return optimizer


def state_of(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """One parameter's moments and step, all as tensors; empty before its first step."""
    return {name: torch.as_tensor(value) for name, value in optimizer.state.get(parameter, {}).items()}


def restore(optimizer: torch.optim.Optimizer, parameter: Tensor, state: dict[str, Tensor]) -> None:
    """Set what `state_of` gave."""
    counts_in_int = "state1" in state  # bitsandbytes
    optimizer.state[parameter] = {**state, "step": int(state["step"])} if counts_in_int else state
