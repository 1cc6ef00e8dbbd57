"""The losses of the preference stage: DPO and its family."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from sharpen.config.base import Config

Beta = Annotated[float, Field(gt=0)]
Smoothing = Annotated[float, Field(ge=0, lt=0.5)]


class PreferenceLoss(Config):
    """What every loss has; r is log π − log π_ref of a whole answer, of which y_w is the better and y_l the worse."""

    needs_reference: ClassVar[bool] = True
    """Whether the answers are scored by the stage's start before the first step."""

    paired: ClassVar[bool] = True
    """Whether a row has two answers; else it has one that is desirable or not."""

    beta: Beta = 0.1
    """The strength of what keeps the policy near its start."""


class Sigmoid(PreferenceLoss):
    """DPO (arXiv:2305.18290): −log σ(β (r_w − r_l))."""

    type: Literal["sigmoid"] = "sigmoid"

    label_smoothing: Smoothing = 0.0
    """The share of pairs whose labels are taken to be swapped (conservative DPO)."""


class IPO(PreferenceLoss):
    """IPO (arXiv:2310.12036): (r_w/|y_w| − r_l/|y_l| − 1/(2β))², with means over tokens as its authors advise."""

    type: Literal["ipo"] = "ipo"


class Hinge(PreferenceLoss):
    """SLiC's hinge on DPO's margin (arXiv:2309.06657): max(0, 1 − β (r_w − r_l))."""

    type: Literal["hinge"] = "hinge"


class SimPO(PreferenceLoss):
    """SimPO (arXiv:2405.14734), no reference: −log σ(β (log π(y_w)/|y_w| − log π(y_l)/|y_l|) − γ)."""

    needs_reference: ClassVar[bool] = False

    type: Literal["simpo"] = "simpo"

    beta: Beta = 2.0
    """The scale of the mean log-probability of a token."""

    simpo_gamma: Annotated[float, Field(ge=0)] = 1.0
    """The margin that the better answer should have (γ)."""

    label_smoothing: Smoothing = 0.0
    """The share of pairs whose labels are taken to be swapped."""


class ORPO(PreferenceLoss):
    """ORPO (arXiv:2403.07691), no reference: the negative log-likelihood of a token of y_w, plus
    β · −log σ(log odds(y_w) − log odds(y_l)), where odds(y) = p/(1 − p) of p, the mean probability of a token:
    exp(log π(y)/|y|)."""

    needs_reference: ClassVar[bool] = False

    type: Literal["orpo"] = "orpo"

    beta: Beta = 0.1
    """The weight of the odds ratio beside the likelihood (the paper's λ)."""


class CPO(PreferenceLoss):
    """CPO (arXiv:2401.08417), no reference: −log σ(β (log π(y_w) − log π(y_l))), plus `cpo_alpha` times the negative
    log-likelihood of a token of y_w."""

    needs_reference: ClassVar[bool] = False

    type: Literal["cpo"] = "cpo"

    beta: Beta = 0.1
    """The scale of the difference of log-probabilities."""

    cpo_alpha: Annotated[float, Field(ge=0)] = 1.0
    """The weight of the likelihood of the better answers."""

    label_smoothing: Smoothing = 0.0
    """The share of pairs whose labels are taken to be swapped."""


class KTO(PreferenceLoss):
    """KTO (arXiv:2402.01306): w · (1 − σ(β (r − z₀))) for a desirable answer, w · (1 − σ(β (z₀ − r))) for another.

    z₀ is the policy's KL from its start, without a gradient and at least 0: the mean of r over answers to other
    prompts of the step. Rows with two answers count as one desirable and one that is not.
    """

    paired: ClassVar[bool] = False

    type: Literal["kto"] = "kto"

    desirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """What a desirable answer counts; the paper advises weights that make both kinds count about as much."""

    undesirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """What an undesirable answer counts."""


def _spelled_out(value: Any) -> Any:
    """`ipo` for {type: ipo}; without a type it is DPO's own."""
    if isinstance(value, str):
        return {"type": value}
    return {"type": "sigmoid", **value} if isinstance(value, dict) else value


AnyPreferenceLoss = Annotated[
    Sigmoid | IPO | Hinge | SimPO | ORPO | CPO | KTO,
    Field(discriminator="type"),
    BeforeValidator(_spelled_out),
]
"""How preferences become a loss."""
