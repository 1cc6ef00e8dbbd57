"""End to end: one engine step's gradient, against plain transformers on unpadded sequences in float64."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sharpen.config.optim import Optim
from sharpen.models.load import Loaded, load
from sharpen.train.engine import Engine
from sharpen.train.losses import CrossEntropy, KLTerm, Loss, PolicyGradient
from sharpen.types import Sequence as Row
from sharpen.types import Support
from tests.tiny import tiny_model

OPTIM = Optim(lr=1e-9, schedule="constant", warmup_ratio=0.0, max_grad_norm=1e9)


class Watched(Engine):
    """Keeps the gradients the optimiser was given."""

    def _update(self, lr: float) -> None:
        self.gradients = [master.grad.clone() for master in self.masters if master.grad is not None]


@pytest.fixture(scope="module", params=["llama", "qwen2", "mistral", "qwen3_moe", "gpt_oss"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), request.param, initializer_range=0.15)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder, torch.float32)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", experts_implementation="eager"
    )
    return loaded.double().eval()


def groups() -> list[Row]:
    """Three groups: one with a duplicate and a sequence without advantage, one without spread, one of one length."""
    generator = torch.Generator().manual_seed(4)

    def numbers(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, 100, (count,), generator=generator).tolist())

    rows: list[Row] = []
    for group, (prefix, lengths) in enumerate(((6, (3, 9, 1, 5)), (2, (4, 4)), (13, (7, 7, 7)))):
        prompt = numbers(prefix)
        branches = [numbers(length) for length in lengths]
        if group == 0:
            branches[2] = branches[1]
        for place, branch in enumerate(branches):
            advantage = 0.0 if group == 1 or (group, place) == (0, 3) else (1.3, -0.7, -0.4)[place % 3]
            sampled = (False,) * prefix + (True,) * len(branch)
            noise = (0.4 * torch.randn(len(sampled), generator=generator)).tolist()
            old = [-4.5 + value if is_sampled else 0.0 for value, is_sampled in zip(noise, sampled, strict=True)]
            rollout = [value + 0.3 * noise[-1 - index] if value else 0.0 for index, value in enumerate(old)]
            rows.append(
                Row(
                    prompt + branch,
                    sampled,
                    str(group),
                    prefix,
                    tuple(advantage * is_sampled for is_sampled in sampled),
                    tuple(rollout),
                    tuple(old),
                )
            )
    return rows


def logprobs(plain: Any, row: Row, temperature: float) -> Tensor:
    """log π of each trained token, from one unpadded sequence."""
    tokens = torch.tensor(row.tokens)
    whole = (plain(input_ids=tokens[None]).logits[0] / temperature).log_softmax(-1)
    return torch.stack([whole[index - 1, tokens[index]] for index, sampled in enumerate(row.mask) if sampled])


def plain_loss(plain: Any, rows: list[Row], name: str, temperature: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    tokens = sum(row.trained for row in rows)
    high = {"grpo": 1.2, "dapo": 1.28}.get(name, 0.0)
    for row in rows:
        new = logprobs(plain, row, temperature)
        if name == "cross-entropy":
            total = total - new.sum() / tokens
            continue
        sampled = [index for index, is_sampled in enumerate(row.mask) if is_sampled]
        for value, index in zip(new, sampled, strict=True):
            old = torch.tensor(row.old_logprobs[index], dtype=torch.float64) if row.old_logprobs else value.detach()
            weight = torch.exp(old - row.rollout_logprobs[index]).clamp(max=2.0)
            ratio, advantage = torch.exp(value - old), row.advantages[index]
            bounded = ratio.clamp(max=high) if advantage > 0 else ratio.clamp(min=0.8)
            share = 1 / tokens if name == "dapo" else 1 / len(sampled) / len(rows)
            total = total - weight * bounded * advantage * share
    return total


LOSSES: dict[str, Loss] = {
    "cross-entropy": CrossEntropy(),
    "grpo": PolicyGradient(0.2, 0.2, "sequence"),
    "dapo": PolicyGradient(),
}


SEVERAL = PolicyGradient(0.2, 0.28, "sequence", 2.0, ratio="sequence", kl=KLTerm(0.1, "k3", True), entropy_coef=0.2)


def cut_rows() -> list[Row]:
    """The groups' rows with a reference and supports of 30 tokens or so; two of them are one rollout's segments."""
    generator = torch.Generator().manual_seed(6)
    found = []
    for index, row in enumerate(groups()):
        trained = [token for token, sampled in zip(row.tokens, row.mask, strict=True) if sampled]
        parts = []
        for token in trained:
            others = {int(other) for other in torch.randint(4, 100, (40,), generator=generator)}
            parts.append([token, *sorted(others - {token})])
        support = Support(tuple(map(len, parts)), array("i", [token for part in parts for token in part]))
        ref = tuple(-3.0 - 0.1 * place if sampled else 0.0 for place, sampled in enumerate(row.mask))
        found.append(replace(row, ref_logprobs=ref, attempt=index, support=support))
    # the first group's duplicates become one rollout, which has one advantage
    found[2] = replace(found[2], attempt=1, advantages=found[1].advantages)
    return found


def several_loss(plain: Any, rows: list[Row], temperature: float) -> Tensor:
    """GSPO's ratio over rollouts, k3 weighted, an entropy bonus, on renormalised supports; written out."""
    rollouts: dict[tuple[str, int | None], list[tuple[Tensor, ...]]] = {}
    advantages = {}
    for row in rows:
        assert row.support is not None
        tokens = torch.tensor(row.tokens)
        scores = plain(input_ids=tokens[None]).logits[0] / temperature
        ids = list(row.support.ids)
        sampled = [index for index, is_sampled in enumerate(row.mask) if is_sampled]
        for count, index in zip(row.support.counts, sampled, strict=True):
            left, ids = ids[:count], ids[count:]
            distribution = scores[index - 1][left].log_softmax(-1)
            numbers = (row.old_logprobs[index], row.rollout_logprobs[index], row.ref_logprobs[index])
            new, entropy = distribution[left.index(row.tokens[index])], -(distribution.exp() * distribution).sum()
            entry = (new, entropy, *(torch.tensor(number, dtype=torch.float64) for number in numbers))
            rollouts.setdefault((row.atom, row.attempt), []).append(entry)
            advantages[row.atom, row.attempt] = row.advantages[index]
    total = torch.zeros((), dtype=torch.float64)
    for key, entries in rollouts.items():
        advantage = advantages[key]
        ratio = torch.exp(sum((new - old for new, _, old, _, _ in entries), torch.zeros(())) / len(entries))
        bounded = ratio.clamp(max=1.28) if advantage > 0 else ratio.clamp(min=0.8)
        for new, entropy, old, rollout, ref in entries:
            weight = torch.exp(old - rollout).clamp(max=2.0)
            k3 = torch.exp(ref - new) - 1 - (ref - new)
            gain = weight * bounded * advantage - 0.1 * weight * torch.exp(new - old) * k3 + 0.2 * entropy
            total = total - gain / len(entries) / len(rollouts)
    return total


