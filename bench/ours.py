"""Our side of the benches, of the public pieces: a model with its engine, the sampling and the learning of a step."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from bench.common import ROOT, prompts
from sharpen.config.adapters import Lora
from sharpen.config.optim import Optim
from sharpen.config.stages import SFT
from sharpen.data.order import Key
from sharpen.data.render import Renderer
from sharpen.models import adapters
from sharpen.models.load import Loaded, compute_dtype, load
from sharpen.rl.advantages import group_normalized
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler
from sharpen.train.engine import Engine, StepResult
from sharpen.train.losses import PolicyGradient
from sharpen.types import Segment
from sharpen.types import Sequence as Row

LR = 1e-5
Tokens = tuple[int, ...]


@dataclass
class Learner:
    """A model that learns."""

    loaded: Loaded
    renderer: Renderer
    engine: Engine

    def prompts(self, count: int) -> list[Tokens]:
        """The work's prompts as tokens."""
        return [self.renderer.prompt(row["messages"]) for row in prompts(count)]

    def facts(self) -> dict[str, Any]:
        """What it computes in, and what it trains."""
        trained, whole = adapters.trainable(self.loaded.model)
        return {
            "dtype": str(self.loaded.dtype),
            "threads": torch.get_num_threads(),
            "trained_parameters": trained,
            "parameters": whole,
            "tokens_per_microbatch": self.engine.tokens_per_microbatch,
        }


def learner(model: str, dtype: Any, adapter: str = "full", budget: int | None = None) -> Learner:
    """The model, all of it or a LoRA of rank 16 to be trained, at TRL's settings of AdamW and a constant rate.

    `budget` is in tokens a microbatch; None: that of a recipe which says nothing.
    """
    loaded = load(model, compute_dtype(dtype))
    if adapter == "lora":
        adapters.attach(loaded.model, _lora(loaded.model), 0)
    optim = Optim(lr=LR, schedule="constant", warmup_ratio=0.0, beta2=0.999)
    engine = Engine(loaded.model, optim, 1, budget or SFT.model_fields["tokens_per_microbatch"].default)
    return Learner(loaded, Renderer(loaded.tokenizer, loaded.stop), engine)


def _lora(model: Any) -> Any:
    from peft import LoraConfig  # takes seconds to import

    lora = Lora()
    targets = adapters.target_names(model, lora.targets)
    return LoraConfig(task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, target_modules=targets)


def sample(sampler: LocalSampler, chosen: Sequence[Tokens], group: int, key: Key, max_tokens: int) -> list[Segment]:
    """`group` completions of each prompt, at temperature 1."""
    requests = [Request(prompt, (*key, p, s)) for p, prompt in enumerate(chosen) for s in range(group)]
    return asyncio.run(sampler.sample(requests, Params(max_tokens)))


def learn(held: Learner, chosen: Sequence[Tokens], segments: Sequence[Segment]) -> tuple[StepResult, int]:
    """Grade (the share of vowels), compare, learn; returns also how many groups had a spread of rewards."""
    group = len(segments) // len(chosen)
    rows: list[Row] = []
    varied = 0
    for place, prompt in enumerate(chosen):
        own = segments[place * group : (place + 1) * group]
        advantages = group_normalized([vowels(held.renderer.sample(segment).text) for segment in own])
        assert advantages
        varied += any(advantages)
        rows += [
            Row(
                tokens=segment.tokens,
                mask=segment.mask,
                atom=str(place),
                shared=len(prompt),
                advantages=tuple(advantage if made else 0.0 for made in segment.mask),
                rollout_logprobs=segment.logprobs,
            )
            for segment, advantage in zip(own, advantages, strict=True)
        ]
    return held.engine.step(rows, PolicyGradient()), varied


def vowels(text: str) -> float:
    """The reward on both sides: varied in every group, and free."""
    return sum(character in "aeiouAEIOU" for character in text) / max(1, len(text))


def versions() -> dict[str, str]:
    """Of what our side runs on; sharpen's with the commit, where there is one."""
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()
    names = {name: version(name) for name in ("torch", "transformers", "peft")}
    return {"sharpen": f"{version('sharpen')} {commit}".strip(), **names}
