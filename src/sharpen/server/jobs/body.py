"""What a client may ask for in `POST /v1/fine_tuning/jobs`: the shapes and ranges of OpenAI's API."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Auto = Literal["auto"]


def _within(low: float, high: float, *, whole: bool = False, above: bool = False) -> BeforeValidator:
    """A number from `low` (or, with `above`, above it) to `high`, or "auto"; told in one sentence."""
    kind = "a whole number" if whole else "a number"
    bounds = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"

    def check(value: object) -> object:
        if value is None or value == "auto":
            return value
        try:
            number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        good = low < number <= high if above else low <= number <= high
        if not good or (whole and number != int(number)):
            raise ValueError(f'should be {kind} {bounds}, or "auto"')
        return int(number) if whole else number

    return BeforeValidator(check)


BatchSize = Annotated[int | Auto, _within(1, 256, whole=True)]
Epochs = Annotated[int | Auto, _within(1, 50, whole=True)]
Multiplier = Annotated[float | Auto, _within(0, 1e6, above=True)]
Beta = Annotated[float | Auto, _within(0, 2, above=True)]
Compute = Annotated[float | Auto, _within(1e-5, 10, above=True)]
Count = Annotated[int | Auto, _within(1, 1e6, whole=True)]
Effort = Literal["default", "low", "medium", "high"]
Method = Literal["supervised", "dpo", "reinforcement"]


def printable(value: str) -> str:
    """The text. Raises ValueError for NUL, which PostgreSQL does not keep."""
    if "\0" in value:
        raise ValueError("has a NUL character in it")
    return value


Text = Annotated[str, AfterValidator(printable)]
Text64 = Annotated[Text, Field(max_length=64)]
Text128 = Annotated[Text, Field(max_length=128)]
Text512 = Annotated[Text, Field(max_length=512)]


class Strict(BaseModel):
    """A body in which an unknown parameter is a fault."""

    model_config = ConfigDict(extra="forbid")


class Hyperparameters(Strict):
    """Those that all methods have."""

    batch_size: BatchSize | None = None
    learning_rate_multiplier: Multiplier | None = None
    n_epochs: Epochs | None = None


class DPOHyperparameters(Hyperparameters):
    """Of preferences."""

    beta: Beta | None = None


class ReinforcementHyperparameters(Hyperparameters):
    """Of reinforcement."""

    compute_multiplier: Compute | None = None
    eval_interval: Count | None = None
    eval_samples: Count | None = None
    reasoning_effort: Effort | None = None


class Supervised(Strict):
    """`method.supervised`."""

    hyperparameters: Hyperparameters | None = None


class DPO(Strict):
    """`method.dpo`."""

    hyperparameters: DPOHyperparameters | None = None


class Reinforcement(Strict):
    """`method.reinforcement`; the grader and the form are checked where they are translated."""

    grader: dict[str, Any]
    hyperparameters: ReinforcementHyperparameters | None = None
    response_format: dict[str, Any] | None = None


class MethodBody(Strict):
    """`method`."""

    type: Method
    supervised: Supervised | None = None
    dpo: DPO | None = None
    reinforcement: Reinforcement | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        others = [name for name in ("supervised", "dpo", "reinforcement") if name != self.type and getattr(self, name)]
        if others:
            raise ValueError(f"`method.type` is {self.type}, so `method.{others[0]}` has no place here")
        if self.type == "reinforcement" and self.reinforcement is None:
            raise ValueError("`method.reinforcement` is missing: it names the grader")
        return self


class WandB(Strict):
    """Where Weights & Biases is told."""

    project: Annotated[Text128, Field(min_length=1)]
    name: Text128 | None = None
    entity: Text128 | None = None
    tags: Annotated[list[Text64], Field(max_length=64)] | None = None


class Integration(Strict):
    """One integration."""

    type: Literal["wandb"]
    wandb: WandB


def _is_plain(value: str | None) -> str | None:
    """A suffix stands in a model's name, whose parts are separated by colons."""
    if value and not all(letter.isalnum() or letter in "-_." for letter in value):
        raise ValueError("has letters, digits, and the signs - _ . only, as it stands in the name of the model")
    return value or None


def _is_short(value: dict[str, str] | None) -> dict[str, str] | None:
    if value and len(value) > 16:
        raise ValueError(f"has at most 16 pairs (got {len(value)})")
    return value


Metadata = Annotated[dict[Text64, Text512], AfterValidator(_is_short)]


class JobBody(Strict):
    """The whole body."""

    model: Annotated[Text, Field(min_length=1, max_length=256)]
    training_file: Annotated[Text64, Field(min_length=1)]
    validation_file: Text64 | None = None
    suffix: Annotated[str, Field(max_length=64), AfterValidator(_is_plain)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Integration], Field(max_length=1)] | None = None
    hyperparameters: Hyperparameters | None = None
    method: MethodBody | None = None
    training_type: Text64 | None = Field(None, alias="trainingType")
    """Azure's tier, without a meaning here."""

    @property
    def kind(self) -> Method:
        """The method; supervised where none is named."""
        return self.method.type if self.method else "supervised"

    @property
    def reinforcement(self) -> Reinforcement | None:
        """What a reinforcement job has besides."""
        return self.method.reinforcement if self.method else None

    def asked(self) -> dict[str, Any]:
        """The hyperparameters that are named, also as "auto"; `method` goes before OpenAI's old place of them."""
        own = getattr(self.method, self.kind) if self.method else None
        given = [self.hyperparameters, own.hyperparameters if own else None]
        return {name: value for one in given if one for name, value in one.model_dump(exclude_none=True).items()}
