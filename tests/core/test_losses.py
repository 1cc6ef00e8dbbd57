"""The losses and their gradients, against the papers' formulas written out token by token in float64."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sharpen.config.algorithms import PRESETS, Algorithm
from sharpen.data.pack import Batch, pack
from sharpen.models.head import Predictions
from sharpen.rl.advantages import group_normalized
from sharpen.rl.lengths import overlong_penalty
from sharpen.train.losses import CrossEntropy, Loss, PolicyGradient
from sharpen.types import Sequence as Row

GRPO = PolicyGradient(0.2, 0.2, "sequence")
DAPO = PolicyGradient(0.2, 0.28, "token")
LOSSES = {"grpo": GRPO, "dapo": DAPO}


@dataclass
class Token:
    """One trained token of one sequence."""

    new: float
    old: float
    rollout: float
    advantage: float


Case = list[list[Token]]


def case(seed: int, sequences: int = 20, on_policy: bool = False, spread: float = 0.4) -> Case:
    """Sequences of 1 to 12 tokens; their ratios fall on both sides of both clips, for either sign of the advantage."""
    draw = random.Random(seed)
    found: Case = []
    for index in range(sequences):
        advantage = 0.0 if index == 3 else single(draw.gauss(0, 1))
        tokens = []
        for _ in range(draw.randint(1, 12)):
            old = single(-draw.expovariate(0.7))
            new = old if on_policy else old + draw.gauss(0, spread)
            tokens.append(Token(new, old, single(old + draw.gauss(0, 0.8)), advantage))
        found.append(tokens)
    return found


def single(value: float) -> float:
    """The value as batches carry it, in float32."""
    return float(np.float32(value))


def row(index: int, tokens: list[Token], on_policy: bool = False) -> Row:
    """The sequence as the trainer's row: a prompt of two tokens, and an untrained one in the middle."""
    middle = len(tokens) // 2

    def spread(values: list[float]) -> tuple[float, ...]:
        return (0.0, 0.0, *values[:middle], 0.0, *values[middle:])

    return Row(
        tokens=tuple(range(len(tokens) + 3)),
        mask=(False, False, *[True] * middle, False, *[True] * (len(tokens) - middle)),
        atom=str(index),
        advantages=spread([token.advantage for token in tokens]),
        rollout_logprobs=spread([token.rollout for token in tokens]),
        old_logprobs=() if on_policy else spread([token.old for token in tokens]),
    )


def ours(
    loss: Loss, found: Case, budget: int = 10_000, skip: bool = True, on_policy: bool = False
) -> tuple[float, list[list[float]]]:
    """Loss and gradient of every token, as the engine computes them: sums over batches, divided once."""
    rows = [row(index, tokens, on_policy) for index, tokens in enumerate(found)]
    leaves = [
        torch.tensor([token.new for token in tokens], dtype=torch.float64, requires_grad=True) for tokens in found
    ]
    chosen = [index for index in range(len(rows)) if not skip or loss.teaches(rows[index])]
    count = loss.count(rows)
    value, done = 0.0, 0
    for batch in pack([rows[index] for index in chosen], budget):
        part = chosen[done : done + len(batch.lengths)]
        done += len(part)
        total = loss(predictions(torch.cat([leaves[index] for index in part])), doubled(batch)).total / count
        total.backward()
        value += float(total.detach())
    assert done == len(chosen)
    return value, [leaf.grad.tolist() if leaf.grad is not None else [0.0] * len(leaf) for leaf in leaves]


def doubled(batch: Batch) -> Batch:
    """The batch with its numbers in float64, so that the arithmetic under test is all that can differ."""
    old = batch.old_logprobs
    return replace(
        batch,
        lengths=batch.lengths.double(),
        advantages=batch.advantages.double(),
        rollout_logprobs=batch.rollout_logprobs.double(),
        old_logprobs=old if old is None else old.double(),
    )


def predictions(logprobs: Tensor) -> Predictions:
    return Predictions(logprobs, torch.zeros_like(logprobs), torch.zeros_like(logprobs))


