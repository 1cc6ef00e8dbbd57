"""The graders a recipe can name."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sharpen.config.base import Buildable

Template = str
"""Text with `{{ item.field }}`, `{{ sample.output_text }}`; paths may be nested and indexed."""


class GraderConfig(Buildable):
    """What every grader has."""

    name: str = ""
    """The name under which scores are reported; the type's name when empty."""

    time_limit: Annotated[float, Field(gt=0)] = 10.0
    """Seconds one grade may take before its worker is killed."""

    trusted: ClassVar[bool] = True
    """Our own code: a crash or time-out is the completion's fault. Otherwise it is the grader's."""


class StringCheck(GraderConfig):
    """OpenAI's `string_check`: 1 when the comparison holds, else 0."""

    type: Literal["string_check"] = "string_check"
    runtime: ClassVar[str] = "sharpen.graders.string_check:StringCheckGrader"

    input: Template = "{{ sample.output_text }}"
    """What is checked."""

    reference: Template = "{{ item.answer }}"
    """What it is compared with."""

    operation: Literal["eq", "ne", "like", "ilike"] = "eq"
    """`eq`, `ne`: (not) equal; `like`, `ilike`: contains the reference, with or without case."""


class MathAnswer(GraderConfig):
    r"""1 when the last number, formula or \boxed{...} is mathematically equal to the reference."""

    type: Literal["math"] = "math"
    runtime: ClassVar[str] = "sharpen.graders.math:MathGrader"

    reference: Template = "{{ item.answer }}"
    """Where the expected answer stands in the example."""


class ReasoningGymScore(GraderConfig):
    """The verifier of the example's own reasoning-gym generator, strict: 1 for full marks, else 0."""

    type: Literal["reasoning_gym"] = "reasoning_gym"
    runtime: ClassVar[str] = "sharpen.graders.reasoning_gym:ReasoningGymGrader"

    pattern: str = ""
    r"""Regular expression that the whole completion must match, such as `-?\d+`; its first group,
    if it has one, is the answer. Empty: the whole completion is the answer."""


class Plugin(GraderConfig):
    """The operator's own Python function, `fn(sample: dict, item: dict) -> float | dict`."""

    type: Literal["plugin"] = "plugin"
    runtime: ClassVar[str] = "sharpen.graders.plugin:PluginGrader"
    trusted: ClassVar[bool] = False

    use: str
    """`package.module:function`. It is trusted code: it runs with the operator's rights."""


Grader = Annotated[StringCheck | MathAnswer | ReasoningGymScore | Plugin, Field(discriminator="type")]
"""Any grader."""
