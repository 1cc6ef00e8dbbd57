"""The optimiser and its schedule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sharpen.config.base import Config


class Optim(Config):
    """AdamW with warm-up, a schedule and gradient clipping."""

    type: Literal["adamw", "adamw_8bit"] = "adamw"
    """`adamw_8bit` keeps the moments in 8 bits (arXiv:2110.02861), a quarter of their memory; needs bitsandbytes."""

    lr: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate."""

    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls after the warm-up; linear and cosine end at 0."""

    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps over which the learning rate rises from 0."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's decoupled decay."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's first-moment decay."""

    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """AdamW's second-moment decay."""

    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this global norm."""