def surrogate(token: Token, low: float, high: float, cap: float) -> float:
    """PPO's objective as Schulman writes it by the sign of A, times the truncated importance weight."""
    ratio = math.exp(token.new - token.old)
    weight = min(math.exp(token.old - token.rollout), cap)
    bounded = min(ratio, 1 + high) if token.advantage > 0 else max(ratio, 1 - low)
    return weight * bounded * token.advantage


def slope(token: Token, low: float, high: float, cap: float) -> float:
    """Its derivative by log π: nothing beyond the clip, ratio·A within, both weighted."""
    ratio = math.exp(token.new - token.old)
    weight = min(math.exp(token.old - token.rollout), cap)
    clipped = ratio > 1 + high if token.advantage > 0 else ratio < 1 - low
    return 0.0 if clipped else weight * ratio * token.advantage


def grpo(found: Case, of: Callable[[Token, float, float, float], float]) -> list[list[float]]:
    """Each token's share of −1/G Σᵢ 1/|oᵢ| Σₜ (arXiv:2402.03300, eq. 3)."""
    return [[-of(token, 0.2, 0.2, 2.0) / len(tokens) / len(found) for token in tokens] for tokens in found]


def dapo(found: Case, of: Callable[[Token, float, float, float], float]) -> list[list[float]]:
    """Each token's share of −1/Σ|oᵢ| ΣᵢΣₜ (arXiv:2503.14476, eq. 8)."""
    total = sum(map(len, found))
    return [[-of(token, 0.2, 0.28, 2.0) / total for token in tokens] for tokens in found]


FORMULAS = {"grpo": grpo, "dapo": dapo}


def flat(parts: Sequence[Sequence[float]]) -> list[float]:
    return [value for part in parts for value in part]


def same(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> bool:
    return flat(found) == pytest.approx(flat(expected), rel=1e-9, abs=1e-12)


def test_the_random_cases_reach_every_side_of_every_clip() -> None:
    tokens = [token for seed in range(3) for part in case(seed) for token in part]
    for sign in (-1, 1):
        ratios = [math.exp(token.new - token.old) for token in tokens if token.advantage * sign > 0]
        for low, high in ((0, 0.8), (0.8, 1.2), (1.2, 1.28), (1.28, math.inf)):
            assert any(low < ratio < high for ratio in ratios)
    weights = [math.exp(token.old - token.rollout) for token in tokens]
    for low, high in ((0, 0.5), (1, 2), (2, math.inf)):
        assert any(low < weight < high for weight in weights)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LOSSES)
def test_policy_losses_and_gradients_are_those_of_the_papers(name: str, seed: int) -> None:
    found = case(seed)
    loss, gradient = ours(LOSSES[name], found)
    assert loss == pytest.approx(sum(flat(FORMULAS[name](found, surrogate))), abs=1e-12)
    assert same(gradient, FORMULAS[name](found, slope))


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradients_are_the_finite_differences_of_the_papers_losses(name: str) -> None:
    found, step = case(7, sequences=4), 1e-6
    _, gradient = ours(LOSSES[name], found)
    for i, tokens in enumerate(found):
        for t, token in enumerate(tokens):
            sides = []
            for shift in (step, -step):
                moved = [list(part) for part in found]
                moved[i][t] = replace(token, new=token.new + shift)
                sides.append(sum(flat(FORMULAS[name](moved, surrogate))))
            assert gradient[i][t] == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_on_policy_the_ratio_is_one_and_the_gradient_the_weighted_advantage(name: str) -> None:
    found = case(5, on_policy=True)
    loss, gradient = ours(LOSSES[name], found, on_policy=True)
    assert loss == pytest.approx(sum(flat(FORMULAS[name](found, surrogate))), abs=1e-12)
    assert same(gradient, FORMULAS[name](found, slope))
    assert any(flat(gradient))


