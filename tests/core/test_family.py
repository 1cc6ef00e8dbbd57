"""Every preset of the GRPO family, and every free composition, against its formula in float64, token by token."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from sharpen.config.algorithms import PRESETS, Algorithm
from sharpen.config.stages import RFT
from sharpen.data.pack import pack
from sharpen.models.head import Predictions
from sharpen.rl.advantages import group_centered, group_normalized, leave_one_out
from sharpen.stages.credit import loss_of
from sharpen.train.losses import PolicyGradient
from sharpen.types import Sequence as Row
from tests.core.test_losses import doubled, single

MAX_TOKENS = 16

PINNED: dict[str, dict[str, Any]] = {
    "grpo": {"ratio": "token", "clip": "ppo", "low": 0.2, "high": 0.2, "normalizer": "sequence"},
    "dr_grpo": {"ratio": "token", "clip": "ppo", "low": 0.2, "high": 0.2, "normalizer": "max_tokens"},
    "dapo": {"ratio": "token", "clip": "ppo", "low": 0.2, "high": 0.28, "normalizer": "token"},
    "gspo": {"ratio": "sequence", "clip": "ppo", "low": 3e-4, "high": 4e-4, "normalizer": "sequence"},
    "cispo": {"ratio": "token", "clip": "cispo", "high": 5.0, "normalizer": "token"},
    "rloo": {"ratio": "token", "clip": "none", "normalizer": "sequence_sum"},
}
"""The table of docs/algorithms.md, in the words of `plain`."""


SPREADS = {"gspo": 1e-3, "cispo": 2.0}
"""Of log π / π_old, where 1 would not lead to both sides of each clip."""


@dataclass
class Attempt:
    """One rollout: of each of its segments' tokens log π and the entropy (leaves), and the fixed numbers."""

    group: int
    advantage: float
    new: list[list[Tensor]] = field(default_factory=list)
    entropy: list[list[Tensor]] = field(default_factory=list)
    old: list[list[float]] = field(default_factory=list)
    rollout: list[list[float]] = field(default_factory=list)
    ref: list[list[float]] = field(default_factory=list)

    def tokens(self) -> Iterator[tuple[Tensor, Tensor, float, float, float]]:
        for parts in zip(self.new, self.entropy, self.old, self.rollout, self.ref, strict=True):
            yield from zip(*parts, strict=True)


def attempts(seed: int, spread: float = 0.5, on_policy: bool = False) -> list[Attempt]:
    """Four groups of three rollouts, of one to three segments; the second group has no spread."""
    draw = random.Random(seed)
    found = []
    for group in range(4):
        for _ in range(3):
            attempt = Attempt(group, 0.0 if group == 1 else single(draw.gauss(0, 1)))
            for _ in range(draw.randint(1, 3)):
                size = draw.randint(1, 4)
                old = [single(-draw.expovariate(0.7)) for _ in range(size)]
                attempt.old.append(old)
                attempt.new.append([leaf(value + (0 if on_policy else draw.gauss(0, spread))) for value in old])
                attempt.entropy.append([leaf(draw.uniform(0, 3)) for _ in range(size)])
                attempt.rollout.append([single(value + draw.gauss(0, 0.8)) for value in old])
                attempt.ref.append([single(value + draw.gauss(0, 1)) for value in old])
            found.append(attempt)
    return found


