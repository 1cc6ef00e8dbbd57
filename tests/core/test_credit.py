"""From grades to rows, when faults stop a run, and what a step reports, by hand."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace
from typing import Any

import pytest
import torch

from sharpen.config.optim import Optim
from sharpen.config.stages import RFT
from sharpen.data.pack import pack
from sharpen.data.render import Renderer
from sharpen.guards.faults import FaultGuard, count
from sharpen.stages.credit import credit, loss_of
from sharpen.stages.report import Clock, rft_line, rollout_lines
from sharpen.train.engine import Engine, StepResult
from sharpen.train.losses import KLTerm, PolicyGradient
from sharpen.types import Example, Fault, Grade, Group, Rollout, Sample, Segment, Support
from sharpen.types import Sequence as Row
from tests.core.fakes import Bigram

OUTAGE = Grade(None, fault=Fault("python_grader_runtime_error", "down"))


def stage(preset: str = "grpo", max_tokens: int = 10, **algorithm: Any) -> RFT:
    return RFT.model_validate(
        {
            "data": {"path": "x.jsonl"},
            "grader": {"type": "string_check"},
            "algorithm": {"preset": preset, **algorithm},
            "sampling": {"max_tokens": max_tokens},
        }
    )


def rollout(length: int, prompt: int = 2, version: int = 0) -> Rollout:
    tokens = (*range(prompt), *range(50, 50 + length))
    mask = (False,) * prompt + (True,) * length
    logprobs = (0.0,) * prompt + tuple(-0.5 - index for index in range(length))
    return Rollout(
        (Segment(tokens, mask, logprobs, version),), Sample("a" * length, "stop" if length < 10 else "length")
    )


def group(grades: list[Grade | float], lengths: list[int], name: str = "e") -> Group:
    made = tuple(grade if isinstance(grade, Grade) else Grade(grade) for grade in grades)
    return Group(Example(name, ()), tuple(map(rollout, lengths)), made)


def test_rewards_become_advantages_on_the_sampled_tokens() -> None:
    credited = credit(stage(), [group([0.0, 1.0], [3, 2])])
    assert credited.rewards == [[0.0, 1.0]]
    low, high = -math.sqrt(0.5), math.sqrt(0.5)
    assert [row.advantages for row in credited.rows] == [
        pytest.approx((0, 0, low, low, low)),
        pytest.approx((0, 0, high, high)),
    ]
    assert [row.rollout_logprobs for row in credited.rows] == [(0, 0, -0.5, -1.5, -2.5), (0, 0, -0.5, -1.5)]
    assert [(row.atom, row.shared, row.trained) for row in credited.rows] == [("0", 2, 3), ("0", 2, 2)]


def test_faulty_rollouts_train_nothing_and_move_no_ones_advantage() -> None:
    credited = credit(stage(), [group([0.0, OUTAGE, 1.0], [3, 4, 2])])
    assert credited.rewards == [[0.0, None, 1.0]]
    assert credited.advantages == [pytest.approx([-math.sqrt(0.5), 0.0, math.sqrt(0.5)])]
    assert [row.trained for row in credited.rows] == [3, 2]


def test_a_group_with_one_valid_grade_is_dropped_and_one_without_spread_keeps_its_rows() -> None:
    credited = credit(stage(), [group([OUTAGE, 1.0], [3, 4]), group([1.0, 1.0], [5, 6])])
    assert credited.advantages == [None, [0.0, 0.0]]
    assert [(row.atom, row.trained, any(row.advantages)) for row in credited.rows] == [("1", 5, False), ("1", 6, False)]


def test_the_overlong_penalty_lowers_dapos_rewards_only() -> None:
    """max_tokens = 10, a buffer of 2: length 9 costs a half, length 10 one."""
    graded = [group([1.0, 1.0, 1.0], [8, 9, 10])]
    assert credit(stage("dapo"), graded).rewards == [pytest.approx([1.0, 0.5, 0.0])]
    assert credit(stage("grpo"), graded).rewards == [[1.0, 1.0, 1.0]]


def with_reference(rows: list[Row]) -> list[Row]:
    """A reference that gives each sampled token −0.1."""
    return [replace(row, ref_logprobs=tuple(-0.1 * made for made in row.mask)) for row in rows]


def test_k1_lowers_each_reward_by_how_far_the_whole_rollout_strayed() -> None:
    """Log-probabilities −0.5, −1.5, −2.5 and −0.5, −1.5 against −0.1 a token: Σ is −4.2 and −1.8 nats."""
    kl = {"coef": 0.1, "estimator": "k1_reward"}
    credited = credit(stage(kl=kl), [group([0.0, 1.0, OUTAGE], [3, 2, 4])], with_reference)
    assert credited.rewards == [[pytest.approx(0.42), pytest.approx(1.18), None]]
    assert [row.ref_logprobs for row in credited.rows] == [
        pytest.approx((0, 0, -0.1, -0.1, -0.1)),
        pytest.approx((0, 0, -0.1, -0.1)),
    ]
    equal = credit(stage(kl=kl), [group([1.0, 1.0], [3, 2])], with_reference)
    assert equal.advantages == [pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])], "straying is a difference too"


def test_k1_counts_all_segments_of_a_rollout() -> None:
    two = Rollout(rollout(3).segments + rollout(2).segments, Sample("x"))
    graded = Group(Example("e", ()), (two, rollout(3)), (Grade(1.0), Grade(1.0)))
    credited = credit(stage(kl={"coef": 1.0, "estimator": "k1_reward"}), [graded], with_reference)
    assert credited.rewards == [[pytest.approx(1 + 4.2 + 1.8), pytest.approx(1 + 4.2)]]
    assert [row.attempt for row in credited.rows] == [0, 0, 1]


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_other_estimators_leave_the_rewards_alone_and_are_terms_of_the_loss(estimator: str) -> None:
    chosen = stage(kl={"coef": 0.1, "estimator": estimator, "importance_weighted": True})
    credited = credit(chosen, [group([0.0, 1.0], [3, 2])], with_reference)
    assert credited.rewards == [[0.0, 1.0]] and all(row.ref_logprobs for row in credited.rows)
    assert loss_of(chosen).kl == KLTerm(0.1, estimator, True)  # type: ignore[arg-type]
    assert loss_of(stage(kl={"coef": 0.1, "estimator": "k1_reward"})).kl is None


def test_without_a_kl_no_reference_is_asked() -> None:
    def refuse(rows: list[Row]) -> list[Row]:
        raise AssertionError

    assert credit(stage(), [group([0.0, 1.0], [3, 2])], refuse).rows[0].ref_logprobs == ()


def test_a_masked_truncated_completion_moves_its_group_but_leaves_the_loss() -> None:
    graded = [group([0.0, 1.0, 5.0], [3, 2, 10]), group([1.0, 0.0], [10, 10])]
    for mask, lengths in ((True, [3, 2]), (False, [3, 2, 10, 10, 10])):
        credited = credit(stage("dr_grpo", mask_truncated=mask), graded)
        assert credited.advantages == [pytest.approx([-2.0, -1.0, 3.0]), pytest.approx([0.5, -0.5])]
        assert [row.trained for row in credited.rows] == lengths


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [("normalized", [-math.sqrt(0.5), math.sqrt(0.5)]), ("centered", [-0.5, 0.5]), ("leave_one_out", [-1.0, 1.0])],
)
def test_the_algorithms_advantage_is_taken(advantage: str, expected: list[float]) -> None:
    credited = credit(stage("grpo", advantage=advantage), [group([0.0, 1.0], [3, 2])])
    assert credited.advantages == [pytest.approx(expected)]
    assert [row.advantages[-1] for row in credited.rows] == pytest.approx(expected)


def test_the_support_of_a_segment_goes_to_the_trainer() -> None:
    support = Support((1, 1, 1), array("i", [50, 51, 52]))
    cut = Rollout((replace(rollout(3).segments[0], support=support),), Sample("x"))
    graded = Group(Example("e", ()), (cut, rollout(2)), (Grade(1.0), Grade(0.0)))
    assert [row.support for row in credit(stage(), [graded]).rows] == [support, None]


def test_the_guard_pauses_above_the_share_of_one_step() -> None:
    guard = FaultGuard(0.2, 3)
    assert guard.check([OUTAGE] * 2 + [Grade(1.0)] * 8) is None, "20 % is not above 20 %"
    cause = guard.check([OUTAGE] * 3 + [Grade(1.0)] * 7)
    assert cause is not None and "3 of 10" in cause and "python_grader_runtime_error: down" in cause


def test_the_guard_pauses_on_the_third_step_running_with_any_fault() -> None:
    guard = FaultGuard(0.5, 3)
    few, none = [OUTAGE] + [Grade(1.0)] * 9, [Grade(0.0)] * 10
    assert [guard.check(grades) for grades in (few, few, none, few, few)] == [None] * 5
    cause = guard.check(few)
    assert cause is not None and "3 steps running" in cause
    assert FaultGuard(0.5, 3, running=2).check(few) is not None, "a restart does not forget"


def test_a_completions_fault_is_no_reason_to_pause_but_is_counted() -> None:
    wrong = Grade(0.0, fault=Fault("parse_error"))
    guard = FaultGuard(0.0, 1)
    assert guard.check([wrong] * 10) is None
    assert count([wrong, wrong, OUTAGE, Grade(1.0)]) == {"parse_error": 2, "python_grader_runtime_error": 1}


def test_a_steps_line_by_hand() -> None:
    groups = [group([0.0, 1.0, OUTAGE], [4, 6, 10]), group([1.0, 1.0, 1.0], [1, 2, 1])]
    credited = credit(stage(), groups)
    result = StepResult(0.5, math.inf, 1e-5, True, {"entropy": 2.0, "logprob_gap": 0.1, "logprob_gap_max": 0.3})
    line: dict[str, Any] = rft_line(stage(), credited, [result], 0.01, Clock(), 3)
    assert (line["loss"], line["grad_norm"], line["skipped"], line["kl"]) == (0.5, None, True, 0.01)
    assert line["reward"] == {"mean": 0.8, "std": pytest.approx(0.4), "by_grader": {"string_check": 0.8}}
    assert line["no_spread_share"] == 0.5 and line["dropped_groups"] == 0
    assert line["length"] == {"mean": 4.0, "max": 10, "truncated_share": pytest.approx(1 / 6)}
    assert line["logprob_gap"] == {"mean": 0.1, "max": 0.3} and line["entropy"] == 2.0
    assert line["faults"] == {"python_grader_runtime_error": 1} and line["policy_lag"] == 3
    assert line["tokens"] == {"sampled": 24, "trained": 10}
    everything = rft_line(stage(entropy_coef=0.1), credited, [result], 0.01, Clock(), 3)
    assert everything["tokens"]["trained"] == 14, "an entropy bonus teaches on every token"


def test_with_several_updates_the_gap_is_that_before_the_first() -> None:
    credited = credit(stage(), [group([0.0, 1.0], [3, 2])])
    first = StepResult(0, 1, 1, False, {"logprob_gap": 0.1, "logprob_gap_max": 0.2, "clip_fraction": 0.0})
    last = StepResult(0, 1, 1, False, {"logprob_gap": 0.5, "logprob_gap_max": 0.6, "clip_fraction": 0.4})
    line = rft_line(stage(), credited, [first, last], None, Clock(), 0)
    assert line["logprob_gap"] == {"mean": 0.1, "max": 0.2} and line["clip_fraction"] == 0.4


def test_a_line_for_every_completion() -> None:
    credited = credit(stage(), [group([0.0, 1.0], [3, 2]), group([OUTAGE, 1.0], [1, 1], "f")])
    lines = rollout_lines(credited, Renderer(None, frozenset()))
    assert [line["example"] for line in lines] == ["e", "e", "f", "f"]
    assert [line["tokens"] for line in lines] == [[50, 51, 52], [50, 51], [50], [50]]
    assert [line["reward"] for line in lines] == [0.0, 1.0, None, 1.0]
    high = math.sqrt(0.5)
    assert [line["advantage"] for line in lines] == [pytest.approx(-high), pytest.approx(high), None, None]
    assert [line["fault"] for line in lines] == [None, None, "python_grader_runtime_error", None]


def episode(turns: list[int], splits: bool = False, opening: int = 0) -> Rollout:
    """Two turns after a prompt of three tokens, a reply of two between; in two segments if it splits."""
    prompt = (opening, 1, 2)
    made = [tuple(range(50 + 10 * turn, 50 + 10 * turn + length)) for turn, length in enumerate(turns)]
    if splits:
        parts = [(prompt, made[0]), ((*prompt, 9, 8, 7), made[1])]
        segments = tuple(
            Segment(before + after, (False,) * len(before) + (True,) * len(after), (-0.5,) * len(before + after), 0)
            for before, after in parts
        )
    else:
        tokens = (*prompt, *made[0], 8, 7, *made[1])
        mask = (False,) * 3 + (True,) * turns[0] + (False,) * 2 + (True,) * turns[1]
        segments = (Segment(tokens, mask, tuple(-0.5 * m for m in mask), 0),)
    return Rollout(segments, Sample("x"))


def test_all_segments_of_a_rollout_share_its_advantage_and_replies_have_none() -> None:
    low, high = -math.sqrt(0.5), math.sqrt(0.5)
    rollouts = (episode([2, 1]), episode([1, 2], splits=True))
    credited = credit(stage(), [Group(Example("e", ()), rollouts, (Grade(0.0), Grade(1.0)))])
    whole, first, second = (row.advantages for row in credited.rows)
    assert whole == pytest.approx((0, 0, 0, low, low, 0, 0, low))
    assert first == pytest.approx((0, 0, 0, high))
    assert second == pytest.approx((0, 0, 0, 0, 0, 0, high, high))
    assert [row.trained for row in credited.rows] == [3, 1, 2] and {row.atom for row in credited.rows} == {"0"}
    assert {row.shared for row in credited.rows} == {3}, "the prompt, which both segments begin with"
    (batch,) = pack(credited.rows, 1000)
    assert len(batch.tokens) == 3 + (5 + 1 + 5), "and which is computed once"


def test_attempts_that_an_environment_opened_otherwise_share_no_prompt() -> None:
    rollouts = (episode([1, 1], opening=5), episode([1, 1], opening=6))
    credited = credit(stage(), [Group(Example("e", ()), rollouts, (Grade(0.0), Grade(1.0)))])
    assert [row.shared for row in credited.rows] == [0, 0]
    (batch,) = pack(credited.rows, 1000)
    assert len(batch.tokens) == sum(len(row.tokens) for row in credited.rows)


def test_a_faulty_rollout_takes_no_part_in_what_is_shared() -> None:
    """An environment that failed at the opening has made no segment at all."""
    rollouts = (episode([1, 1]), episode([2, 1]), Rollout((), Sample("")))
    credited = credit(stage(), [Group(Example("e", ()), rollouts, (Grade(0.0), Grade(1.0), OUTAGE))])
    assert [row.shared for row in credited.rows] == [3, 3]


def test_penalty_and_lengths_count_the_whole_rollout() -> None:
    """max_tokens = 10, a buffer of 2: 4 + 5 tokens cost a half, in one segment or two."""
    rollouts = (episode([4, 5]), episode([4, 5], splits=True), episode([4, 4]))
    credited = credit(stage("dapo"), [Group(Example("e", ()), rollouts, (Grade(1.0),) * 3)])
    assert credited.rewards == [pytest.approx([0.5, 0.5, 1.0])]
    line = rft_line(stage("dapo"), credited, [StepResult(0, 1, 1, False)], None, Clock(), 0)
    assert line["length"]["mean"] == pytest.approx(26 / 3) and line["length"]["max"] == 9
    assert [len(made["tokens"]) for made in rollout_lines(credited, Renderer(None, frozenset()))] == [9, 9, 8]


def test_the_loss_of_turns_with_a_reply_between_is_that_of_a_hand_made_mask() -> None:
    """Independent formula: plain log-softmax over each whole segment, token by token, nothing packed or shared."""
    model = Bigram(vocabulary=80)
    rollouts = (episode([2, 1]), episode([1, 2], splits=True), episode([2, 2]))
    graded = Group(Example("e", ()), rollouts, (Grade(0.0), Grade(1.0), Grade(0.5)))
    rows = credit(stage(), [graded]).rows
    advantages = {0: -1.0, 1: 1.0, 2: 0.0}
    places = {0: [[3, 4, 7]], 1: [[3], [6, 7]], 2: [[3, 4, 7, 8]]}
    total, count = torch.zeros(()), 0
    for number, rollout in enumerate(rollouts):
        for segment, sampled in zip(rollout.segments, places[number], strict=True):
            tokens = torch.tensor(segment.tokens)
            logprobs = model.lm_head(model.embedding[tokens]).log_softmax(-1)
            for place in sampled:
                chosen = logprobs[place - 1, tokens[place]]
                weight = (chosen.detach() + 0.5).exp().clamp(max=2.0)
                total = total - advantages[number] * weight * (chosen - chosen.detach()).exp()
                count += 1
    (total / count).backward()
    expected = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    for budget in (1, 12, 1000):
        engine = Engine(Bigram(vocabulary=80), Optim(lr=1e-3, max_grad_norm=1e9), 1, budget)
        result = engine.step(rows, PolicyGradient(normalizer="token"))
        assert result.loss == pytest.approx(float(total.detach() / count), rel=1e-5)
        assert result.grad_norm == pytest.approx(float(torch.cat([g.flatten() for g in expected]).norm()), rel=1e-5)
