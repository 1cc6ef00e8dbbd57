"""A recipe: a model, stages, and the evals that say what they were worth."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sharpen.config.adapters import Adapter, Continue, Full, Inherit, Lora
from sharpen.config.base import Config
from sharpen.config.data import Data
from sharpen.config.envs import Env, check_reward
from sharpen.config.graders import Grader
from sharpen.config.response_format import ResponseFormat, check_env
from sharpen.config.stages import AnyStage, Count, Name, check_free, check_thinking_budget


class Eval(Config):
    """Held-out problems, answered by the base model and after every stage."""

    name: Name
    """Names the eval's folder."""

    data: Data
    """Held-out rows."""

    grader: Grader | None = None
    """What scores the answers; a score of 1 or more counts as correct. May be left out only where an
    environment gives the reward."""

    env: Env | None = None
    """What answers the model's turns; without one, an attempt is a single answer."""

    max_tokens: Count = 128
    """The longest answer, in tokens; in an environment, all of the model's turns together."""

    thinking_budget: Count | None = None
    """A reasoning model's thoughts are closed after so many tokens, as in `sampling`; None: no limit of their own."""

    response_format: ResponseFormat | None = None
    """The form that answers are held to; none: any text."""

    samples: Annotated[int, Field(ge=0)] = 0
    """Besides the greedy answer, so many drawn at `temperature`, for avg@k and pass@k."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """For the drawn answers."""

    @model_validator(mode="after")
    def _something_rewards(self) -> Self:
        check_reward(self.grader, self.env)
        check_env(self.response_format, self.env)
        check_thinking_budget(self.thinking_budget, self.max_tokens)
        check_free(self.thinking_budget, self.response_format)
        return self


def _listed(value: Any) -> Any:
    """A single name is a list of one; "none" is none (TRL's habit)."""
    return ([] if value == "none" else [value]) if isinstance(value, str) else [] if value is None else value


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    """Raise ValueError for what JSON cannot say, such as a date: the model's folder keeps it as JSON."""
    try:
        json.dumps(value, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"is no JSON: {error}") from error
    return value


Trackers = Annotated[tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...], BeforeValidator(_listed)]
"""Names of experiment trackers."""


class Recipe(Config):
    """What to do, and nothing else: a run directory comes out."""

    model: str
    """Alias (`sharpen models list`), folder, or hub id `org/name[@revision]`."""

    chat_template_kwargs: Annotated[dict[str, Any], AfterValidator(_as_json)] = Field(default_factory=dict)
    """What the model's chat template is told at every rendering, such as `{enable_thinking: false}` (Qwen3). One that
    the template does not read is an error. A trained model keeps them."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Every random number is counted on it."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type; master weights are float32 always. auto: bfloat16 where the hardware has it."""

    threads: Count | None = None
    """CPU threads; when not given, OMP_NUM_THREADS, else all cores. Results repeat bit for bit at the same number."""

    adapter: Adapter = Full()
    """What stages train that do not say it themselves: an adapter, a new one in each stage, or all weights."""

    stages: tuple[AnyStage, ...] = ()
    """Run in this order, each on the model of the one before."""

    evals: tuple[Eval, ...] = ()
    """Run on the base model and after every stage."""

    report_to: Trackers = ()
    """Experiment trackers that are told every step as well, one or a list; one that fails does not harm the run."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for kind, names in (("stages", [s.name for s in self.stages]), ("evals", [e.name for e in self.evals])):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"two {kind} are named {sorted(twice)[0]!r}; give each its own name")
        if "base" in [stage.name for stage in self.stages]:
            raise ValueError("no stage may be named 'base': that is the model it starts from")
        return self

    @model_validator(mode="after")
    def _what_is_continued_is_there(self) -> Self:
        for index, stage in enumerate(self.stages):
            if not isinstance(stage.adapter, Continue):
                continue
            if index == 0:
                raise ValueError(
                    f"stage {stage.name!r} continues an adapter, but no stage comes before it; write `type: lora`"
                )
            if isinstance(self.trains(index - 1), Full):
                before = self.stages[index - 1].name
                raise ValueError(
                    f"stage {stage.name!r} continues an adapter, but {before!r} before it trains all weights; "
                    "write `type: lora`, or give that stage an adapter"
                )
        return self

    def trains(self, index: int) -> Lora | Continue | Full:
        """What the stage at `index` trains."""
        own = self.stages[index].adapter
        return self.adapter if isinstance(own, Inherit) else own
