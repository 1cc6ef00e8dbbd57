"""Graders of other libraries and services, as they are written there: TRL, verifiers, reward models, Amazon Bedrock."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sharpen.config.base import Config
from sharpen.config.graders.base import Place, SingleGrader, Template
from sharpen.config.graders.remote import Remote


class Batched(SingleGrader):
    """A grader of the operator's own that is called with many attempts at once."""

    place: ClassVar[Place] = "process"

    max_batch: Annotated[int, Field(ge=1)] | None = None
    """The most attempts that one call sees; when not given, all of a step or an evaluation."""

    time_limit: Annotated[float, Field(gt=0)] = 120.0
    """Seconds one call may take before its worker is killed."""


class TRL(Batched):
    """TRL's reward function, `fn(prompts, completions, **columns) -> list[float | None]`, plain or async."""

    type: Literal["trl"] = "trl"
    runtime: ClassVar[str] = "sharpen.graders.trl:TRLGrader"

    use: str
    """`package.module:function`. It is trusted code: it runs with the operator's rights, in no sandbox."""

    conversational: bool = True
    """Prompts and completions are lists of messages, else texts: what TRL calls conversational and standard."""


class RubricFunction(Config):
    """One of a rubric's functions."""

    use: str
    """`package.module:function`. It is trusted code: it runs with the operator's rights, in no sandbox."""

    weight: float = 1.0
    """What its value counts in the score; 0: it is only reported."""


class Rubric(SingleGrader):
    """A rubric as verifiers has it: the weighted sum of functions, each handed what its signature names."""

    type: Literal["rubric"] = "rubric"
    runtime: ClassVar[str] = "sharpen.graders.rubric:RubricGrader"
    place: ClassVar[Place] = "process"

    functions: Annotated[tuple[RubricFunction, ...], Field(min_length=1)]
    """They are called in this order, and may share things in `state`."""

    parser: str = ""
    """`package.module:object` that functions are handed as `parser`, or a class of such objects. Without one, an
    answer is the last assistant turn's text."""


class RewardModel(SingleGrader):
    """A sequence classifier that reads prompt and completion; its score is the logit, or a label's probability."""

    type: Literal["reward_model"] = "reward_model"
    runtime: ClassVar[str] = "sharpen.graders.reward_model:RewardModelGrader"
    place: ClassVar[Place] = "here"

    model: str
    """A folder, relative to the recipe's, or a hub id `org/name[@revision]`. It computes here, in float32."""

    input: Literal["auto", "chat", "text"] = "auto"
    """`chat`: prompt and completion in the model's own chat template; `text`: what `text` says; `auto`: the first where
    the model has a template."""

    text: Template = "{{ sample.output_text }}"
    """What is read as text. The prompt's text is `{{ item.prompt }}` where the row has no such field of its own."""

    pair: Template = ""
    """A second text, for models that read two, such as question and answer."""

    label: Annotated[int, Field(ge=0)] | None = None
    """The score is this label's probability; needed for models of several labels."""

    transform: Literal["none", "sigmoid"] = "none"
    """What is done to the logit of a model of one label."""

    batch_size: Annotated[int, Field(ge=1)] = 8
    """Texts that are computed together."""

    time_limit: Annotated[float, Field(gt=0)] = 600.0
    """Seconds for all texts of a step or an evaluation; those not begun by then have no score."""

    max_length: Annotated[int, Field(ge=1)] | None = None
    """The most tokens of a text; when not given, what the model can read."""

    truncation: Literal["none", "left", "right"] = "none"
    """On which side longer texts lose tokens; `none`: they have no score, which is a grader's fault."""

    def placed(self, base: Path) -> Self:
        """The same with an absolute path, where the model is a folder."""
        local = base / Path(self.model).expanduser()
        return self.model_copy(update={"model": str(local.resolve())}) if local.is_dir() else self

    @model_validator(mode="after")
    def _is_one_number(self) -> Self:
        if self.label is not None and self.transform != "none":
            raise ValueError("a label's probability needs no transform; leave out `label` or `transform`")
        return self


class BatchEndpoint(Remote, Batched):
    """Amazon Bedrock's reward function: a list of conversations in, a list of scores out."""

    type: Literal["batch_endpoint"] = "batch_endpoint"
    runtime: ClassVar[str] = "sharpen.graders.batch_endpoint:build"

    file: str = ""
    """A Python file with an AWS Lambda handler, relative to the recipe's folder. It is trusted code: it runs here with
    the operator's rights, in no sandbox."""

    handler: str = "lambda_handler"
    """The function in `file`, called with `(event, context)`."""

    url: str = ""
    """A server, in place of `file`, that is posted the same list as JSON."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Sent to the server; `${NAME}` is the environment's variable, so that no secret stands in a recipe."""

    time_limit: Annotated[float, Field(gt=0)] = 120.0
    """Seconds for one call; a server's include waits and retries."""

    @property
    def place(self) -> Place:  # type: ignore[override]
        """Where it runs: a server is asked from here."""
        return "here" if self.url else "process"

    @property
    def leaves(self) -> bool:
        """Whether rows leave this machine."""
        return bool(self.url) and super().leaves

    def address(self) -> str:
        return self.url

    def fields(self) -> list[str]:
        return ["item", "messages"]

    def placed(self, base: Path) -> Self:
        """The same with an absolute path of the file."""
        path = str((base / Path(self.file).expanduser()).resolve()) if self.file else ""
        return self.model_copy(update={"file": path})

    @model_validator(mode="after")
    def _may_go_there(self) -> Self:
        if bool(self.file) == bool(self.url):
            raise ValueError("give `file`, a Lambda function's, or `url`, a server's, and not both")
        return super()._may_go_there() if self.url else self  # type: ignore[operator]
