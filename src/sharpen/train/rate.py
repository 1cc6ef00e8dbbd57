"""The learning rate that `optim.lr: auto` stands for: by method, adapter and size of the model."""

from __future__ import annotations

from typing import Literal, NamedTuple

MEASURED = 135e6
"""Parameters of the quickstart's model, on which the small end was measured; below it nothing is claimed."""

LORA = 10
"""The best rate for LoRA is ten times full fine-tuning's, supervised and reinforced alike, whatever the rank:
Schulman et al., "LoRA Without Regret", https://thinkingmachines.ai/blog/lora, 2025."""


Method = Literal["sft", "dpo", "reward_model", "rft"]
"""A type of stage."""


class Rule(NamedTuple):
    """`rate` at MEASURED parameters, falling with the size to a power."""

    rate: float
    power: float
    source: str
    lowest: float = 1e-6
    """No size is given less. DAPO trains 32 B with 1e-6 (arXiv:2503.14476), TRL has it as GRPO's default."""


RULES = {
    "sft": Rule(5e-5, 0.56, "the quickstart's 5e-5 at 135 M, Tülu 3's 5e-6 at 8 B and 2e-6 at 70 B (arXiv:2411.15124)"),
    "dpo": Rule(
        1e-5, 0.73, "examples/dpo's 1e-5 at 135 M, Tülu 3's 5e-7 at 8 B and 2e-7 at 70 B (arXiv:2411.15124)", 2e-7
    ),
    "reward_model": Rule(
        2.2e-5, 0.24, "InstructGPT's 9e-6 at 6 B (arXiv:2203.02155) and Llama 2's 5e-6 at 70 B (arXiv:2307.09288)"
    ),
    "rft": Rule(2e-5, 0.76, "the quickstart's 2e-5 at 135 M, DeepSeekMath's 1e-6 at 7 B (arXiv:2402.03300)"),
}


class Choice(NamedTuple):
    """A learning rate and why."""

    lr: float
    reason: str


def auto_lr(method: Method, parameters: int, *, adapter: bool) -> Choice:
    """The peak learning rate, to two digits; it never rises with the number of `parameters` (of the whole model).

    A power law through what is published for full fine-tuning with AdamW; ten times that for LoRA and DoRA.
    """
    rule = RULES[method]
    full = max(rule.lowest, rule.rate * (max(parameters, MEASURED) / MEASURED) ** -rule.power)
    lr = float(f"{full * (LORA if adapter else 1):.1e}")
    what = "an adapter (ten times full fine-tuning's) on" if adapter else "all of"
    return Choice(lr, f"{lr:g} for {method} of {what} {_size(parameters)} parameters, after {rule.source}")


def _size(parameters: int) -> str:
    for scale, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= scale:
            return f"{parameters / scale:.3g} {unit}"
    return str(parameters)
