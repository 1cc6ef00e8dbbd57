"""The losses of preferences: TRL's own values and gradients, numbers worked by hand, and properties."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from sharpen.config.preferences import CPO, IPO, KTO, ORPO, AnyPreferenceLoss, Hinge, PreferenceLoss, Sigmoid, SimPO
from sharpen.data.pack import Batch, pack
from sharpen.models.head import Predictions
from sharpen.train.losses import LossSum
from sharpen.train.preferences import KTOLoss, PairLoss, z0_of
from sharpen.types import Sequence as Row

TRL: list[dict[str, Any]] = json.loads((Path(__file__).parent / "trl_preferences.json").read_text())["cases"]
"""What TRL 1.16's own trainers say: `.venvs/trl/bin/python -m bench.trl_losses`."""

Numbers = list[float]
EVERY = [Sigmoid(), Sigmoid(label_smoothing=0.2), IPO(), Hinge(), SimPO(label_smoothing=0.1), ORPO(), CPO(), KTO()]

POLICY = [[-1.0, -0.5], [-0.75], [-0.25], [-1.0, -2.0, -0.5]]
"""log π of each token: a pair whose better answer is the longer one, and a pair whose worse is."""

START = [[-1.5, -1.0], [-0.5], [-0.5], [-0.5, -1.0, -1.5]]
"""The same, log π_ref. The differences of whole answers are 1, −0.25, 0.25 and −0.5."""


def config(values: dict[str, Any]) -> PreferenceLoss:
    made: PreferenceLoss = TypeAdapter(AnyPreferenceLoss).validate_python(values)
    return made