@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_with_everything_on_the_gradient_is_that_of_plain_transformers(
    loaded: Loaded, plain: Any, temperature: float
) -> None:
    rows = cut_rows()
    plain.zero_grad()
    loss = several_loss(plain, rows, temperature)
    loss.backward()
    expected = [parameter.grad for parameter in plain.parameters() if parameter.grad is not None]
    for budget in (1, 1000):
        engine = Watched(loaded.model, OPTIM, 10, budget)
        result = engine.step(rows, SEVERAL, temperature)
        assert result.loss == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-5)
        assert near(engine.gradients, expected)


def near(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Within 1e-4 of the whole gradient's size."""
    ours, theirs = (torch.cat([part.double().flatten() for part in parts]) for parts in (found, expected))
    return float((ours - theirs).norm() / theirs.norm()) < 1e-4


@pytest.mark.parametrize("temperature", [1.0, 0.8])
@pytest.mark.parametrize("name", LOSSES)
def test_a_steps_gradient_is_that_of_plain_transformers_on_whole_sequences(
    loaded: Loaded, plain: Any, name: str, temperature: float
) -> None:
    rows = groups()
    for candidates in (rows, [replace(row, old_logprobs=()) for row in rows]):
        plain.zero_grad()
        loss = plain_loss(plain, candidates, name, temperature)
        loss.backward()
        expected = {key: parameter.grad for key, parameter in plain.named_parameters() if parameter.grad is not None}
        for budget in (1, 60, 1000):
            engine = Watched(loaded.model, OPTIM, 10, budget)
            result = engine.step(candidates, LOSSES[name], temperature)
            names = [key for key, _ in loaded.model.named_parameters()]
            assert names == list(expected)
            assert result.loss == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-5)
            assert near(engine.gradients, list(expected.values()))


def test_scoring_gives_the_logprobs_of_whole_sequences_in_any_packing(loaded: Loaded, plain: Any) -> None:
    rows = groups()
    for budget in (1, 60, 1000):
        for row, scored in zip(rows, Engine(loaded.model, OPTIM, 10, budget).score(rows, 0.8), strict=True):
            found = [value for value, sampled in zip(scored.old_logprobs, row.mask, strict=True) if sampled]
            assert found == pytest.approx(logprobs(plain, row, 0.8).tolist(), abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_in_bfloat16_the_gradient_points_the_same_way(tmp_path: Path, name: str) -> None:
    """As against float64 on the same rounded weights; on policy, where no clip can tip over."""
    from transformers import AutoModelForCausalLM

    folder = tiny_model(tmp_path, initializer_range=0.15)
    ours = load(folder, torch.bfloat16)
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.bfloat16).double()
    rows = [replace(row, old_logprobs=()) for row in groups()]
    plain_loss(plain.eval(), rows, name, 1.0).backward()
    engine = Watched(ours.model, OPTIM, 10, 60)
    engine.step(rows, LOSSES[name])
    expected = torch.cat([parameter.grad.flatten() for parameter in plain.parameters() if parameter.grad is not None])
    found = torch.cat([gradient.double().flatten() for gradient in engine.gradients])
    assert float((found - expected).norm() / expected.norm()) < 0.05
