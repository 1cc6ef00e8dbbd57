"""A recipe: a model, stages, and the evals that say what they were worth."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sharpen.config.adapters import Adapter, Continue, Full, Inherit, Lora, LowRank, QLora
from sharpen.config.base import Config
from sharpen.config.data import HeldOutData
from sharpen.config.envs import Env, check_reward
from sharpen.config.graders import Grader
from sharpen.config.response_format import ResponseFormat, check_env
from sharpen.config.stages import AnyStage, Count, Name, check_free, check_thinking_budget

BASE = "base"
"""How stages and evals call the recipe's model."""


class Eval(Config):
    """Held-out problems, answered by the base model and after every stage."""

    name: Name
    """Names the eval's folder."""

    data: HeldOutData
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
    """Run in this order, each on the model of the one before unless its `from` names another."""

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
        if BASE in [stage.name for stage in self.stages]:
            raise ValueError("no stage may be named 'base': that is the model it starts from")
        return self

    @model_validator(mode="after")
    def _starts_are_there(self) -> Self:
        for index, stage in enumerate(self.stages):
            if stage.from_ is None or stage.from_ == BASE or self.elsewhere(index):
                continue
            before = self.parent(index)
            if before is None:
                raise ValueError(f"stage {stage.name!r} cannot start `from: {stage.from_}`: {self._instead(index)}")
            if not self.stages[before].makes_policy:
                kind = self.stages[before].type
                raise ValueError(
                    f"stage {stage.name!r} cannot start `from: {stage.from_}`: a {kind} stage makes scores, not text"
                )
        return self

    def _instead(self, index: int) -> str:
        """Why the name in a stage's `from` will not do, and what would."""
        named, own = self.stages[index].from_ or "", self.stages[index].name
        if named == own:
            return "that is the stage itself; leave `from` out to start from what is before it"
        if named in [stage.name for stage in self.stages]:
            return f"that stage comes after it; put {named!r} before {own!r}"
        known = [BASE, *(stage.name for stage in self.stages[:index])]
        close = get_close_matches(named, known, n=1)
        near = f"did you mean `{close[0]}`?" if close else f"the names are {', '.join(known)}."
        return f"no stage before it has this name; {near} A path has a `/` in it, such as `./{named}`"

    @model_validator(mode="after")
    def _what_adapters_lie_on_is_there(self) -> Self:
        for index, stage in enumerate(self.stages):
            trained = self.trains(index)
            if isinstance(trained, Continue):
                does, remedy = "continues an adapter", "write `type: lora`"
            elif isinstance(trained, LowRank) and trained.stack:
                does, remedy = "stacks its adapter on another (`stack: true`)", "leave `stack` out"
            else:
                continue
            parent = self.parent(index)
            if parent is None:
                self._check_first(index, does, remedy)
                continue
            before = self.stages[parent].name
            if isinstance(self.trains(parent), Full):
                raise ValueError(
                    f"stage {stage.name!r} {does}, but {before!r} before it trains all weights; "
                    f"{remedy}, or give that stage an adapter"
                )
            if isinstance(trained, LowRank):
                self._check_stack(stage.name, trained, parent)
        return self

    def _check_first(self, index: int, does: str, remedy: str) -> None:
        """Raise ValueError where the adapter of a stage that starts from no other of the recipe needs one below."""
        stage = self.stages[index]
        if stage.from_ is None or stage.from_ == BASE:
            why = "no stage comes before it" if stage.from_ is None else "it starts from the recipe's model"
            raise ValueError(f"stage {stage.name!r} {does}, but {why}; {remedy}")
        if not isinstance(self.trains(index), Continue):
            raise ValueError(
                f"stage {stage.name!r} {does}, and an adapter of an earlier run can only be continued or merged; "
                f"{remedy}, or `adapter: continue`"
            )

    def _check_stack(self, name: str, top: Lora | QLora, below: int) -> None:
        before = self.stages[below].name
        made = self.trains(self.made(below))
        if isinstance(made, Continue):
            raise ValueError(
                f"stage {name!r} stacks its adapter on that of {before!r}, which an earlier run began; "
                "leave `stack` out, or write `adapter: continue`"
            )
        base = self.maker(self.bottom(below))
        if self.maker(below).dora:
            raise ValueError(
                f"stage {name!r} stacks its adapter on that of {before!r}, a DoRA, which scales the rows of the "
                "weights; leave `stack` out, or write `adapter: continue`"
            )
        same = isinstance(base, QLora) and base.how() == top.how() if isinstance(top, QLora) else True
        if not same:
            held = base.how() if isinstance(base, QLora) else "not in 4 bits"
            raise ValueError(
                f"stage {name!r} stacks a qlora on the base of {before!r}, which stays as it is: {held}; write "
                "`type: lora` to keep it so, or leave `stack` out to quantise the merged weights"
            )

    def trains(self, index: int) -> Lora | QLora | Continue | Full:
        """What the stage at `index` trains."""
        own = self.stages[index].adapter
        return self.adapter if isinstance(own, Inherit) else own

    def parent(self, index: int) -> int | None:
        """The stage that the one at `index` starts from; None: the recipe's model, or one from elsewhere."""
        named = self.stages[index].from_
        before = range(index - 1, -1, -1)
        if named is None:
            return next((other for other in before if self.stages[other].makes_policy), None)
        return next((other for other in before if self.stages[other].name == named), None)

    def elsewhere(self, index: int) -> str | None:
        """The path of the run or model from outside of this recipe that the stage at `index` starts from, if any."""
        named = self.stages[index].from_
        return named if named and "/" in named else None

    def descends(self, index: int, other: int) -> bool:
        """Whether the model of the stage at `index` was made from that of the stage at `other`."""
        before = self.parent(index)
        return before is not None and (before == other or self.descends(before, other))

    def made(self, index: int) -> int:
        """The stage that made the adapter which the stage at `index` trains, or that continues it first, where an
        earlier run made it."""
        before = self.parent(index) if isinstance(self.trains(index), Continue) else None
        return index if before is None else self.made(before)

    def maker(self, index: int) -> Lora | QLora:
        """The settings with which that stage made it."""
        found = self.trains(self.made(index))
        assert isinstance(found, Lora | QLora)
        return found

    def bottom(self, index: int) -> int:
        """The stage that made the lowest of the adapters which lie under the one that the stage at `index` trains; that
        stage's start is the base of them all."""
        made = self.made(index)
        before, trained = self.parent(made), self.trains(made)
        if before is None or isinstance(trained, Continue | Full) or not trained.stack:
            return made
        return self.bottom(before)