def rows(policy: Sequence[Numbers], start: Sequence[Numbers], desirable: Sequence[bool] = ()) -> list[Row]:
    """Answers after a prompt of two tokens and one untrained token between their turns; pairs unless `desirable` says
    what each answer is."""
    made = []
    for place, (own, known) in enumerate(zip(policy, start, strict=True)):
        middle = len(own) // 2

        def spread(values: Numbers, middle: int = middle) -> tuple[float, ...]:
            return (0.0, 0.0, *values[:middle], 0.0, *values[middle:])

        sign = [1.0 if desirable[place] else -1.0] * len(own) if desirable else [0.0] * len(own)
        made.append(
            Row(
                tokens=(1, 2, *range(3 + 20 * place, 4 + 20 * place + len(own))),
                mask=tuple(value < 0 for value in spread([-1.0] * len(own))),
                atom=str(place if desirable else place // 2),
                shared=0 if desirable else 2,
                advantages=spread(sign),
                ref_logprobs=spread(known),
            )
        )
    return made


def doubled(batch: Batch) -> Batch:
    """The batch with its numbers in float64, so that the arithmetic under test is all that can differ."""
    assert batch.ref_logprobs is not None
    return replace(
        batch,
        lengths=batch.lengths.double(),
        advantages=batch.advantages.double(),
        ref_logprobs=batch.ref_logprobs.double(),
    )


def said(logprobs: Tensor) -> Predictions:
    return Predictions(logprobs, torch.zeros_like(logprobs), torch.zeros_like(logprobs))


def made(of: PreferenceLoss, answers: Sequence[Row], z0: float = 0.0) -> PairLoss | KTOLoss:
    return KTOLoss(of, z0) if isinstance(of, KTO) else PairLoss.of_step(of, answers)


def step(
    of: PreferenceLoss, policy: Sequence[Numbers], answers: Sequence[Row], budget: int = 10_000, z0: float = 0.0
) -> tuple[float, list[Numbers], dict[str, float]]:
    """Loss, gradient of every token and metrics, as the engine computes them: sums over batches, divided once."""
    loss = made(of, answers, z0)
    leaves = [torch.tensor(own, dtype=torch.float64, requires_grad=True) for own in policy]
    value, done = 0.0, 0
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for batch in pack(answers, budget, whole=loss.whole):
        part = leaves[done : done + batch.rows]
        done += batch.rows
        found = loss(said(torch.cat(part)), doubled(batch))
        (found.total / loss.count(answers)).backward()
        value += float(found.total.detach()) / loss.count(answers)
        for name, one in found.sums.items():
            sums[name] = sums.get(name, 0.0) + float(one)
            counts[name] = counts.get(name, 0.0) + found.counts[name]
    assert done == len(leaves)
    gradients = [leaf.grad.tolist() if leaf.grad is not None else [] for leaf in leaves]
    return value, gradients, {name: sums[name] / counts[name] for name in sums if counts[name]}


def flat(lists: Sequence[Numbers]) -> Numbers:
    return [value for numbers in lists for value in numbers]


@pytest.mark.parametrize("budget", [1, 30, 10_000])
@pytest.mark.parametrize("place", range(len(TRL)), ids=[f"{n}-{case['loss']['type']}" for n, case in enumerate(TRL)])
def test_losses_and_gradients_are_trls(place: int, budget: int) -> None:
    case = TRL[place]
    policy, start = ([answer[name] for answer in case["answers"]] for name in ("policy", "start"))
    answers = rows(policy, start, case.get("desirable", ()))
    z0 = z0_of(
        [
            Row((), (), "", old_logprobs=tuple(one["policy"]), ref_logprobs=tuple(one["start"]))
            for one in case.get("mismatched", ({"policy": (), "start": ()},))
        ]
    )
    value, gradients, _ = step(config(case["loss"]), policy, answers, budget, z0)
    near = 1e-6 if case["loss"]["type"] == "orpo" else 1e-12  # TRL computes odds in float32
    assert value == pytest.approx(case["value"], rel=near)
    assert flat(gradients) == pytest.approx(flat(case["gradients"]), rel=10 * near, abs=near / 10)


def test_trl_was_asked_on_both_sides_of_every_bend() -> None:
    hinge = next(case for case in TRL if case["loss"] == {"type": "hinge", "beta": 0.5})
    assert {gradient[0] == 0 for gradient in hinge["gradients"]} == {True, False}
    kls = [
        sum(sum(one["policy"]) - sum(one["start"]) for one in case["mismatched"])
        for case in TRL
        if case["loss"]["type"] == "kto"
    ]
    assert min(kls) < 0 < max(kls)
    assert {case["loss"]["type"] for case in TRL} == {of.model_dump()["type"] for of in EVERY}


def test_the_smoothed_loss_of_dpo_is_that_of_cpo_on_the_differences_from_the_start() -> None:
    """TRL 1.16 has label smoothing in CPO only, with the formula that its DPO had."""
    case = next(case for case in TRL if case["loss"]["type"] == "cpo" and case["loss"]["cpo_alpha"] == 0)
    policy = [answer["policy"] for answer in case["answers"]]
    start = [[-0.25 - 0.5 * (n % 3) for n in range(len(own))] for own in policy]
    moved = [[own + by for own, by in zip(*pair, strict=True)] for pair in zip(policy, start, strict=True)]
    smoothed = Sigmoid(beta=case["loss"]["beta"], label_smoothing=case["loss"]["label_smoothing"])
    value, gradients, _ = step(smoothed, moved, rows(moved, start))
    assert value == pytest.approx(case["value"], rel=1e-12)
    assert flat(gradients) == pytest.approx(flat(case["gradients"]), rel=1e-11)


def softplus(value: float) -> float:
    """−log σ(−value)."""
    return math.log1p(math.exp(value))


def odds(mean: float) -> float:
    return math.exp(mean) / (1 - math.exp(mean))


BY_HAND: list[tuple[PreferenceLoss, float]] = [
    # r_w − r_l is 1.25 in the first pair, 0.75 in the second.
    (Sigmoid(beta=0.5), (softplus(-0.625) + softplus(-0.375)) / 2),
    (
        Sigmoid(beta=0.5, label_smoothing=0.2),
        (0.8 * softplus(-0.625) + 0.2 * softplus(0.625) + 0.8 * softplus(-0.375) + 0.2 * softplus(0.375)) / 2,
    ),
    (Hinge(beta=1.0), (0.0 + 0.25) / 2),
    # r/|y|: 1/2 and −1/4, 1/4 and −1/6.
    (IPO(beta=2.0), ((0.75 - 0.25) ** 2 + (5 / 12 - 0.25) ** 2) / 2),
    # log π/|y|: −0.75 and −0.75, −0.25 and −3.5/3.
    (SimPO(beta=2.0, simpo_gamma=0.5), (softplus(0.5) + softplus(0.5 - 2 * (3.5 / 3 - 0.25))) / 2),
    (
        SimPO(beta=2.0, simpo_gamma=0.5, label_smoothing=0.25),
        0.75 * (softplus(0.5) + softplus(-4 / 3)) / 2 + 0.25 * (softplus(-0.5) + softplus(4 / 3)) / 2,
    ),
    # log π: −1.5 and −0.75, −0.25 and −3.5; the better answers have 3 tokens and −1.75 together.
    (CPO(beta=0.5, cpo_alpha=0.0), (softplus(0.375) + softplus(-1.625)) / 2),
    (CPO(beta=0.5, cpo_alpha=2.0), (softplus(0.375) + softplus(-1.625)) / 2 + 2 * 1.75 / 3),
    (
        CPO(beta=0.5, cpo_alpha=0.0, label_smoothing=0.1),
        0.9 * (softplus(0.375) + softplus(-1.625)) / 2 + 0.1 * (softplus(-0.375) + softplus(1.625)) / 2,
    ),
    (
        ORPO(beta=0.3),
        1.75 / 3 + 0.3 * (math.log(2) + softplus(-math.log(odds(-0.25) / odds(-3.5 / 3)))) / 2,
    ),
]


@pytest.mark.parametrize(("of", "wanted"), BY_HAND, ids=[str(of) for of, _ in BY_HAND])
def test_two_pairs_by_hand(of: PreferenceLoss, wanted: float) -> None:
    assert step(of, POLICY, rows(POLICY, START))[0] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("z0", "weights"), [(0.0, (1.0, 1.0)), (0.5, (1.0, 1.0)), (0.5, (2.0, 0.5))])
