"""The preference losses of TRL, LLaMA-Factory and Axolotl as ours."""

from __future__ import annotations

from typing import Any

from sharpen.errors import ConfigError
from sharpen.translate.common import without_none
from sharpen.translate.keys import Keys

DPO_LOSSES = (
    "sigmoid hinge ipo exo_pair nca_pair robust bco_pair sppo_hard aot aot_unpaired apo_zero apo_down discopop sft "
    "sigmoid_norm"
).split()
"""TRL's names in `DPOConfig`."""

OF_KTO = {"desirable_weight", "undesirable_weight"}
OF_CPO = {"cpo_alpha", "simpo_gamma"}
OF_DPO = {
    "precompute_ref_log_probs",
    "ld_alpha",
    "f_divergence_type",
    "discopop_tau",
    "label_smoothing",
    "loss_weights",
    "use_weighting",
    "sync_ref_model",
    "rpo_alpha",
}
DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-6,
    "beta": 0.1,
    "label_smoothing": 0.0,
    "cpo_alpha": 1.0,
    "simpo_gamma": 0.5,
    "desirable_weight": 1.0,
    "undesirable_weight": 1.0,
    "disable_dropout": True,
}
"""Of TRL's `DPOConfig`, `KTOConfig`, `CPOConfig` and `ORPOConfig` (1.16), where they are not those of `SFTConfig`."""

LIKELIHOOD = "SimPO has no likelihood term here, as in its paper; with TRL's `cpo_alpha: 0` the two are the same"
ORPOS = "ORPO's likelihood is here the mean over the answers' tokens of a step, without the prompts'"


def kind_of(values: dict[str, Any]) -> str | None:
    """Which of TRL's preference configurations this is: `dpo`, `kto` or `cpo`; None: none of them.

    An `ORPOConfig` cannot be told from a `DPOConfig`.
    """
    loss = _names(values.get("loss_type"))
    if set(values) & OF_KTO or loss & {"kto", "apo_zero_unpaired"}:
        return "kto"
    if set(values) & OF_CPO or "simpo" in loss:
        return "cpo"
    if set(values) & OF_DPO or loss & set(DPO_LOSSES) or "beta" in values:
        return "dpo"
    return None


def of_trl(keys: Keys, kind: str) -> dict[str, Any]:
    """The loss of a TRL configuration of this kind. Raises ConfigError for one that we do not have."""
    given = keys.take("loss_type") or {"kto": "kto"}.get(kind, "sigmoid")
    names = [given] if isinstance(given, str) else list(given)
    if len(names) != 1:
        raise ConfigError(
            "a combination of losses", path="loss_type", value=names, remedy="Here a stage has one: keep one of them"
        )
    for name, plain in (("f_divergence_type", "reverse_kl"), ("use_weighting", False), ("sync_ref_model", False)):
        keys.only(name, plain)
    keys.only("alpha", (0, 0.0))
    keys.only("loss_weights", ([1], [1.0]))
    keys.taken |= {"precompute_ref_log_probs", "precompute_ref_batch_size"}  # here they always are
    match kind, str(names[0]):
        case "dpo", "sigmoid":
            if not set(keys.values) & OF_DPO and not keys.given("loss_type"):
                keys.check.append("taken for a DPOConfig; if it is an ORPOConfig, write `loss: {type: orpo}`")
            return _loss(keys, "sigmoid", "label_smoothing")
        case "dpo", "ipo" | "hinge" as name:
            keys.only("label_smoothing", (0, 0.0))
            return _loss(keys, name)
        case "kto", "kto":
            return _loss(keys, "kto", "desirable_weight", "undesirable_weight")
        case "cpo", "sigmoid":
            keys.only("simpo_gamma", DEFAULTS["simpo_gamma"], "is SimPO's")
            return _loss(keys, "cpo", "cpo_alpha", "label_smoothing")
        case "cpo", "simpo":
            _no_likelihood(keys, "cpo_alpha")
            return _loss(keys, "simpo", "simpo_gamma", "label_smoothing")
    raise ConfigError(
        "a preference loss that sharpen does not have",
        path="loss_type",
        value=names[0],
        remedy="There are sigmoid, ipo, hinge, simpo, orpo, cpo and kto (docs/preferences.md)",
    )


