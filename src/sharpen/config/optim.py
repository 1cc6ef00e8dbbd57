"""The optimiser and its schedule."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sharpen.config.base import Config


def _rate(value: Any) -> Any:
    """Told in one sentence: a union of the two would have each of them complain."""
    try:
        good = value == "auto" or 0 < float(value) < math.inf
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"should be a number above 0, or auto (got {value!r})")
    return value


class Optim(Config):
    """AdamW with warm-up, a schedule and gradient clipping."""

    type: Literal["adamw", "adamw_8bit"] = "adamw"
    """`adamw_8bit` keeps the moments in 8 bits (arXiv:2110.02861), a quarter of their memory; needs bitsandbytes."""

    lr: Annotated[Annotated[float, Field(gt=0)] | Literal["auto"], BeforeValidator(_rate)] = "auto"
    """Peak learning rate. auto: by method, adapter and size of the model; the run prints the number and its reason."""

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

    @property
    def peak(self) -> float:
        """The peak learning rate of a stage that runs: by then `auto` has become a number."""
        assert self.lr != "auto"
        return self.lr