def test_two_good_and_two_bad_answers_by_hand(z0: float, weights: tuple[float, float]) -> None:
    """1 − σ(β (r − z₀)) for good ones, and for bad ones with the sign turned."""
    of = KTO(beta=0.5, desirable_weight=weights[0], undesirable_weight=weights[1])
    good, bad = (
        [1 / (1 + math.exp(sign * 0.5 * (r - z0))) for r in those]
        for sign, those in ((1, (1, 0.25)), (-1, (-0.25, -0.5)))
    )
    desirable = [True, False, True, False]
    value, _, metrics = step(of, POLICY, rows(POLICY, START, desirable), z0=z0)
    assert value == pytest.approx((weights[0] * sum(good) + weights[1] * sum(bad)) / 4, rel=1e-12)
    assert metrics == pytest.approx(
        {
            "kl": z0,
            "rewards/chosen": 0.5 * 1.25 / 2,
            "rewards/rejected": 0.5 * -0.75 / 2,
            "logps/chosen": -1.75 / 2,
            "logps/rejected": -4.25 / 2,
            "rewards/accuracies": 1.0 if z0 < 0.25 else 0.75,
        }
    )


def test_z0_is_the_mean_over_answers_and_never_below_zero() -> None:
    def row(policy: tuple[float, ...], start: tuple[float, ...]) -> Row:
        return Row((), (), "", old_logprobs=policy, ref_logprobs=start)

    near, far = row((0.0, -1.0, -2.0), (0.0, -2.0, -2.5)), row((0.0, -0.5), (0.0, -1.0))
    assert z0_of([near, far]) == pytest.approx((1.5 + 0.5) / 2)
    below = row((0.0, -9.0), (0.0, -1.0))
    assert z0_of([near, below]) == 0.0, "clamped after the mean is taken"


