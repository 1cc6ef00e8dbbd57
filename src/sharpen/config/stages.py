"""The stages a recipe can chain."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sharpen.config.adapters import Inherit, StageAdapter
from sharpen.config.algorithms import Algorithm
from sharpen.config.base import Config
from sharpen.config.data import Data
from sharpen.config.graders import Grader
from sharpen.config.optim import Optim

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A name that is also a folder's."""

Count = Annotated[int, Field(ge=1)]


class Sampling(Config):
    """How completions are drawn in training: from the policy's own distribution, nothing cut off."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Logits are divided by it, in sampler and trainer alike."""

    max_tokens: Count = 128
    """The longest completion, in tokens."""


class Stage(Config):
    """What every training stage has."""

    name: Name
    """Names the stage's folder and model."""

    data: Data
    """The training rows."""

    validation: Data | None = None
    """Held-out rows watched during training, every `eval_every` steps."""

    adapter: StageAdapter = Inherit()
    """What is trained: a new adapter (`lora`), that of the stage before (`continue`), all weights (`none`)."""

    optim: Optim = Optim()
    """The optimiser."""

    eval_every: Count = 10
    """Steps between looks at the validation rows."""

    save_every: Count = 50
    """Steps between checkpoints."""

    tokens_per_microbatch: Count = 2048
    """Token budget of one forward and backward pass; gradients accumulate over microbatches."""


class SFT(Stage):
    """Supervised fine-tuning: cross-entropy on the assistant's turns."""

    type: Literal["sft"] = "sft"

    name: Name = "sft"
    """Names the stage's folder and model."""

    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the rows."""

    batch_size: Count = 16
    """Rows per optimiser step."""

    max_length: Count = 2048
    """The longest row in tokens; a longer one is an error, not cut."""


class RFT(Stage):
    """Reinforcement fine-tuning: sample groups, grade, compare, learn."""

    type: Literal["rft"] = "rft"

    name: Name = "rft"
    """Names the stage's folder and model."""

    grader: Grader
    """What scores the completions."""

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

    max_fault_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of a step's grades that may be grader faults before the run pauses."""

    max_fault_steps: Count = 3
    """Steps running with any grader fault after which the run pauses."""


AnyStage = Annotated[SFT | RFT, Field(discriminator="type")]
