"""The GRPO family, as presets: what `docs/architecture.md` pins."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from sharpen.config.base import Config

PRESETS: dict[str, dict[str, Any]] = {
    "grpo": {"clip_low": 0.2, "clip_high": 0.2, "normalizer": "sequence", "overlong_buffer": 0.0},
    "dapo": {"clip_low": 0.2, "clip_high": 0.28, "normalizer": "token", "overlong_buffer": 0.2},
}


class Algorithm(Config):
    """How grades become a loss. A preset fills what is not given."""

    # What a preset gives is not required.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("required"))

    preset: Literal["grpo", "dapo"] = "dapo"
    """`grpo` (arXiv:2402.03300) or `dapo` (arXiv:2503.14476)."""

    clip_low: Annotated[float, Field(gt=0, lt=1)]
    """The ratio is clipped below at 1 - clip_low."""

    clip_high: Annotated[float, Field(gt=0)]
    """The ratio is clipped above at 1 + clip_high."""

    normalizer: Literal["sequence", "token"]
    """`sequence`: mean per sequence, then over sequences; `token`: mean over all tokens."""

    overlong_buffer: Annotated[float, Field(ge=0, le=1)]
    """DAPO's soft length penalty: over the last such share of max_tokens the reward falls by up to 1."""

    mismatch_cap: Annotated[float, Field(gt=0)] = 2.0
    """Cap of the weight pi_old / pi_rollout that corrects sampler against trainer."""

    num_iterations: Annotated[int, Field(ge=1)] = 1
    """Optimiser steps on each batch of rollouts (TRL's name)."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        preset = PRESETS.get(str(values.get("preset", "dapo")), PRESETS["dapo"])
        return {**preset, **values}