def leaf(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def constant(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def rows_of(found: list[Attempt], on_policy: bool = False) -> list[Row]:
    """The trainer's rows, one a segment: an untrained token, then the trained ones."""
    rows = []
    for index, attempt in enumerate(found):
        for old, rollout, ref in zip(attempt.old, attempt.rollout, attempt.ref, strict=True):
            rows.append(
                Row(
                    tokens=tuple(range(len(old) + 1)),
                    mask=(False, *[True] * len(old)),
                    atom=str(attempt.group),
                    advantages=(0.0, *[attempt.advantage] * len(old)),
                    rollout_logprobs=(0.0, *rollout),
                    old_logprobs=() if on_policy else (0.0, *old),
                    ref_logprobs=(0.0, *ref),
                    attempt=index,
                )
            )
    return rows


def leaves(found: list[Attempt]) -> list[Tensor]:
    return [value for attempt in found for parts in (*attempt.new, *attempt.entropy) for value in parts]


def gradients(found: list[Attempt], total: Tensor) -> list[float]:
    wanted = leaves(found)
    grads = torch.autograd.grad(total, wanted, allow_unused=True)
    return [0.0 if grad is None else float(grad) for grad in grads]


def ours(
    loss: PolicyGradient, found: list[Attempt], budget: int = 10_000, skip: bool = True, on_policy: bool = False
) -> tuple[float, list[float]]:
    """As the engine computes it: sums over batches, of the rows that teach, divided once by the count of all."""
    rows = rows_of(found, on_policy)
    new = [part for attempt in found for part in attempt.new]
    entropy = [part for attempt in found for part in attempt.entropy]
    chosen = [index for index, row in enumerate(rows) if not skip or loss.teaches(row)]
    total, done = torch.zeros((), dtype=torch.float64), 0
    for batch in pack([rows[index] for index in chosen], budget):
        part = chosen[done : done + batch.rows]
        done += batch.rows
        logprobs, entropies = (torch.stack([t for index in part for t in lists[index]]) for lists in (new, entropy))
        ref = batch.ref_logprobs
        assert ref is not None
        wide = replace(doubled(batch), ref_logprobs=ref.double())
        total = total + loss(Predictions(logprobs, entropies, torch.zeros_like(logprobs)), wide).total
    assert done == len(chosen)
    total = total / loss.count(rows)
    return float(total.detach()), gradients(found, total)


def plain(
    found: list[Attempt],
    *,
    ratio: str,
    clip: str,
    normalizer: str,
    low: float = 0.0,
    high: float = 0.0,
    cap: float = 2.0,
    kl: tuple[float, str, bool] = (0.0, "", False),
    entropy_coef: float = 0.0,
) -> tuple[float, list[float]]:
    """The loss as the papers write it, in loops over rollouts and their tokens."""
    coef, estimator, weighted = kl
    token_count = sum(1 for attempt in found for _ in attempt.tokens())
    total = torch.zeros((), dtype=torch.float64)
    for attempt in found:
        tokens = list(attempt.tokens())
        length = len(tokens)
        log_ratios = [new - old for new, _, old, _, _ in tokens]
        whole = torch.exp(torch.stack(log_ratios).sum() / length)
        of_sequence = torch.zeros((), dtype=torch.float64)
        for (new, entropy, old, rollout, ref), log_ratio in zip(tokens, log_ratios, strict=True):
            r = whole if ratio == "sequence" else torch.exp(log_ratio)
            weight = min(math.exp(old - rollout), cap)
            advantage = attempt.advantage
            if clip == "cispo":
                gain = min(r.item(), high) * advantage * new
            elif clip == "ppo" and advantage > 0:
                gain = advantage * (r if r.item() < 1 + high else constant(1 + high))
            elif clip == "ppo":
                gain = advantage * (r if r.item() > 1 - low else constant(1 - low))
            else:
                gain = advantage * r
            penalty = {
                "": torch.zeros(()),
                "k2": (new - ref) * (new - ref) / 2,
                "k3": torch.exp(ref - new) - 1 - (ref - new),
            }[estimator]
            if weighted:
                penalty = penalty * weight * torch.exp(log_ratio)
            of_sequence = of_sequence + weight * gain - coef * penalty + entropy_coef * entropy
        share = {
            "sequence": 1 / length / len(found),
            "token": 1 / token_count,
            "max_tokens": 1 / (len(found) * MAX_TOKENS),
            "sequence_sum": 1 / len(found),
        }[normalizer]
        total = total - share * of_sequence
    return float(total.detach()), gradients(found, total)


def stage(**algorithm: Any) -> RFT:
    return RFT.model_validate(
        {
            "data": {"path": "x.jsonl"},
            "grader": {"type": "string_check"},
            "algorithm": algorithm,
            "sampling": {"max_tokens": MAX_TOKENS},
        }
    )


def agree(one: tuple[float, list[float]], other: tuple[float, list[float]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-9, abs=1e-12)
    assert one[1] == pytest.approx(other[1], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("on_policy", [False, True])
@pytest.mark.parametrize("preset", PINNED)
def test_each_presets_loss_and_gradient_are_the_formulas(preset: str, on_policy: bool, seed: int) -> None:
    """Off policy as on the second of several optimiser steps, with `old_logprobs`; on policy as on the first."""
    found = attempts(seed, SPREADS.get(preset, 1.0), on_policy)
    loss = loss_of(stage(preset=preset))
    agree(ours(loss, found, on_policy=on_policy), plain(found, **PINNED[preset]))


@pytest.mark.parametrize("preset", ["grpo", "gspo", "cispo"])
def test_the_cases_meet_both_sides_of_each_clip(preset: str) -> None:
    found = [attempt for seed in range(3) for attempt in attempts(seed, SPREADS.get(preset, 1.0))]
    low, high = {"grpo": (0.8, 1.2), "gspo": (1 - 3e-4, 1 + 4e-4), "cispo": (0.5, 5.0)}[preset]
    for sign in (1, -1):
        ratios: list[float] = []
        for attempt in found:
            changes = [new.item() - old for new, _, old, _, _ in attempt.tokens()]
            if attempt.advantage * sign > 0:
                ratios += [math.exp(sum(changes) / len(changes))] if preset == "gspo" else map(math.exp, changes)
        assert any(ratio < low for ratio in ratios) and any(low < ratio < high for ratio in ratios)
        assert any(ratio > high for ratio in ratios)


COMPOSITIONS = [
    {"ratio": ratio, "clip": clip, "normalizer": normalizer}
    for ratio, clip, normalizer in product(
        ("token", "sequence"), ("ppo", "cispo", "none"), ("sequence", "token", "max_tokens", "sequence_sum")
    )
]


@pytest.mark.parametrize("index", range(len(COMPOSITIONS)))
def test_free_compositions_with_kl_and_entropy_are_the_formulas(index: int) -> None:
    chosen = COMPOSITIONS[index]
    bounds = {"ppo": {"clip_low": 0.1, "clip_high": 0.3}, "cispo": {"clip_high": 1.1}, "none": {}}[chosen["clip"]]
    estimator, weighted = (("k2", False), ("k3", False), ("k2", True), ("k3", True))[index % 4]
    settings = {
        **chosen,
        **bounds,
        "mismatch_cap": 1.3,
        "kl": {"coef": 0.07, "estimator": estimator, "importance_weighted": weighted},
        "entropy_coef": 0.03,
    }
    found = attempts(index)
    expected = plain(
        found,
        **chosen,
        low=0.1,
        high=bounds.get("clip_high", 0.0),
        cap=1.3,
        kl=(0.07, estimator, weighted),
        entropy_coef=0.03,
    )
    for preset in ("dapo", "rloo"):
        agree(ours(loss_of(stage(preset=preset, **settings)), found), expected)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_kl_term_alone_is_its_estimators_mean(estimator: str, weighted: bool) -> None:
    found = [replace(attempt, advantage=0.0) for attempt in attempts(5)]
    loss = loss_of(stage(kl={"coef": 0.5, "estimator": estimator, "importance_weighted": weighted}))
    agree(ours(loss, found), plain(found, **PINNED["dapo"], kl=(0.5, estimator, weighted)))
    assert ours(loss, found)[0] > 0


def test_k3_by_hand() -> None:
    """π = ½, π_ref = ¼: k3 = ½ − 1 + ln 2; its slope by log π is 1 − ½; k2 = ½ ln² 2, its slope ln 2."""
    token = Attempt(
        0, 0.0, [[leaf(math.log(0.5))]], [[leaf(0.0)]], [[math.log(0.5)]], [[math.log(0.5)]], [[single(math.log(0.25))]]
    )
    value, (slope, _) = ours(loss_of(stage(kl={"coef": 1.0})), [token])
    assert value == pytest.approx(math.log(2) - 0.5, abs=1e-6) and slope == pytest.approx(0.5, abs=1e-6)
    value, (slope, _) = ours(loss_of(stage(kl={"coef": 1.0, "estimator": "k2"})), [token])
    assert value == pytest.approx(math.log(2) ** 2 / 2, abs=1e-6) and slope == pytest.approx(math.log(2), abs=1e-6)


def test_the_sequence_ratio_by_hand() -> None:
    """Two segments of 1 and 3 tokens with ratios e⁴, 1, 1, 1: s = e, and each token's gradient is A·s/4."""
    old = [[-5.0], [-1.0, -1.0, -1.0]]
    new = [[leaf(-1.0)], [leaf(-1.0), leaf(-1.0), leaf(-1.0)]]
    attempt = Attempt(0, 1.0, new, [[leaf(0.0)], [leaf(0.0)] * 3], old, old, old)
    loss = loss_of(stage(preset="gspo", clip="none"))
    value, grads = ours(loss, [attempt])
    assert value == pytest.approx(-math.e)
    assert grads[:4] == pytest.approx([-math.e / 4] * 4)
    (batch,) = pack(rows_of([attempt]), 100)
    assert batch.lengths.tolist() == [4] and batch.sequence.tolist() == [0, 0, 0, 0] and batch.rows == 2


def test_cispos_cap_is_clip_high_itself_and_clipped_tokens_keep_their_gradient() -> None:
    for ratio, weight in ((0.1, 0.1), (3.0, 3.0), (9.0, 5.0)):
        token = Attempt(0, -1.0, [[leaf(math.log(ratio))]], [[leaf(0.0)]], [[0.0]], [[0.0]], [[0.0]])
        value, (slope, _) = ours(loss_of(stage(preset="cispo")), [token])
        assert value == pytest.approx(weight * math.log(ratio)) and slope == pytest.approx(weight)


EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "kl": {"kl": {"coef": 0.1}},
    "entropy": {"entropy_coef": 0.1},
}


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("preset", PINNED)
def test_skipping_what_does_not_teach_and_splitting_change_nothing(preset: str, extra: str) -> None:
    found = attempts(8)
    loss = loss_of(stage(preset=preset, **EXTRAS[extra]))
    whole = ours(loss, found, skip=False)
    for budget in (1, 20, 10_000):
        agree(ours(loss, found, budget), whole)
    without_spread = [row for row in rows_of(found) if row.atom == "1"]
    assert [loss.teaches(row) for row in without_spread] == [extra != "plain"] * len(without_spread)


@pytest.mark.parametrize("preset", PINNED)
def test_groups_without_spread_stay_in_the_denominator(preset: str) -> None:
    found = attempts(9)
    taught = [attempt for attempt in found if attempt.group != 1]
    loss = loss_of(stage(preset=preset))
    by_token = PINNED[preset]["normalizer"] == "token"
    sizes = [sum(1 for each in part for _ in each.tokens()) if by_token else len(part) for part in (taught, found)]
    assert ours(loss, found)[0] == pytest.approx(ours(loss, taught)[0] * sizes[0] / sizes[1])


def test_the_entropy_metric_carries_no_gradient() -> None:
    (batch,) = pack(rows_of(attempts(1)), 10_000)
    entropy = torch.ones(len(batch.target), requires_grad=True)
    summed = loss_of(stage(entropy_coef=0.1))(Predictions(entropy, entropy, entropy), batch)
    assert summed.total.requires_grad and not summed.sums["entropy"].requires_grad
    assert float(summed.sums["entropy"]) == len(batch.target)


def test_the_clip_fraction_counts_what_lost_its_ratio() -> None:
    found = attempts(4, 2.0)
    tokens = [(new.item() - old, attempt.advantage) for attempt in found for new, _, old, _, _ in attempt.tokens()]
    expected = {
        "cispo": sum(change > math.log(5) for change, _ in tokens),
        "grpo": sum((a > 0 and change > math.log(1.2)) or (a < 0 and change < math.log(0.8)) for change, a in tokens),
        "rloo": 0,
    }
    for preset, count in expected.items():
        (batch,) = pack(rows_of(found), 10_000)
        logprobs = torch.stack([new for attempt in found for new, *_ in attempt.tokens()])
        loss = loss_of(stage(preset=preset))
        assert float(loss(Predictions(logprobs, logprobs, logprobs), batch).sums["clip_fraction"]) == count
    assert expected["cispo"] and expected["grpo"]


def test_the_advantages_by_hand() -> None:
    rewards = [1.0, 2.0, None, 6.0]
    assert group_centered(rewards) == pytest.approx([-2.0, -1.0, 0.0, 3.0])
    assert leave_one_out(rewards) == pytest.approx([1 - 4.0, 2 - 3.5, 0.0, 6 - 1.5])
    std = math.sqrt((4 + 1 + 9) / 2)
    assert group_normalized(rewards) == pytest.approx([-2 / std, -1 / std, 0.0, 3 / std])
    for of in (group_centered, leave_one_out):
        assert of([None, 1.0]) is None and of([0.5, None, 0.5]) == [0.0, 0.0, 0.0]


def test_each_preset_takes_the_pinned_advantage() -> None:
    pinned = {"dr_grpo": "centered", "rloo": "leave_one_out"}
    for name in PRESETS:
        assert Algorithm.model_validate({"preset": name}).advantage == pinned.get(name, "normalized")
    assert PRESETS.keys() == PINNED.keys()
