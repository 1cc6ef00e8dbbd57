"""The stages a recipe can chain."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from sharpen.config.adapters import Inherit, StageAdapter
from sharpen.config.algorithms import Algorithm
from sharpen.config.base import Config
from sharpen.config.data import Data, HeldOutData, Replay
from sharpen.config.envs import Env, check_reward
from sharpen.config.graders import Grader
from sharpen.config.optim import Optim
from sharpen.config.preferences import AnyPreferenceLoss, Sigmoid
from sharpen.config.response_format import ResponseFormat, check_env

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A name that is also a folder's."""

Count = Annotated[int, Field(ge=1)]


def check_thinking_budget(budget: int | None, max_tokens: int) -> None:
    """Raise ValueError for a budget that leaves no token for the answer."""
    if budget is not None and budget >= max_tokens:
        raise ValueError(f"thinking_budget is {budget}, and max_tokens {max_tokens}: that leaves no token to answer in")


def check_free(budget: int | None, form: ResponseFormat | None) -> None:
    """Raise ValueError for a thinking budget where completions are held to a form from their first token on."""
    if budget is not None and form is not None:
        raise ValueError("response_format holds a completion from its first token on, so it has no thoughts to bound")


class Sampling(Config):
    """How completions are drawn in training.

    Cuts apply in the order temperature, top_k, top_p, min_p; what is left is renormalised, and the trainer computes
    its probabilities on the same tokens (carried along at 4 bytes for each token that could have been drawn).
    """

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Logits are divided by it, in sampler and trainer alike."""

    max_tokens: Count = 128
    """The longest completion, in tokens; in an environment, all of the model's turns together."""

    top_k: Annotated[int, Field(ge=2)] | None = None
    """Draw from the so many likeliest tokens only."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the smallest set of likeliest tokens whose probability, after top_k, is at least this; 1: from all."""

    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Draw only tokens at least this share as probable as the likeliest; 0: all."""

    thinking_budget: Count | None = None
    """A reasoning model's thoughts are closed after so many tokens, and the answer follows within what is left of
    max_tokens; in an environment, the thoughts of each turn. None: no limit of their own."""

    @model_validator(mode="after")
    def _leaves_room_for_an_answer(self) -> Self:
        check_thinking_budget(self.thinking_budget, self.max_tokens)
        return self


class EarlyStopping(Config):
    """When a stage ends before its last step."""

    patience: Count = 3
    """So many looks at the validation rows running without improvement end the stage."""

    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """An improvement is more than this: in reward for rft, in loss for the others."""


class Probe(Config):
    """A trial at the entry of an RFT stage: what the stage's model gets on its prompts, before anything is trained."""

    prompts: Count = 16
    """Prompts tried, with `group_size` completions each. Where no group is found that could teach, as many more as it
    takes to be sure."""

    min_learnable: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """The stage is refused where, with 97.5 % confidence, a smaller share of groups than this has different rewards."""

    force: bool = False
    """Train all the same."""


class Stage(Config):
    """What every training stage has."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)  # `from` is a keyword of Python's

    makes_policy: ClassVar[bool] = True
    """Whether its model writes text, so that stages start from it and evals ask it."""

    name: Name
    """Names the stage's folder and model."""

    from_: Annotated[str, Field(min_length=1)] | None = Field(default=None, alias="from")
    """What the stage starts from: the name of a stage before it, `base` for the recipe's model, or, with a `/` in it,
    the path of an earlier run (its last model) or of a model's folder. null: the nearest stage before it whose model
    writes text, else the recipe's model. In Python `from_`."""

    data: Data
    """The training rows."""

    validation: HeldOutData | None = None
    """Held-out rows watched during training, every `eval_every` steps."""

    adapter: StageAdapter = Inherit()
    """What is trained: a new adapter (`lora`), that of the stage before (`continue`), all weights (`none`)."""

    optim: Optim = Optim()
    """The optimiser."""

    eval_every: Count = 10
    """Steps between looks at the validation rows."""

    save_every: Count = 50
    """Steps between checkpoints."""

    keep_last: Count = 2
    """So many of the stage's newest checkpoints stay on disk: should the last prove damaged, the one before serves."""

    keep_every: Count | None = None
    """A checkpoint at each multiple of so many steps stays for good; null: none does."""

    early_stopping: EarlyStopping | None = None
    """End the stage when validation stops to improve; without it, all steps are done."""

    final: Literal["last", "best"] = "last"
    """Which weights become the stage's model: the last step's, or those that did best on the validation rows."""

    tokens_per_microbatch: Count = 1024
    """Token budget of one forward and backward pass; gradients accumulate over microbatches."""

    @model_validator(mode="after")
    def _judged_by_validation(self) -> Self:
        wanted = "early_stopping" if self.early_stopping else "final: best" if self.final == "best" else ""
        if wanted and self.validation is None:
            raise ValueError(f"`{wanted}` needs `validation`: rows to judge by that are not trained on")
        return self


