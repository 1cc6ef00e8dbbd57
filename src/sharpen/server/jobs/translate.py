"""A job as a recipe: the only place that makes one.

| OpenAI's | the recipe's |
|---|---|
| `supervised` | a stage `sft` that trains a LoRA adapter |
| `dpo`, `beta` | a stage `dpo`, `loss.beta` |
| `reinforcement` | a stage `rft`: the house's preset, without its penalty on length |
| `n_epochs` | `epochs`; of `rft`, `steps` = rows × n_epochs / batch_size |
| `batch_size` | `batch_size`, or the rows where they are fewer; of `rft`, `prompts_per_step` |
| `learning_rate_multiplier` | `optim.lr`: the multiple of what `lr: auto` gives for method and model |
| `compute_multiplier` | `group_size`: 8 × it, from 2 to 64 completions a prompt |
| `eval_interval` | `eval_every`, `save_every` |
| `eval_samples` | `validation.limit`: so many rows of the validation file |
| `reasoning_effort` | `sampling.max_tokens`, and of a model that thinks `sampling.thinking_budget` |
| `response_format` | `response_format` |
| `integrations` | `report_to`, and the environment |
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from sharpen.errors import ModelError
from sharpen.models.bases import BASES
from sharpen.models.folder import described
from sharpen.server.jobs.hyperparameters import Resolved, batch_of, steps_of
from sharpen.train.rate import MEASURED, auto_lr

GROUP = 8
"""Completions a prompt at `compute_multiplier` 1."""

OFTEN = 200
"""Steps after which a checkpoint is due, also within an epoch."""

KEPT = 3
"""Checkpoints that stay."""

CONTEXT = 8192
"""Tokens of a row at most, where the model's own limit is not known."""

EFFORT: dict[str, tuple[int, int]] = {
    "low": (128, 256),
    "default": (256, 1024),
    "medium": (256, 1024),
    "high": (512, 4096),
}
"""By `reasoning_effort`: tokens of an answer, and of the thoughts before it."""

STAGES: dict[str, Literal["sft", "dpo", "rft"]] = {"supervised": "sft", "dpo": "dpo", "reinforcement": "rft"}


class Model(Protocol):
    """What the translation asks of `names.Served`."""

    @property
    def path_or_alias(self) -> str:
        """What the recipe names."""
        ...

    @property
    def parameters(self) -> int | None:
        """All numbers of the model."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """What a recipe needs besides the job."""

    rows: int
    """Of the training file."""

    threads: int
    """Of the job's process."""

    grader: dict[str, Any] | None = None
    """Of a reinforcement job, as the house's configuration: `grading.translate.grader`."""


def recipe(
    job: Mapping[str, Any], training: Path, validation: Path | None, served: Model, options: Options
) -> dict[str, Any]:
    """The recipe of a job, whose `method` has its hyperparameters as numbers; `config.load.parse` takes it.

    `job` has the columns `method`, `seed` and `integrations` (`Row._mapping` will do).
    """
    kind = job["method"]["type"]
    own = job["method"][kind]
    numbers: Resolved = own["hyperparameters"]
    stage = {
        "type": STAGES[kind],
        "name": STAGES[kind],
        "data": {"path": str(training)},
        "optim": {"lr": _rate(kind, numbers["learning_rate_multiplier"], served)},
        "keep_last": KEPT,
    }
    if validation is not None:
        stage["validation"] = {"path": str(validation)}
    if kind == "reinforcement":
        stage |= _reinforcement(own, numbers, served, options, validation)
    else:
        stage |= _taught(kind, numbers, served, options.rows)
    return {
        "model": served.path_or_alias,
        "seed": job["seed"],
        "threads": options.threads,
        "adapter": {"type": "lora"},
        "stages": [stage],
        "report_to": ["wandb"] if job["integrations"] else [],
    }


def environment(job: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables that the job's integrations need; the key of Weights & Biases is the operator's."""
    found: dict[str, str] = {}
    for integration in job["integrations"] or ():
        told = integration["wandb"]
        tags = ["sharpen", job["model"], job["id"], *(told.get("tags") or ())]
        found = {
            "WANDB_PROJECT": told["project"],
            "WANDB_NAME": told.get("name") or job["id"],
            "WANDB_TAGS": ",".join(tag.replace(",", " ") for tag in tags),
        }
        if told.get("entity"):
            found["WANDB_ENTITY"] = told["entity"]
    return found


def _taught(kind: str, numbers: Resolved, served: Model, rows: int) -> dict[str, Any]:
    """What stages that learn from rows share: a checkpoint, and a look at the validation rows, at each epoch's end."""
    batch = batch_of(numbers, rows)
    epoch = max(1, math.ceil(rows / batch))
    parts = math.ceil(epoch / OFTEN)
    every = math.ceil(epoch / parts)
    stage: dict[str, Any] = {
        "epochs": numbers["n_epochs"],
        "batch_size": batch,
        "max_length": _context(served),
        "save_every": every,
        "eval_every": every,
    }
    if kind == "dpo":
        stage["loss"] = {"type": "sigmoid", "beta": numbers["beta"]}
    return stage


def _reinforcement(
    own: Mapping[str, Any], numbers: Resolved, served: Model, options: Options, validation: Path | None
) -> dict[str, Any]:
    answer, thoughts = EFFORT[numbers["reasoning_effort"]]
    form = own.get("response_format")
    sampling = {"max_tokens": answer}
    if _reasons(served) and not form:  # a form holds from the first token on, so it leaves no thoughts
        sampling = {"max_tokens": answer + thoughts, "thinking_budget": thoughts}
    stage: dict[str, Any] = {
        "grader": options.grader,
        "algorithm": {"overlong_buffer": 0.0},  # the reward is the grader's own number, as OpenAI's is
        "prompts_per_step": batch_of(numbers, options.rows),
        "group_size": min(max(round(GROUP * numbers["compute_multiplier"]), 2), 64),
        "steps": steps_of(numbers, options.rows),
        "sampling": sampling,
        "eval_every": numbers["eval_interval"],
        "save_every": numbers["eval_interval"],
        "probe": None,  # OpenAI's jobs train also where no reward differs yet
    }
    if form:
        stage["response_format"] = form
    if validation is not None:
        stage |= {"validation": {"path": str(validation), "limit": numbers["eval_samples"]}, "final": "best"}
    return stage


def _rate(kind: str, multiplier: float, served: Model) -> float:
    """The multiple of the rate that `lr: auto` stands for; of a model whose size is not known, that of a small one."""
    base = auto_lr(STAGES[kind], _size(served), adapter=True).lr
    return float(f"{base * multiplier:.6g}")


def _size(served: Model) -> int:
    if served.parameters:
        return served.parameters
    try:
        return described(served.path_or_alias).shape.parameters
    except ModelError:
        return int(MEASURED)


def _context(served: Model) -> int:
    """Tokens that the model reads."""
    if base := BASES.get(served.path_or_alias):
        return base.context
    said = _config(served).get("max_position_embeddings")
    return said if isinstance(said, int) and said > 0 else CONTEXT


def _reasons(served: Model) -> bool:
    base = BASES.get(served.path_or_alias)
    return bool(base and base.reasons)


def _config(served: Model) -> dict[str, Any]:
    """A folder's config.json; empty where there is none."""
    try:
        found = json.loads((Path(served.path_or_alias) / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
