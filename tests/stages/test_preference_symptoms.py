"""What a verdict says of preferences: each rule with a run that shows it and one that does not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from sharpen.runs import statistics
from tests.stages.made_up import jsonl, kinds, recipe, shares, told

HALF = shares(40, 100)
WOBBLE = (0.02, -0.02, 0.01, -0.01)
TOKENS = 320
"""Of a step's 16 pairs: 10 an answer."""


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 200)


def step(number: int, **changes: Any) -> dict[str, Any]:
    """A line of a healthy stage: both rewards move apart, the better upwards."""
    rewards = {"chosen": 0.02, "rejected": -0.3, "margins": 0.32, "accuracies": 0.9}
    return {
        "stage": "dpo",
        "type": "dpo",
        "step": number,
        "loss": 0.6,
        "rewards": {**rewards, **changes.pop("rewards", {})},
        "logps": {"chosen": -20.0, "rejected": -30.0},
        "tokens": {"sampled": 0, "trained": TOKENS},
        **changes,
    }


def said(run: Path, lines: list[dict[str, Any]], *, rows: str = "", **stage: Any) -> dict[str, Any]:
    data = {"data": {"path": rows}} if rows else {}
    return told(run, recipe({"type": "dpo", **data, **stage}), HALF, lines)


def steps(count: int = 40, **changes: Any) -> list[dict[str, Any]]:
    return [step(number, **changes) for number in range(1, count + 1)]


def wobbling(accuracy: float) -> list[dict[str, Any]]:
    return [step(n, rewards={"accuracies": accuracy + 4 * WOBBLE[n % 4]}) for n in range(1, 41)]


def test_of_a_healthy_stage_nothing_is_said(tmp_path: Path) -> None:
    assert kinds(said(tmp_path, steps())) == []


@pytest.mark.parametrize(("accuracy", "found"), [(0.5, True), (0.46, True), (0.56, False), (0.8, False)])
def test_an_accuracy_that_stays_at_chance_is_nothing_learned(tmp_path: Path, accuracy: float, found: bool) -> None:
    summary = said(tmp_path, wobbling(accuracy))
    assert ("at_chance" in kinds(summary)) is found
    if found:
        assert f"in {100 * accuracy:.1f} % of its later steps' pairs [" in summary["verdict"]


def test_chance_in_the_first_half_alone_is_how_every_stage_begins(tmp_path: Path) -> None:
    assert kinds(said(tmp_path, wobbling(0.5)[:20] + steps()[20:])) == []


def test_an_accuracy_that_could_be_anything_is_not_called_chance(tmp_path: Path) -> None:
    lines = [step(n, rewards={"accuracies": float(n % 2)}) for n in range(1, 9)]
    assert "at_chance" not in kinds(said(tmp_path, lines))


@pytest.mark.parametrize(
    ("better", "worse", "found"),
    [(-0.2, -0.9, True), (-0.05, -0.9, False), (0.3, -0.9, False), (-0.9, -0.9, False)],
    ids=["both fall", "by less than a tenth a token", "the better rises", "no margin"],
)
def test_better_answers_that_become_unlikely_are_told_with_the_remedy(
    tmp_path: Path, better: float, worse: float, found: bool
) -> None:
    """At β = 0.1 a reward of −0.2 is 2 nats less of an answer of 10 tokens: 0.2 a token, e^−0.2 of its probability."""
    lines = [step(n, rewards={"chosen": better + WOBBLE[n % 4] / 10, "rejected": worse}) for n in range(1, 41)]
    summary = said(tmp_path, lines, loss={"beta": 0.1})
    assert kinds(summary) == (["both_unlikely"] if found else [])
    if found:
        lost = f"by 2.0 nats an answer, or {100 * (1 - math.exp(-0.2)):.1f} % of each token's probability"
        assert lost in summary["verdict"] and "raise loss.beta" in summary["verdict"]
        assert summary["remarks"][0]["figures"] == pytest.approx({"nats": 2.0, "tokens": 10.0}, abs=0.05)


def test_how_far_a_reward_has_fallen_goes_by_beta_and_by_the_length_of_answers(tmp_path: Path) -> None:
    lines = steps(rewards={"chosen": -0.2, "rejected": -0.9})
    assert kinds(said(tmp_path / "beta", lines, loss={"beta": 1.0})) == []  # 0.02 nats a token
    long = [{**line, "tokens": {"trained": 10 * TOKENS}} for line in lines]
    assert kinds(said(tmp_path / "long", long)) == []
    kto = said(tmp_path / "kto", [{**line, "tokens": {"trained": TOKENS // 2}} for line in lines], loss="kto")
    assert kinds(kto) == ["both_unlikely"]  # a step has 16 answers, not 32
    assert kto["remarks"][0]["figures"]["tokens"] == 10.0


@pytest.mark.parametrize(("last", "found"), [(-24.0, True), (-20.5, False)])
def test_without_a_reference_the_first_steps_are_what_the_last_are_held_against(
    tmp_path: Path, last: float, found: bool
) -> None:
    lines = steps(rewards={"chosen": -2.0, "rejected": -3.0})
    for number, line in enumerate(lines):
        line["logps"] = {"chosen": (-20.0 if number < 20 else last) + WOBBLE[number % 4], "rejected": -40.0}
    summary = said(tmp_path, lines, loss="cpo")
    assert kinds(summary) == (["both_unlikely"] if found else [])
    assert ("cpo: loss.cpo_alpha" in summary["verdict"]) is found


def test_validation_loss_that_turns_up_is_overfitting_here_too(tmp_path: Path) -> None:
    lines = [step(n, loss=0.7 - 0.01 * n) for n in range(1, 41)]
    for number, loss in ((10, 0.6), (20, 0.5), (40, 0.8)):
        lines[number - 1]["validation"] = {"loss": loss}
    summary = said(tmp_path, lines, validation={"path": "v.jsonl"})
    assert kinds(summary) == ["overfitting"] and "DPO overfits: its validation loss was lowest" in summary["verdict"]


@pytest.mark.parametrize(
    ("better", "worse", "stage", "found"),
    [
        ("long and good", "short", {}, True),
        ("long and good", "short", {"loss": "simpo"}, False),
        ("long and good", "short", {"loss": "ipo"}, False),
        ("long and good", "short", {"type": "reward_model", "name": "dpo"}, True),
        ("short", "long and good", {}, False),
        ("about the same", "nearly as long", {}, False),
    ],
    ids=["longer", "by the mean over tokens", "IPO too", "a reward model", "shorter", "alike"],
)
def test_better_answers_that_are_the_longer_ones_are_told(
    tmp_path: Path, better: str, worse: str, stage: dict[str, Any], found: bool
) -> None:
    rows = [{"prompt": str(number), "chosen": better, "rejected": worse} for number in range(8)]
    jsonl(tmp_path / "pairs.jsonl", rows)
    summary = said(tmp_path / "run", steps(), rows=str(tmp_path / "pairs.jsonl"), **stage)
    assert kinds(summary) == (["longer"] if found else [])
    if found:
        ratio = len(better) / len(worse)
        assert f"in 100.0 % of DPO's pairs, {ratio:.1f} times as long in all" in summary["remarks"][0]["text"]


def test_a_few_long_ones_do_not_make_better_answers_the_longer_ones(tmp_path: Path) -> None:
    rows = [{"prompt": str(n), "chosen": "x" * 200 if n == 0 else "ab", "rejected": "abc"} for n in range(8)]
    jsonl(tmp_path / "pairs.jsonl", rows)
    assert kinds(said(tmp_path / "run", steps(), rows=str(tmp_path / "pairs.jsonl"))) == []
