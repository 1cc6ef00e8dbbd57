"""What of a model is trained: all of its weights, or a low-rank adapter beside them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from sharpen.config.base import Config


def _preset_or_names(value: Any) -> Any:
    names = isinstance(value, list | tuple) and value and all(isinstance(name, str) and name for name in value)
    if names or value in get_args(Preset):
        return value
    raise ValueError(f"should be {', '.join(get_args(Preset))}, or a list of layers' names; got {value!r}")


Preset = Literal["all-linear", "attention"]
Targets = Annotated[Preset | tuple[str, ...], BeforeValidator(_preset_or_names)]


class LowRank(Config):
    """What new adapters share (LoRA, arXiv:2106.09685)."""

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

    stack: bool = False
    """Leave the adapter that the stage before trained as it is, frozen and active, and train the new one on top of it;
    without, it is merged into the weights first."""

    @model_validator(mode="after")
    def _only_adds(self) -> Self:
        if self.dora and self.stack:
            raise ValueError(
                "DoRA scales the rows of the weights it lies on, so it cannot be stacked on an adapter; "
                "leave `stack` out, or write `adapter: continue`"
            )
        return self


class Lora(LowRank):
    """A new low-rank adapter on weights as they are."""

    type: Literal["lora"] = "lora"


class QLora(LowRank):
    """A new low-rank adapter on frozen weights held in 4 bits (QLoRA, arXiv:2305.14314); needs bitsandbytes."""

    type: Literal["qlora"] = "qlora"

    quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 16 values of a number: quantiles of a normal distribution (`nf4`), or floating point (`fp4`)."""

    double_quant: bool = True
    """Hold the scale of each 64 numbers in 8 bits, not 32."""

    def how(self) -> str:
        """`nf4, scales in 8 bits`."""
        return f"{self.quant_type}, scales in {8 if self.double_quant else 32} bits"


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
    """`continue` for {type: continue}, `dora` and `qdora` for those with `dora: true`, and null for {type: none}."""
    if value is None:
        return {"type": "none"}
    if value in ("dora", "qdora"):
        return {"type": value.replace("dora", "lora"), "dora": True}
    return {"type": value} if isinstance(value, str) else value


Short = Literal["lora", "dora", "qlora", "qdora", "none"]

Adapter = Annotated[
    Lora | QLora | Full,
    Field(discriminator="type"),
    BeforeValidator(_spelled_out, json_schema_input_type=Lora | QLora | Full | Short | None),
]
"""What a recipe's stages train unless they say otherwise."""

StageAdapter = Annotated[
    Lora | QLora | Continue | Full | Inherit,
    Field(discriminator="type"),
    BeforeValidator(
        _spelled_out,
        json_schema_input_type=Lora | QLora | Continue | Full | Inherit | Short | Literal["continue", "recipe"] | None,
    ),
]
"""What one stage trains."""