class SFT(Stage):
    """Supervised fine-tuning: cross-entropy on the assistant's turns."""

    type: Literal["sft"] = "sft"

    name: Name = "sft"
    """Names the stage's folder and model."""

    replay: Replay | None = None
    """General rows trained on besides the stage's own, against forgetting; null: none."""

    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the rows. Replayed rows do not count: the share s of them makes a stage 1/(1 - s) as long."""

    batch_size: Count = 16
    """Rows per optimiser step."""

    max_length: Count = 2048
    """The longest row in tokens; a longer one is an error, not cut."""


class DPO(Stage):
    """Preference optimisation: the better of two answers made likelier than the worse (DPO and its family)."""

    type: Literal["dpo"] = "dpo"

    name: Name = "dpo"
    """Names the stage's folder and model."""

    loss: AnyPreferenceLoss = Sigmoid()
    """How preferences become a loss."""

    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the rows."""

    batch_size: Count = 16
    """Rows per optimiser step: pairs, or for `kto` answers."""

    max_length: Count = 2048
    """The longest prompt and answer in tokens; a longer one is an error, not cut."""

    @model_validator(mode="after")
    def _answers_to_other_prompts(self) -> Self:
        if not self.loss.paired and self.batch_size < 2:
            raise ValueError("kto compares the answers of a step with answers to its other prompts: batch_size is 1")
        return self


class RewardModeling(Stage):
    """A reward model: of two answers the better gets the higher score (Bradley-Terry). Graders of type `reward_model`
    take it; stages after this one start from the policy that it started from."""

    makes_policy: ClassVar[bool] = False

    type: Literal["reward_model"] = "reward_model"

    name: Name = "reward_model"
    """Names the stage's folder and model."""

    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the rows."""

    batch_size: Count = 16
    """Pairs per optimiser step."""

    max_length: Count = 2048
    """The longest prompt and answer in tokens; a longer one is an error, not cut."""

    center_rewards_coefficient: Annotated[float, Field(gt=0)] | None = None
    """Adds so many times the square of the sum of a pair's scores, which keeps them around 0 (arXiv:2312.09244; 0.01
    does); null: only their difference counts."""


class RFT(Stage):
    """Reinforcement fine-tuning: sample groups, grade, compare, learn."""

    type: Literal["rft"] = "rft"

    name: Name = "rft"
    """Names the stage's folder and model."""

    grader: Grader | None = None
    """What scores the completions. May be left out only where an environment gives the reward."""

    env: Env | None = None
    """What answers the model's turns; without one, an attempt is a single answer."""

    algorithm: Algorithm = Algorithm.model_validate({})
    """How scores become a loss."""

    prompts_per_step: Count = 16
    """Prompts per step."""

    group_size: Annotated[int, Field(ge=2)] = 8
    """Completions per prompt."""

    steps: Count = 60
    """Rounds of sampling."""

    sampling: Sampling = Sampling()
    """How completions are drawn."""

    response_format: ResponseFormat | None = None
    """The form that completions are held to, also those of `validation`; none: any text."""

    probe: Probe | None = Probe()
    """The trial before the first step; null: none."""

    max_fault_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of a step's grades that may be grader faults before the run pauses."""

    max_fault_steps: Count = 3
    """Steps running with any grader fault after which the run pauses."""

    @model_validator(mode="after")
    def _something_rewards(self) -> Self:
        check_reward(self.grader, self.env)
        check_env(self.response_format, self.env)
        check_free(self.sampling.thinking_budget, self.response_format)
        if self.env and self.algorithm.max_lag:
            raise ValueError("an environment's episodes cannot wait for a later step; set algorithm.max_lag: 0")
        return self


AnyStage = Annotated[SFT | DPO | RewardModeling | RFT, Field(discriminator="type")]