def test_what_is_said_of_pairs_by_hand() -> None:
    start = [[-1.5, -1.0], [-0.5], [-0.5], [-0.5, -1.0, -2.0]]
    policy = [*POLICY[:3], [-0.5, -1.0, -0.5]]  # the second pair is the wrong way round: 0.25 and 1.5
    _, _, metrics = step(Sigmoid(beta=0.5), policy, rows(policy, start))
    away = [math.exp(start - own) - 1 - (start - own) for own, start in ((-1.0, -1.5), (-0.5, -1.0), (-0.25, -0.5))]
    assert metrics == pytest.approx(
        {
            "kl": sum(away) / 3,
            "rewards/chosen": 0.5 * (1 + 0.25) / 2,
            "rewards/rejected": 0.5 * (-0.25 + 1.5) / 2,
            "rewards/margins": 0.5 * (1.25 - 1.25) / 2,
            "rewards/accuracies": 0.5,
            "logps/chosen": (-1.5 - 0.25) / 2,
            "logps/rejected": (-0.75 - 2.0) / 2,
        }
    )


@pytest.mark.parametrize(
    ("of", "chosen", "rejected", "right"),
    [
        (Hinge(beta=0.5), 0.5 * 0.625, 0.5 * -0.375, 1.0),
        (IPO(beta=0.5), 0.5 * 0.625, 0.5 * -0.375, 1.0),
        (SimPO(beta=0.5), 0.5 * (-0.75 - 0.25) / 2, 0.5 * (-0.75 - 3.5 / 3) / 2, 0.5),
        (ORPO(beta=0.5), 0.5 * (-0.75 - 0.25) / 2, 0.5 * (-0.75 - 3.5 / 3) / 2, 0.5),
        (CPO(beta=0.5), 0.5 * -1.75 / 2, 0.5 * -4.25 / 2, 0.5),
    ],
    ids=str,
)
def test_rewards_are_what_the_loss_compares(of: PreferenceLoss, chosen: float, rejected: float, right: float) -> None:
    """Of IPO they are DPO's, as TRL has it: whole answers, not means. Equal ones are not right."""
    _, _, metrics = step(of, POLICY, rows(POLICY, START))
    assert metrics["rewards/chosen"] == pytest.approx(chosen)
    assert metrics["rewards/rejected"] == pytest.approx(rejected)
    assert metrics["rewards/margins"] == pytest.approx(chosen - rejected)
    assert metrics["rewards/accuracies"] == right
    assert ("kl" in metrics) == of.needs_reference


@pytest.mark.parametrize("of", EVERY, ids=str)
def test_gradients_are_those_of_finite_differences(of: PreferenceLoss) -> None:
    desirable = [True, False, True, False] if isinstance(of, KTO) else ()
    answers = rows(POLICY, START, desirable)
    loss, (batch,) = made(of, answers, z0=0.25), pack(answers, 10_000, whole=True)

    def total(logprobs: Tensor) -> Tensor:
        found: LossSum = loss(said(logprobs), doubled(batch))
        assert not any(one.requires_grad for one in found.sums.values())
        return found.total

    leaf = torch.tensor(flat(POLICY), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, leaf)


@pytest.mark.parametrize("of", EVERY, ids=str)
def test_a_step_raises_the_better_answer_and_lowers_the_worse(of: PreferenceLoss) -> None:
    desirable = [True, False, True, False] if isinstance(of, KTO) else ()
    _, gradients, _ = step(of, POLICY, rows(POLICY, START, desirable))
    assert all(max(own) <= 0 for own in gradients[::2]) and all(min(own) >= 0 for own in gradients[1::2])
    assert any(flat(gradients[::2])) and any(flat(gradients[1::2]))


