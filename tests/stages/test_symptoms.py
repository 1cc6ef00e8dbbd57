"""What a verdict says of a run's training: each rule with a run that shows it and one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sharpen.runs import statistics
from sharpen.stages import evaluate, symptoms
from sharpen.stages import rft as rft_stage
from tests.stages.made_up import answers, kinds, recipe, rft, rollouts, shares, step, told

HALF = shares(40, 100)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 200)


def trained(run: Path, metrics: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """An RFT stage that took the model from 20 % to 50 %, noted so."""
    return told(run, recipe(rft(**changes)), HALF, metrics)


def constant(count: int = 40, **changes: Any) -> list[dict[str, Any]]:
    return [step(number, **changes) for number in range(1, count + 1)]


def passes(repeated: bool, late: float) -> dict[int, list[dict[str, Any]]]:
    """Forty steps of 16 prompts, right half the time and `late` at the end; the same 160 in four passes, or all new."""
    return {
        number: rollouts(
            [(number - 1) % 10 * 16 + place if repeated else number * 16 + place for place in range(16)],
            late if number > 36 else 0.5,
        )
        for number in range(1, 41)
    }


def test_prompts_seen_before_that_are_answered_far_better_than_held_out_ones_are_overfitting(tmp_path: Path) -> None:
    found = told(tmp_path, recipe(rft()), HALF, constant(), passes(repeated=True, late=0.875))
    (remark,) = found["remarks"]
    assert (remark["kind"], remark["stage"], remark["main"]) == ("overfitting", "rft", True)
    assert remark["figures"]["training"] == 0.875 and remark["figures"]["held_out"] == 0.5
    assert "RFT overfits: in its last steps it gets 87.5 % [" in found["verdict"]
    assert (
        "but 50.0 % on held-out ones (training's answers drawn at temperature 1, the held-out ones greedy)"
        in found["verdict"]
    )
    assert found["verdict"].endswith("use more prompts, or fewer steps.")
    low, high = remark["figures"]["ci95"]
    half = 1.96 * (0.875 * 0.125 / 64 + 0.25 / 200) ** 0.5  # the normal interval of two independent shares
    assert (low, high) == pytest.approx((0.375 - half, 0.375 + half), abs=0.02)


@pytest.mark.parametrize(
    ("repeated", "late", "stage"),
    [(False, 0.875, {}), (True, 0.5625, {}), (True, 0.875, {"final": "best", "validation": {"path": "v.jsonl"}})],
    ids=["new prompts", "a gap within chance", "another model than the last steps'"],
)
def test_else_nothing_is_called_overfitting(tmp_path: Path, repeated: bool, late: float, stage: dict[str, Any]) -> None:
    found = told(tmp_path, recipe(rft(**stage)), HALF, constant(), passes(repeated, late))
    assert "overfitting" not in kinds(found)


def test_another_grader_in_the_eval_makes_the_two_no_likes(tmp_path: Path) -> None:
    other = recipe(rft(), grader={"type": "string_check", "operation": "ilike"})
    assert "overfitting" not in kinds(told(tmp_path, other, HALF, constant(), passes(True, 0.875)))


@pytest.mark.parametrize(("drawn", "said"), [(0.5, True), (0.85, False)])
def test_answers_drawn_at_the_same_temperature_are_what_training_is_held_against(
    tmp_path: Path, drawn: float, said: bool
) -> None:
    models = [answers([line["correct"] for line in model]) for model in HALF]
    for model in models:
        for place, line in enumerate(model):
            line["samples"] = [{"correct": int(place < drawn * len(model))}] * 2
    found = told(tmp_path, recipe(rft(), samples=2), models, constant(), passes(True, 0.875))
    assert ("overfitting" in kinds(found)) is said
    assert ("both drawn at the same temperature" in found["verdict"]) is said


def sft_lines(*validation: float, falling: bool = True) -> list[dict[str, Any]]:
    """Ten steps between looks."""
    lines: list[dict[str, Any]] = []
    for number in range(1, 10 * len(validation) + 1):
        loss = 2.0 - 0.04 * number if falling else 2.0
        look = {"validation": {"loss": validation[number // 10 - 1]}} if number % 10 == 0 else {}
        lines.append({"stage": "sft", "type": "sft", "step": number, "loss": loss, **look})
    return lines


@pytest.mark.parametrize(
    ("validation", "falling", "said"),
    [
        ((0.9, 0.6, 0.7), True, ["overfitting"]),
        ((0.9, 0.6, 0.62), True, []),
        ((0.9, 0.6, 0.7), False, []),
        ((0.9, 0.6, 0.5), True, ["still_improving"]),
        ((0.9, 0.6, 0.59), True, []),
        ((0.9, 0.004, 0.002), True, []),
        ((0.9, 0.002, 0.004), True, []),
    ],
    ids=[
        "turned up",
        "by less than a twentieth",
        "training did not fall",
        "still falling",
        "hardly falling",
        "falling near nothing",
        "rising near nothing",
    ],
)
def test_validation_loss_that_turns_up_is_overfitting_and_one_that_falls_is_not_the_end(
    tmp_path: Path, validation: tuple[float, ...], falling: bool, said: list[str]
) -> None:
    stage = {"type": "sft", "validation": {"path": "v.jsonl"}}
    found = told(tmp_path, recipe(stage), HALF, sft_lines(*validation, falling=falling))
    assert kinds(found) == said
    if said == ["overfitting"]:
        assert "was lowest at step 20 (0.600) and ends at 0.700, while the training loss fell" in found["verdict"]


def test_a_stage_whose_best_weights_were_taken_does_not_suffer_from_what_came_after(tmp_path: Path) -> None:
    stage = {"type": "sft", "validation": {"path": "v.jsonl"}, "final": "best"}
    assert kinds(told(tmp_path, recipe(stage), HALF, sft_lines(0.9, 0.6, 0.7))) == []


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"logprob_gap": {"mean": 0.05}}, "logprob_gap", "disagree by 0.050 nats"),
        ({"logprob_gap": {"mean": 0.05}, "policy_lag": 2}, "", ""),
        ({"no_spread_share": 0.95, "reward": {"mean": 0.98}}, "nothing_left", "nearly all right; harder prompts"),
        ({"no_spread_share": 0.95, "reward": {"mean": 0.02}}, "nothing_left", "nearly all wrong; an SFT stage first"),
        ({"no_spread_share": 0.95, "reward": {"mean": 0.5}}, "nothing_left", "a grader that tells answers apart"),
        ({"no_spread_share": 0.85, "reward": {"mean": 0.5}}, "", ""),
        ({"length": {"truncated_share": 0.4}}, "cut_off_in_training", "raise stages.rft.sampling.max_tokens"),
        ({"length": {"truncated_share": 0.2}}, "", ""),
        ({"kl": 8.0}, "far_away", "KL 8.0 nats a token"),
        ({"kl": 1.5}, "", ""),
    ],
)
def test_what_the_last_steps_show(tmp_path: Path, changes: dict[str, Any], kind: str, words: str) -> None:
    found = trained(tmp_path, [*constant(36), *(step(number, **changes) for number in range(37, 41))])
    assert kinds(found) == ([kind] if kind else [])
    assert words in "".join(remark["text"] for remark in found["remarks"])


def test_what_only_the_first_steps_showed_is_over(tmp_path: Path) -> None:
    early = [step(number, no_spread_share=1.0, kl=9.0, length={"truncated_share": 1.0}) for number in range(1, 20)]
    assert kinds(trained(tmp_path, early + constant(40)[19:])) == []


def test_the_alert_of_the_first_step_is_told(tmp_path: Path) -> None:
    alert = {
        "event": "alert",
        "kind": "logprob_gap",
        "stage": "rft",
        "message": "sampler and trainer disagree: 0.1",
    }
    found = told(tmp_path, recipe(rft()), HALF, constant(), events=[alert])
    assert "At RFT's first step sampler and trainer disagree: 0.1, so its updates may be off" in found["verdict"]


@pytest.mark.parametrize(("failed", "main"), [(32, False), (320, True)])
def test_a_grader_that_failed_is_told_with_its_share(tmp_path: Path, failed: int, main: bool) -> None:
    """Of 100 steps with 32 completions each: 1 %, 10 %."""
    broken = failed // 32
    metrics = [step(number, faults={"timeout": 32} if number <= broken else {}) for number in range(1, 101)]
    gone = {number: rollouts(range(16), 0, scores={"score": None}, fault="timeout") for number in range(1, broken + 1)}
    found = told(tmp_path, recipe(rft()), HALF, metrics, gone)
    remarks = [remark for remark in found["remarks"] if remark["kind"] == "faulty_grader"]
    assert [remark["main"] for remark in remarks] == [main]
    assert f"failed on {failed / 32:.1f} % of RFT's completions (timeout)" in remarks[0]["text"]


def test_a_completions_own_faults_are_not_the_graders(tmp_path: Path) -> None:
    own = {number: rollouts(range(16), 0, fault="timeout") for number in range(1, 41)}
    assert kinds(told(tmp_path, recipe(rft()), HALF, constant(faults={"timeout": 32}), own)) == []


@pytest.mark.parametrize(("slope", "said"), [(0.01, True), (0.0, False), (-0.01, False)])
def test_a_reward_that_still_rises_is_not_the_end(tmp_path: Path, slope: float, said: bool) -> None:
    wobble = [0.02, -0.02, 0.01, -0.01]
    lines = [step(number, reward={"mean": 0.3 + slope * number + wobble[number % 4]}) for number in range(1, 41)]
    assert ("still_improving" in kinds(trained(tmp_path, lines))) is said


def test_only_the_last_stage_can_go_on(tmp_path: Path) -> None:
    lines = [step(number, reward={"mean": 0.3 + 0.01 * number}) for number in range(1, 41)]
    found = told(tmp_path, recipe(rft(), {"type": "sft"}), [*HALF, HALF[1]], lines)
    assert "still_improving" not in kinds(found)


def test_the_limits_are_those_that_stages_work_with() -> None:
    assert symptoms.RIGHT == evaluate.CORRECT
    assert symptoms.PARITY == rft_stage.GAP_MEAN
