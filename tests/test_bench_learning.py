"""The comparison of learning with TRL: what counts as right, which runs are made, what may be claimed."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import learning, learning_report
from bench.exact import exact
from bench.learning_report import Row, compare, paired, plot, verdict
from sharpen.runs.statistics import ArmDifference
from sharpen.types import Interval


def curve(side: str, seed: int, *rewards: float) -> list[Row]:
    return [Row(seed, side, step, reward, 4, 100, "abc") for step, reward in enumerate(rewards, 1)]


def test_the_reward_is_the_answer_and_nothing_else() -> None:
    assert exact(" Tjay\n", "Tjay") == 1
    assert [exact(text, "Tjay") for text in ("Tjay.", "tjay", "It is Tjay", "")] == [0, 0, 0, 0]


def test_only_seeds_of_both_sides_are_compared_and_paired() -> None:
    rows = [
        *curve("ours", 1, 0.2, 0.5),
        *curve("trl", 2, 0.3, 0.4),
        *curve("ours", 2, 0.3, 0.7),
        *curve("ours", 3, 1.0),
    ]
    seeds, rewards = paired(rows)
    assert seeds == [2]
    assert rewards["ours"].tolist() == [[0.3, 0.7]]
    assert rewards["trl"].tolist() == [[0.3, 0.4]]


def test_the_difference_is_ours_minus_trl_over_the_last_half() -> None:
    ours, trl = np.array([[0.0, 0.0, 0.5, 0.7], [0.0, 0.0, 0.6, 0.6]]), np.array([[0.0, 0.4, 0.4, 0.4], [0.0] * 4])
    told = compare([5, 9], {"ours": ours, "trl": trl})
    assert told["ours_minus_trl"]["last_half"]["by_seed"] == pytest.approx({"5": 0.2, "9": 0.6})
    assert told["ours_minus_trl"]["last_half"]["delta"] == pytest.approx(0.4)
    assert told["ours_minus_trl"]["all_steps"]["delta"] == pytest.approx((0.0 + 0.3) / 2)
    assert told["not_below"]


@pytest.mark.parametrize(
    ("low", "high", "claim"),
    [
        (0.01, 0.05, "above TRL's"),
        (-0.02, 0.05, "not below TRL's by 3 points"),
        (-0.05, 0.02, "undecided"),
        (-0.05, -0.01, "our reward is below TRL's"),
    ],
)
def test_no_more_is_claimed_than_the_interval_shows(low: float, high: float, claim: str) -> None:
    assert claim in verdict(ArmDifference((low + high) / 2, Interval(low, high), 0.01, False), 5)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The runs that were made, with the bench's files in a folder of the test's own."""
    runs: list[tuple[str, int]] = []

    def side(name: str) -> Any:
        def run(seed: int, start: learning.Start, out: Path) -> tuple[list[Row], dict[str, Any]]:
            runs.append((name, seed))
            return curve(name, seed, 0.1, 0.2), {}

        return run

    monkeypatch.setattr(learning, "SIDES", {name: side(name) for name in ("ours", "trl")})
    monkeypatch.setattr(learning, "CSV", tmp_path / "learning.csv")
    monkeypatch.setattr(learning_report, "JSON", tmp_path / "learning.json")
    monkeypatch.setattr(learning_report, "SVG", tmp_path / "learning.svg")
    monkeypatch.setattr(learning, "make_start", lambda out: out)
    monkeypatch.setattr(learning, "start_of", lambda folder: learning.Start(folder, "abc"))
    monkeypatch.setattr(learning, "write_prompts", lambda out: None)
    return runs


def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.learning", "--out", str(tmp_path / "out"), *words])
    learning.main()


def test_what_the_csv_has_is_not_run_again(
    made: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch, tmp_path, "--seeds", "1")
    call(monkeypatch, tmp_path, "--seeds", "1", "2", "--side", "ours")
    assert made == [("ours", 1), ("trl", 1), ("ours", 2)]
    assert json.loads((tmp_path / "learning.json").read_text())["seeds"] == [1]


def test_a_side_made_again_leaves_the_others_rows_alone(
    made: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch, tmp_path, "--seeds", "1", "2")
    made.clear()
    call(monkeypatch, tmp_path, "--seeds", "1", "2", "--side", "ours", "--again")
    assert made == [("ours", 1), ("ours", 2)]
    assert len(learning.read_rows()) == 8


def test_the_committed_summary_and_plot_are_those_of_the_committed_csv() -> None:
    seeds, rewards = paired(learning.read_rows())
    told = json.loads(learning_report.JSON.read_text())
    assert told["seeds"] == seeds
    assert {name: told[name] for name in compare(seeds, rewards)} == compare(seeds, rewards)
    assert learning_report.SVG.read_text() == plot(seeds, rewards) + "\n"
    with learning.CSV.open() as file:
        assert next(csv.reader(file)) == list(Row._fields)
