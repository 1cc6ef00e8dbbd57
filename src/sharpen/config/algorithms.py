"""The GRPO family, as presets over fields that compose freely: the table of `docs/algorithms.md`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from sharpen.config.base import Config

PRESETS: dict[str, dict[str, Any]] = {
    "grpo": {
        "advantage": "normalized",
        "ratio": "token",
        "clip": "ppo",
        "clip_low": 0.2,
        "clip_high": 0.2,
        "normalizer": "sequence",
        "overlong_buffer": 0.0,
    },
    "dr_grpo": {
        "advantage": "centered",
        "ratio": "token",
        "clip": "ppo",
        "clip_low": 0.2,
        "clip_high": 0.2,
        "normalizer": "max_tokens",
        "overlong_buffer": 0.0,
    },
    "dapo": {
        "advantage": "normalized",
        "ratio": "token",
        "clip": "ppo",
        "clip_low": 0.2,
        "clip_high": 0.28,
        "normalizer": "token",
        "overlong_buffer": 0.2,
    },
    "gspo": {
        "advantage": "normalized",
        "ratio": "sequence",
        "clip": "ppo",
        "clip_low": 3e-4,
        "clip_high": 4e-4,
        "normalizer": "sequence",
        "overlong_buffer": 0.0,
    },
    "cispo": {
        "advantage": "normalized",
        "ratio": "token",
        "clip": "cispo",
        "clip_high": 5.0,
        "normalizer": "token",
        "overlong_buffer": 0.0,
    },
    "rloo": {
        "advantage": "leave_one_out",
        "ratio": "token",
        "clip": "none",
        "normalizer": "sequence_sum",
        "overlong_buffer": 0.0,
    },
}

BOUNDS: dict[str, tuple[str, ...]] = {"ppo": ("clip_low", "clip_high"), "cispo": ("clip_high",), "none": ()}
"""The bounds that each kind of clip has."""

Normalizer = Literal["sequence", "token", "max_tokens", "sequence_sum"]


class KL(Config):
    """How a policy that strays from the stage's starting weights pays for it."""

    coef: Annotated[float, Field(ge=0)] = 0.0
    """What a nat of it costs; 0 switches it off, and then no reference is scored."""

    estimator: Literal["k1_reward", "k2", "k3"] = "k3"
    """`k1_reward`: each rollout's reward falls by coef × Σ_t (log π_rollout − log π_ref), before the advantages;
    `k2`: ½(log π − log π_ref)² and `k3`: exp(d) − 1 − d, d = log π_ref − log π, are terms of the loss a token
    (http://joschu.net/blog/kl-approx.html), under the policy term's normaliser. The reported `kl` is k3 with each."""

    importance_weighted: bool = False
    """Multiply k2 or k3 by the token's weight min(π_old / π_rollout, mismatch_cap) · π / π_old, gradient of the ratio
    included: then off-policy tokens too give the gradient of the policy's own KL."""

    @model_validator(mode="after")
    def _only_terms_of_the_loss_are_weighted(self) -> KL:
        if self.estimator == "k1_reward" and self.importance_weighted:
            raise ValueError(
                "`importance_weighted` needs a term of the loss: take estimator `k2` or `k3`, or leave it out"
            )
        return self


class Algorithm(Config):
    """How grades become a loss. A preset fills what is not given."""

    # What a preset gives is not required.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("required"))

    preset: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo"] = "dapo"
    """`grpo` (arXiv:2402.03300), `dr_grpo` (arXiv:2503.20783), `dapo` (arXiv:2503.14476), `gspo` (arXiv:2507.18071),
    `cispo` (arXiv:2506.13585) or `rloo` (arXiv:2402.14740)."""

    advantage: Literal["normalized", "centered", "leave_one_out"]
    """Of a reward r in its group: `normalized`: (r − mean) / std, ddof 1; `centered`: r − mean;
    `leave_one_out`: r − mean of the others."""

    ratio: Literal["token", "sequence"]
    """π / π_old of each token, or of the whole rollout: exp(mean of the tokens' log-ratios)."""

    clip: Literal["ppo", "cispo", "none"]
    """`ppo`: min(ratio·A, clip(ratio, 1 − clip_low, 1 + clip_high)·A); `cispo`: min(ratio, clip_high)·A·log π, no
    gradient through the ratio; `none`: ratio·A."""

    clip_low: Annotated[float, Field(gt=0, lt=1)] | None = None
    """With clip `ppo` the ratio is clipped below at 1 - clip_low."""

    clip_high: Annotated[float, Field(gt=0)] | None = None
    """With clip `ppo` the ratio is clipped above at 1 + clip_high. With `cispo` it is the cap itself, as in TRL (the
    paper's cap is 1 + its ε_high); 5 is within the 4 to 8 of arXiv:2510.13786."""

    normalizer: Normalizer
    """`sequence`: mean per sequence, then over sequences; `token`: mean over all tokens; `max_tokens`: sum over all
    tokens ÷ (sequences × sampling.max_tokens); `sequence_sum`: sum per sequence, mean over sequences. A sequence is one
    rollout."""

    overlong_buffer: Annotated[float, Field(ge=0, le=1)]
    """DAPO's soft length penalty: over the last such share of max_tokens the reward falls by up to 1."""

    mask_truncated: bool = False
    """A completion cut at max_tokens keeps its place in its group's mean and std, but its tokens leave the loss,
    numerator and denominator (DAPO's overlong filtering)."""

    mismatch_cap: Annotated[float, Field(gt=0)] = 2.0
    """Cap of the weight pi_old / pi_rollout that corrects sampler against trainer, and a lag between them."""

    num_iterations: Annotated[int, Field(ge=1)] = 1
    """Optimiser steps on each batch of rollouts (TRL's name)."""

    kl: KL = KL()
    """The cost of straying from the stage's starting weights."""

    entropy_coef: Annotated[float, Field(ge=0)] = 0.0
    """What a nat of the policy's entropy is worth, averaged as the policy term is; 0 switches the bonus off."""

    max_lag: Annotated[int, Field(ge=0)] = 0
    """So many steps before its own is a step's batch sampled: step s learns from policy max(0, s − max_lag)."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Add what the preset says; its bounds belong to its own kind of clip alone."""
        if not isinstance(values, dict):
            return values
        preset = PRESETS.get(str(values.get("preset", "dapo")), PRESETS["dapo"])
        given = {name: value for name, value in values.items() if value is not None}
        if given.get("clip", preset["clip"]) != preset["clip"]:
            preset = {name: value for name, value in preset.items() if name not in BOUNDS["ppo"]}
        return {**preset, **given}

    @model_validator(mode="after")
    def _bounds_are_those_of_the_clip(self) -> Algorithm:
        for name in BOUNDS["ppo"]:
            value, has = getattr(self, name), name in BOUNDS[self.clip]
            if has and value is None:
                raise ValueError(
                    f"clip `{self.clip}` needs `{name}`, which preset `{self.preset}` does not give: set it"
                )
            if not has and value is not None:
                raise ValueError(
                    f"clip `{self.clip}` has no `{name}`: leave out `{name}: {value:g}`, or choose another clip"
                )
        return self