@pytest.mark.parametrize("on_policy", [True, False])
def test_the_mismatch_weight_is_capped_at_two_and_carries_no_gradient(on_policy: bool) -> None:
    for drift, weight in ((math.log(1.5), 1.5), (math.log(3), 2.0), (-math.log(4), 0.25)):
        token = Token(new=-1.0, old=-1.0, rollout=single(-1.0 - drift), advantage=1.0)
        loss, gradient = ours(DAPO, [[token]], on_policy=on_policy)
        assert loss == pytest.approx(-weight, abs=1e-6)
        assert gradient == [[pytest.approx(-weight, abs=1e-6)]], "the ratio's gradient alone"


def test_a_clip_by_hand() -> None:
    """A = 1: gain stops at 1.28; A = −1: the loss stops falling at 0.8; the harmful sides stay unclipped."""
    for ratio, advantage, gain, has_gradient in (
        (1.5, 1.0, 1.28, False),
        (0.5, 1.0, 0.5, True),
        (0.5, -1.0, -0.8, False),
        (1.5, -1.0, -1.5, True),
        (1.25, 1.0, 1.25, True),
    ):
        loss, gradient = ours(DAPO, [[Token(math.log(ratio), 0.0, 0.0, advantage)]])
        assert loss == pytest.approx(-gain)
        assert bool(gradient[0][0]) == has_gradient
    assert ours(GRPO, [[Token(math.log(1.25), 0.0, 0.0, 1.0)]])[0] == pytest.approx(-1.2)


@pytest.mark.parametrize("name", LOSSES)
def test_splitting_a_batch_changes_nothing(name: str) -> None:
    found = case(11)
    whole = ours(LOSSES[name], found)
    for budget in (1, 15, 40):
        loss, gradient = ours(LOSSES[name], found, budget)
        assert loss == pytest.approx(whole[0], abs=1e-12)
        assert flat(gradient) == pytest.approx(flat(whole[1]), abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_sequences_without_advantage_stay_in_the_denominator_and_skipping_them_changes_nothing(name: str) -> None:
    found = case(13)
    found[0] = [replace(token, advantage=0.0) for token in found[0]]
    loss, gradient = ours(LOSSES[name], found)
    unskipped = ours(LOSSES[name], found, skip=False)
    assert loss == pytest.approx(unskipped[0], abs=1e-12)
    assert flat(gradient) == pytest.approx(flat(unskipped[1]), abs=1e-12)
    taught = [part for part in found if part[0].advantage]
    share = len(taught) / len(found) if name == "grpo" else sum(map(len, taught)) / sum(map(len, found))
    alone, _ = ours(LOSSES[name], taught)
    assert loss == pytest.approx(alone * share, abs=1e-12)


def test_which_rows_teach() -> None:
    up, none, down = (row(0, [Token(0, 0, 0, advantage)]) for advantage in (1.0, 0.0, -1.0))
    assert [DAPO.teaches(each) for each in (up, none, down)] == [True, False, True]
    assert CrossEntropy().teaches(none) and not CrossEntropy().teaches(Row((1, 2), (False, False), ""))
    untrained = Row((1, 2), (False, False), "")
    assert GRPO.count([up, none, untrained]) == 2 and DAPO.count([row(0, case(1)[1]), untrained]) == len(case(1)[1])


def test_the_metrics_are_those_of_the_tokens() -> None:
    found = case(17)
    tokens = [token for tokens in found for token in tokens]
    (batch,) = pack([row(index, part) for index, part in enumerate(found)], 10_000)
    logprobs = torch.tensor([token.new for token in tokens], dtype=torch.float64)
    entropy = torch.arange(len(tokens), dtype=torch.float64)
    summed = DAPO(Predictions(logprobs, entropy, entropy), batch)
    clipped = sum(bool(t.advantage) and slope(t, 0.2, 0.28, 2.0) == 0 for t in tokens)
    gaps = [abs(token.old - token.rollout) for token in tokens]
    assert clipped > 5
    assert float(summed.sums["clip_fraction"]) == clipped
    assert float(summed.sums["entropy"]) == sum(range(len(tokens)))
    assert float(summed.sums["logprob_gap"]) == pytest.approx(sum(gaps), rel=1e-5)
    assert float(summed.peaks["logprob_gap_max"]) == pytest.approx(max(gaps), rel=1e-5)


def test_cross_entropy_is_the_mean_over_all_trained_tokens() -> None:
    found = case(19)
    tokens = [token for tokens in found for token in tokens]
    for budget in (1, 30, 10_000):
        loss, gradient = ours(CrossEntropy(), found, budget)
        assert loss == pytest.approx(-sum(token.new for token in tokens) / len(tokens), abs=1e-12)
        assert flat(gradient) == pytest.approx([-1 / len(tokens)] * len(tokens), abs=1e-12)


def test_cross_entropy_counts_right_tokens() -> None:
    (batch,) = pack([row(0, case(1)[1])], 100)
    correct = torch.ones(len(batch.target))
    correct[0] = 0
    summed = CrossEntropy()(Predictions(torch.zeros_like(correct), correct, correct), batch)
    assert float(summed.sums["token_accuracy"]) == len(correct) - 1


def test_the_presets_are_the_pinned_ones() -> None:
    assert PolicyGradient() == replace(DAPO, mismatch_cap=2.0)
    for name, loss in LOSSES.items():
        algorithm = Algorithm.model_validate({"preset": name})
        for setting in ("clip_low", "clip_high", "normalizer", "mismatch_cap", "ratio", "clip", "entropy_coef"):
            assert getattr(algorithm, setting) == getattr(loss, setting)
    assert (PRESETS["grpo"]["overlong_buffer"], PRESETS["dapo"]["overlong_buffer"]) == (0.0, 0.2)


def test_advantages_by_hand() -> None:
    assert group_normalized([0.0, 0.0, 1.0, 1.0]) == pytest.approx([-math.sqrt(3) / 2] * 2 + [math.sqrt(3) / 2] * 2)
    assert group_normalized([1.0, 3.0]) == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)])


