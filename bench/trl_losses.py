"""Losses and gradients of TRL's preference trainers on random log-probabilities, which tests hold ours against.

    .venvs/trl/bin/python -m bench.trl_losses > tests/core/trl_preferences.json

Each trainer is made with a tiny random model, and its own loss method is then given a stand-in for the model that says
the drawn log-probabilities, so no formula is repeated here. Gradients are by those of each token of each answer. ORPO's
prompts have one token, as TRL's likelihood covers prompts and ours does not.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench import trl_common  # noqa: F401 - sets what the imports below read

# isort: split

import datasets
import torch
import transformers
import trl
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from tests.tiny import tiny_model

PAD, VOCABULARY = 0, 1000
GRAIN = 64
"""Drawn numbers are multiples of 1/64, which any float type holds."""

PAIRED = (
    {"type": "sigmoid", "beta": 0.1},
    {"type": "sigmoid", "beta": 0.5},
    {"type": "ipo", "beta": 0.1},
    {"type": "ipo", "beta": 0.7},
    {"type": "hinge", "beta": 0.1},
    {"type": "hinge", "beta": 0.5},
    {"type": "cpo", "beta": 0.1, "cpo_alpha": 0.0, "label_smoothing": 0.2},
    {"type": "cpo", "beta": 0.3, "cpo_alpha": 1.0, "label_smoothing": 0.0},
    {"type": "cpo", "beta": 0.1, "cpo_alpha": 0.3, "label_smoothing": 0.1},
    {"type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "label_smoothing": 0.0},
    {"type": "simpo", "beta": 1.0, "simpo_gamma": 0.25, "label_smoothing": 0.1},
    {"type": "orpo", "beta": 0.1},
    {"type": "orpo", "beta": 1.0},
)
UNPAIRED = (
    {"type": "kto", "beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    {"type": "kto", "beta": 0.4, "desirable_weight": 1.5, "undesirable_weight": 0.75},
)


@dataclass
class Answer:
    """An answer of n tokens, and what the policy and its start say of each, also after another prompt."""

    prompt: list[int]
    tokens: list[int]
    policy: Tensor  # (n,) float64, the leaf of the gradients
    start: list[float]
    elsewhere: tuple[list[float], list[float]] = field(default=([], []))

    def numbers(self) -> dict[str, list[float]]:
        """What the fixture says of it."""
        return {"policy": self.policy.tolist(), "start": self.start}


@dataclass
class StandIn:
    """In the model's place: knows the log-probabilities of the last tokens of some rows, by the rows' tokens."""

    known: dict[tuple[int, ...], Tensor]

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None, **_: Any
    ) -> SimpleNamespace:
        """As TRL's fused head (rows, tokens − 1) where there are `labels`, else logits (rows, tokens, VOCABULARY)."""
        rows = [row[mask == 1].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        said = [self.known[tuple(row)] for row in rows]
        if labels is not None:
            none = torch.zeros(labels[:, 1:].shape)
            before = [one.new_zeros(len(row) - 1 - len(one)) for row, one in zip(rows, said, strict=True)]
            found = pad_sequence([torch.cat(both) for both in zip(before, said, strict=True)], batch_first=True)
            return SimpleNamespace(log_probs=found, entropy=none, mean_logits=none, is_top1=none.bool())
        logits = torch.zeros(*input_ids.shape, VOCABULARY, dtype=torch.float64)
        for place, (row, one) in enumerate(zip(rows, said, strict=True)):
            first = len(row) - len(one)
            for index, logprob in enumerate(one, start=first):  # the token before says it, of all others alike
                rest = torch.log(-torch.expm1(logprob) / (VOCABULARY - 1))
                others = torch.ones(VOCABULARY, dtype=torch.bool)
                others[row[index]] = False
                logits[place, index - 1] = torch.where(others, rest, logprob)
        return SimpleNamespace(logits=logits)


def draw(seed: int, count: int, prompt: int, to_one: int = 2, strayed: float = 0.0) -> list[Answer]:
    """`count` answers of 1 to 9 tokens, `to_one` prompt of so many tokens; no two tokens are equal. The policy finds
    answers after other prompts likelier by about `strayed` nats a token than its start does."""
    chance = random.Random(seed)
    ids = iter(chance.sample(range(1, VOCABULARY), VOCABULARY - 1))
    found: list[Answer] = []
    for place in range(count):
        asked = found[-1].prompt if place % to_one else [next(ids) for _ in range(prompt)]
        tokens = [next(ids) for _ in range(chance.randint(1, 9))]
        start = [_grained(-chance.expovariate(0.7)) for _ in tokens]
        policy = [min(-1 / GRAIN, _grained(logprob + chance.gauss(0, 1.5))) for logprob in start]
        other = [_grained(-chance.expovariate(0.7)) for _ in tokens]
        moved = [_grained(logprob + strayed + chance.gauss(0, 0.3)) for logprob in other]
        leaf = torch.tensor(policy, dtype=torch.float64, requires_grad=True)
        found.append(Answer(asked, tokens, leaf, start, (moved, other)))
    return found


def _grained(value: float) -> float:
    return min(round(value * GRAIN), -1) / GRAIN


def case(loss: dict[str, Any], answers: Sequence[Answer], value: Tensor, **more: Any) -> dict[str, Any]:
    """A line of the fixture; differentiates the value."""
    gradients = torch.autograd.grad(value, [answer.policy for answer in answers])
    return {
        "loss": loss,
        **more,
        "answers": [answer.numbers() for answer in answers],
        "value": float(value.detach()),
        "gradients": [gradient.tolist() for gradient in gradients],
    }


def paired(loss: dict[str, Any], answers: Sequence[Answer], made: Callable[..., Any]) -> dict[str, Any]:
    """TRL's loss of pairs, better and worse in turn."""
    stand_in = StandIn({tuple(answer.prompt + answer.tokens): answer.policy for answer in answers})
    pairs = list(zip(answers[::2], answers[1::2], strict=True))
    given = {name: value for name, value in loss.items() if name != "type"}
    if loss["type"] in ("sigmoid", "ipo", "hinge"):
        trainer = made(trl.DPOTrainer, trl.DPOConfig, loss_type=loss["type"], precompute_ref_log_probs=True, **given)
        inputs = DataCollatorForPreference(PAD)(
            [{"prompt_ids": one.prompt, "chosen_ids": one.tokens, "rejected_ids": two.tokens} for one, two in pairs]
        )
        for name, place in (("chosen", 0), ("rejected", 1)):
            sums = [sum(pair[place].start) for pair in pairs]
            inputs[f"ref_{name}_logps"] = torch.tensor(sums, dtype=torch.float64)
        return case(loss, answers, trainer._compute_loss(stand_in, inputs, False))
    if loss["type"] == "orpo":
        trainer = made(ORPOTrainer, ORPOConfig, **given)
    else:
        kind = {"simpo": "simpo", "cpo": "sigmoid"}[loss["type"]]
        trainer = made(CPOTrainer, CPOConfig, loss_type=kind, **{"cpo_alpha": 0.0, **given})
    inputs = {}
    for name, place in (("chosen", 0), ("rejected", 1)):
        rows = [torch.tensor(pair[place].prompt + pair[place].tokens) for pair in pairs]
        labels = [row.index_fill(0, torch.arange(len(w.prompt)), -100) for row, (w, _) in zip(rows, pairs, strict=True)]
        inputs[f"{name}_input_ids"] = pad_sequence(rows, batch_first=True, padding_value=PAD)
        inputs[f"{name}_attention_mask"] = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        inputs[f"{name}_labels"] = pad_sequence(labels, batch_first=True, padding_value=-100)
    return case(loss, answers, trainer.get_batch_loss_metrics(stand_in, inputs)[0])


def unpaired(loss: dict[str, Any], answers: Sequence[Answer], made: Callable[..., Any]) -> dict[str, Any]:
    """TRL's loss of KTO; every third answer is not desirable, and each is also put after the next answer's prompt."""
    given = {name: value for name, value in loss.items() if name != "type"}
    trainer = made(trl.KTOTrainer, trl.KTOConfig, precompute_ref_log_probs=True, **given)
    desirable = [place % 3 < 2 for place in range(len(answers))]
    others = [*answers[1:], answers[0]]
    examples = [
        {
            "prompt_ids": answer.prompt,
            "completion_ids": answer.tokens,
            "KL_completion_ids": other.tokens,
            "label": label,
        }
        for answer, other, label in zip(answers, others, desirable, strict=True)
    ]
    known = {tuple(answer.prompt + answer.tokens): answer.policy for answer in answers}
    mismatched = {
        tuple(answer.prompt + other.tokens): torch.tensor(other.elsewhere[0], dtype=torch.float64)
        for answer, other in zip(answers, others, strict=True)
    }
    inputs = DataCollatorForUnpairedPreference(PAD)(examples)
    inputs["ref_logps"] = torch.tensor([sum(answer.start) for answer in answers], dtype=torch.float64)
    inputs["ref_KL_logps"] = torch.tensor([sum(other.elsewhere[1]) for other in others], dtype=torch.float64)
    value = trainer._compute_loss(StandIn(known | mismatched), inputs, False)
    elsewhere = [dict(zip(("policy", "start"), other.elsewhere, strict=True)) for other in others]
    return case(loss, answers, value, desirable=desirable, mismatched=elsewhere)


def trainers(folder: Path) -> Callable[..., Any]:
    """Makes trainers with a tiny random model; their rows are of no account."""
    tiny = tiny_model(folder / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    pairs = datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2)
    singles = datasets.Dataset.from_list([{"prompt": f"{n}", "completion": "b", "label": n > 0} for n in range(4)])

    def made(trainer: Any, config: Any, **given: Any) -> Any:
        model = transformers.AutoModelForCausalLM.from_pretrained(tiny)
        scratch = {"output_dir": str(folder / "out"), "report_to": "none", "use_cpu": True, "bf16": False}
        args = config(**scratch, per_device_train_batch_size=2, max_length=64, **given)
        rows = singles if config is trl.KTOConfig else pairs
        return trainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)

    return made


def measure() -> dict[str, Any]:
    """The whole fixture."""
    versions = {module.__name__: module.__version__ for module in (trl, torch, transformers)}
    with tempfile.TemporaryDirectory() as folder:
        made = trainers(Path(folder))
        cases = [
            paired(loss, draw(seed, 8, 1 if loss["type"] == "orpo" else 3), made) for seed, loss in enumerate(PAIRED)
        ]
        cases += [
            unpaired(loss, draw(100 + seed, 7, 2, 1, strayed), made)
            for seed, loss in enumerate(UNPAIRED)
            for strayed in (0.5, -0.5)
        ]
    return {"versions": versions, "cases": cases}


if __name__ == "__main__":
    from bench.common import print_json

    print_json(measure)