@pytest.mark.parametrize("of", [Sigmoid(), Hinge(), IPO()], ids=str)
def test_where_the_policy_is_its_start_nothing_is_preferred(of: PreferenceLoss) -> None:
    value, _, metrics = step(of, POLICY, rows(POLICY, POLICY))
    wanted = {"sigmoid": math.log(2), "hinge": 1.0, "ipo": (1 / (2 * 0.1)) ** 2}[of.model_dump()["type"]]
    assert value == pytest.approx(wanted, rel=1e-12)
    assert {name: metrics[name] for name in ("kl", "rewards/margins", "rewards/accuracies")} == {
        "kl": 0.0,
        "rewards/margins": 0.0,
        "rewards/accuracies": 0.0,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odds_stay_finite_where_the_policy_is_certain(dtype: torch.dtype) -> None:
    answers = rows([[-1.0, -1.0], [-1.0]], [[-1.0, -1.0], [-1.0]])
    (batch,) = pack(answers, 100, whole=True)
    for logprobs in ([0.0, 0.0, -1.0], [-1.0, -1.0, 0.0], [-1e-30, -1e-30, -80.0], [-90.0, -90.0, -1e-3]):
        leaf = torch.tensor(logprobs, dtype=dtype, requires_grad=True)
        found = PairLoss.of_step(ORPO(), answers)(said(leaf), batch)
        found.total.backward()
        assert leaf.grad is not None and leaf.grad.isfinite().all() and found.total.isfinite()


@pytest.mark.parametrize(
    ("of", "changes"),
    [
        (Sigmoid(), {"beta": 0.2, "label_smoothing": 0.1}),
        (IPO(), {"beta": 0.2}),
        (Hinge(), {"beta": 0.2}),
        (SimPO(), {"beta": 1.0, "simpo_gamma": 0.5, "label_smoothing": 0.1}),
        (ORPO(), {"beta": 0.2}),
        (CPO(), {"beta": 0.2, "cpo_alpha": 0.5, "label_smoothing": 0.1}),
        (KTO(), {"beta": 0.2, "desirable_weight": 2.0, "undesirable_weight": 2.0}),
    ],
    ids=str,
)
def test_every_field_changes_the_loss_and_its_gradient(of: PreferenceLoss, changes: dict[str, float]) -> None:
    desirable = [True, False, True, False] if isinstance(of, KTO) else ()
    answers = rows(POLICY, START, desirable)
    before = step(of, POLICY, answers)
    assert {"type", *changes} == set(type(of).model_fields)
    for name, value in changes.items():
        after = step(of.model_copy(update={name: value}), POLICY, answers)
        assert after[0] != pytest.approx(before[0], rel=1e-3), name
        assert flat(after[1]) != pytest.approx(flat(before[1]), rel=1e-3), name


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ipo", IPO()),
        ({"beta": 0.3}, Sigmoid(beta=0.3)),
        ({}, Sigmoid()),
        ({"type": "simpo", "simpo_gamma": 0.5}, SimPO(beta=2.0, simpo_gamma=0.5)),
        ("kto", KTO()),
    ],
)
def test_a_loss_is_written_as_its_name_or_its_fields(written: Any, meant: PreferenceLoss) -> None:
    assert config(written) == meant


@pytest.mark.parametrize(
    "written",
    [
        "dpo",
        {"beta": 0.0},
        {"beta": -1.0},
        {"label_smoothing": 0.5},
        {"label_smoothing": -0.1},
        {"type": "ipo", "label_smoothing": 0.1},
        {"type": "simpo", "simpo_gamma": -1.0},
        {"type": "cpo", "cpo_alpha": -1.0},
        {"type": "kto", "desirable_weight": 0.0},
        {"type": "kto", "undesirable_weight": -1.0},
        {"type": "sigmoid", "simpo_gamma": 1.0},
    ],
    ids=str,
)
def test_a_loss_that_means_nothing_is_refused(written: Any) -> None:
    with pytest.raises(ValueError):
        config(written)
