"""What of a model is trained: all of its weights, or a low-rank adapter beside them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from sharpen.config.base import Config


def _preset_or_names(value: Any) -> Any:
    names = isinstance(value, list | tuple) and value and all(isinstance(name, str) and name for name in value)
    if names or value in get_args(Preset):
        return value
    raise ValueError(f"should be {', '.join(get_args(Preset))}, or a list of layers' names; got {value!r}")


Preset = Literal["all-linear", "attention"]
Targets = Annotated[Preset | tuple[str, ...], BeforeValidator(_preset_or_names)]


class Lora(Config):
    """A new low-rank adapter (arXiv:2106.09685). One that the stage before trained is merged into the weights first."""

    type: Literal["lora"] = "lora"

    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of the update; more rank, more to learn with."""

    alpha: Annotated[int, Field(ge=1)] = 32
    """The update is scaled by alpha / rank, with `rslora` by alpha / sqrt(rank)."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs set to 0 in training; never in sampling, scoring and evaluation."""

    dora: bool = False
    """Train the length of each row of the weights besides the update of their direction (DoRA, arXiv:2402.09353)."""

    rslora: bool = False
    """Scale by alpha / sqrt(rank), so that high ranks learn as fast as low ones (rsLoRA, arXiv:2312.03732)."""

    targets: Targets = "all-linear"
    """Layers that get an adapter: `all-linear` (all but the head), `attention`, or names such as [q_proj, v_proj]."""


class Continue(Config):
    """Go on training the adapter of the stage before, with the settings it was made with."""

    type: Literal["continue"] = "continue"


class Full(Config):
    """No adapter: all weights are trained. One that the stage before trained is merged into them first."""

    type: Literal["none"] = "none"


class Inherit(Config):
    """What the recipe's `adapter` says."""

    type: Literal["recipe"] = "recipe"


def _spelled_out(value: Any) -> Any:
    """`continue` for {type: continue}, and null for {type: none}."""
    if value is None:
        return {"type": "none"}
    return {"type": value} if isinstance(value, str) else value


Adapter = Annotated[
    Lora | Full,
    Field(discriminator="type"),
    BeforeValidator(_spelled_out, json_schema_input_type=Lora | Full | Literal["lora", "none"] | None),
]
"""What a recipe's stages train unless they say otherwise."""

StageAdapter = Annotated[
    Lora | Continue | Full | Inherit,
    Field(discriminator="type"),
    BeforeValidator(
        _spelled_out,
        json_schema_input_type=Lora | Continue | Full | Inherit | Literal["lora", "continue", "none", "recipe"] | None,
    ),
]
"""What one stage trains."""