def test_advantages_are_standard_scores_with_the_samples_deviation() -> None:
    draw = random.Random(3)
    for size in (2, 3, 8, 64):
        rewards = [draw.gauss(5, 3) for _ in range(size)]
        mean, std = statistics.mean(rewards), statistics.stdev(rewards)
        assert group_normalized(rewards) == pytest.approx([(reward - mean) / std for reward in rewards])


def test_faulty_rollouts_leave_mean_and_deviation() -> None:
    valid = group_normalized([0.0, 0.5, 1.0])
    assert valid is not None
    assert group_normalized([None, 0.0, 0.5, None, 1.0]) == pytest.approx([0.0, *valid[:2], 0.0, valid[2]])


def test_groups_with_fewer_than_two_valid_rewards_are_dropped() -> None:
    assert group_normalized([]) is None
    assert group_normalized([None, None]) is None
    assert group_normalized([None, 1.0, None]) is None
    assert group_normalized([None, 1.0, 0.0]) is not None


def test_groups_without_spread_have_no_advantage() -> None:
    assert group_normalized([0.3, 0.3, None]) == [0.0, 0.0, 0.0]
    assert group_normalized([0.1 + 0.2, 0.3]) == [0.0, 0.0], "equal but for rounding"
    assert group_normalized([0.3, 0.301]) == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)])


@pytest.mark.parametrize(
    ("length", "expected"), [(1, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1.0), (120, -1.0)]
)
def test_the_overlong_penalty_by_hand(length: int, expected: float) -> None:
    """L_max = 100, L_cache = 20: eq. 13 is (80 − |y|)/20 between 80 and 100."""
    assert overlong_penalty(length, 100, 0.2) == pytest.approx(expected, abs=1e-12)


def test_without_a_buffer_length_costs_nothing() -> None:
    assert [overlong_penalty(length, 100, 0.0) for length in (1, 100)] == [0.0, 0.0]