def of_llama_factory(keys: Keys, stage: str) -> dict[str, Any]:
    """The loss of LLaMA-Factory's stage `dpo` or `kto`. Raises ConfigError for one that we do not have."""
    name, beta = str(keys.take("pref_loss")), keys.take("pref_beta")
    keys.only("pref_bco_weight", (0, 0.0))
    smoothing, gamma = keys.take("dpo_label_smoothing"), keys.take("simpo_gamma")
    weights = keys.take("kto_chosen_weight"), keys.take("kto_rejected_weight")
    keys.only("pref_ftx", (0, 0.0), "a likelihood term stands here beside cpo and orpo alone")
    keys.only("ref_model", (None,), "the reference is the stage's starting weights here")
    if stage == "kto":
        return {"type": "kto", "beta": beta, "desirable_weight": weights[0], "undesirable_weight": weights[1]}
    match name:
        case "sigmoid":
            return {"type": "sigmoid", "beta": beta, "label_smoothing": smoothing}
        case "ipo" | "hinge":
            return {"type": name, "beta": beta}
        case "orpo":
            keys.check.append(ORPOS)
            return {"type": "orpo", "beta": beta}
        case "simpo":
            return {"type": "simpo", "beta": beta, "simpo_gamma": gamma}
    raise ConfigError(
        "a preference loss that sharpen does not have",
        path="pref_loss",
        value=name,
        remedy="There are sigmoid, ipo, hinge, orpo and simpo, and `stage: kto`",
    )


def of_axolotl(keys: Keys, method: str) -> dict[str, Any]:
    """The loss of Axolotl's `rl`. Raises ConfigError for one that we do not have."""
    inner = Keys(keys.take("trl") or {}, {"beta": None}, "trl.", left=keys.left)
    beta = next((value for value in (inner.take("beta"), keys.take("rl_beta"), keys.take("orpo_alpha")) if value), None)
    inner.close(frozenset())
    beta = DEFAULTS["beta"] if beta is None else beta
    match method:
        case "dpo":
            keys.only("dpo_use_weighting", False)
            return {"type": "sigmoid", "beta": beta, "label_smoothing": keys.take("dpo_label_smoothing") or 0.0}
        case "ipo":
            return {"type": "ipo", "beta": beta}
        case "orpo":
            keys.check.append(ORPOS)
            return {"type": "orpo", "beta": beta}
        case "simpo":
            _no_likelihood(keys, "cpo_alpha")
            return {"type": "simpo", "beta": beta, "simpo_gamma": keys.take("simpo_gamma") or DEFAULTS["simpo_gamma"]}
        case "kto":
            weights = keys.take("kto_desirable_weight"), keys.take("kto_undesirable_weight")
            return {
                "type": "kto",
                "beta": beta,
                "desirable_weight": weights[0] or 1.0,
                "undesirable_weight": weights[1] or 1.0,
            }
    raise ConfigError(
        "training by `rl` that is not imported",
        path="rl",
        value=method,
        remedy="There are dpo, ipo, kto, orpo and simpo; for grpo import TRL's GRPOConfig",
    )


def without_dropout(adapter: dict[str, Any] | None, disabled: bool) -> dict[str, Any] | None:
    """The adapter; TRL's preference trainers switch dropout off, also the adapter's."""
    return {name: value for name, value in adapter.items() if name != "dropout"} if adapter and disabled else adapter


def _loss(keys: Keys, name: str, *fields: str) -> dict[str, Any]:
    return {"type": name, **without_none({field: keys.take(field) for field in ("beta", *fields)})}


def _no_likelihood(keys: Keys, name: str) -> None:
    """TRL's SimPO adds its CPO's likelihood unless it is told not to."""
    keys.only(name, (0, 0.0), LIKELIHOOD)
    if not keys.given(name):
        keys.check.append(f"TRL adds a likelihood term to SimPO where `{name}` is not given (1.0): {LIKELIHOOD}")


def _names(loss: Any) -> set[str]:
    return {loss} if isinstance(loss, str) else set(map(str, loss)) if isinstance(loss, list | tuple) else set()
