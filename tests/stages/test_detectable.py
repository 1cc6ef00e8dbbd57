"""The smallest difference a test can show, against the exact power of that test and another formula for the same."""

from __future__ import annotations

from math import comb, sqrt
from pathlib import Path

import numpy as np
import pytest

from sharpen.reports.comparison import compare
from sharpen.runs.statistics import paired_detectable, paired_difference, unpaired_difference
from sharpen.runs.store import read_lines
from tests.reports import synthetic_run


def pairs(n: int, won: int, lost: int) -> tuple[list[float], list[float]]:
    """Two models on n problems, of which one wins so many and loses so many to the other."""
    before = [0.0] * won + [1.0] * lost + [0.0] * (n - won - lost)
    return before, [1.0] * won + [0.0] * lost + [0.0] * (n - won - lost)


def test_ten_problems_by_hand() -> None:
    """The example of docs/results.md: four won, one lost; d = 0.5, difference 0.3."""
    before, after = [1, 1, 0, 0, 0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    error = sqrt((0.5 - 0.3**2) / 10)
    assert error == pytest.approx(0.2025, abs=1e-4)
    assert paired_detectable(before, after) == pytest.approx(2.8016 * error, rel=1e-4)
    assert paired_difference(before, after).delta == pytest.approx(0.3)


@pytest.mark.parametrize(("n", "discordant"), [(60, 0.4), (120, 0.2), (200, 0.3)])
def test_a_true_difference_of_that_size_is_found_four_times_in_five(n: int, discordant: float) -> None:
    """Exact: the sum over all outcomes of problems won and lost of those in which the interval excludes 0."""
    won = round(n * discordant / 2)
    least = paired_detectable(*pairs(n, won, won))
    up, down = (discordant + least) / 2, (discordant - least) / 2
    power = sum(
        comb(n, b) * comb(n - b, c) * up**b * down**c * (1 - up - down) ** (n - b - c)
        for b in range(n + 1)
        for c in range(n + 1 - b)
        if (b - c) / n > 1.959964 * sqrt(((b + c) / n - ((b - c) / n) ** 2) / n)
    )
    assert power == pytest.approx(0.8, abs=0.05)


def test_connors_formula_with_both_variances_gives_nearly_the_same() -> None:
    """n = (z √d + z' √(d − δ²))² / δ² (Biometrics 43, 1987), solved for the problems that our δ would take."""
    least = paired_detectable(*pairs(300, 50, 40))
    d = 90 / 300
    needed = (1.959964 * sqrt(d) + 0.841621 * sqrt(d - least**2)) ** 2 / least**2
    assert needed == pytest.approx(300, rel=0.02)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (1, 1)])
def test_however_few_differed_a_difference_takes_about_eight_problems_that_do(won: int, lost: int) -> None:
    """Of 40 problems 16.4 %: fewer than seven could be luck. Exact power, with all changes one way."""
    least = paired_detectable(*pairs(40, won, lost))
    assert least == pytest.approx(2.801585**2 / (40 + 2.801585**2), rel=1e-6)
    found = sum(
        comb(40, b) * least**b * (1 - least) ** (40 - b)
        for b in range(41)
        if b / 40 > 1.959964 * sqrt((b / 40) * (1 - b / 40) / 40)
    )
    assert found > 0.8


def test_four_times_the_problems_show_half_the_difference() -> None:
    few, many = paired_detectable(*pairs(100, 20, 10)), paired_detectable(*pairs(400, 80, 40))
    assert many == pytest.approx(few / 2)


def test_a_run_and_a_comparison_of_runs_name_the_same_difference(tmp_path: Path) -> None:
    runs = [synthetic_run.write(tmp_path / name, rft_steps=12, items=60) for name in ("one", "other")]
    recipe = runs[1] / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 60", "steps: 30"))
    answers = runs[1] / "evals/held_out"
    (answers / "rft.jsonl").write_text((answers / "sft.jsonl").read_text())
    (test,) = compare(runs).evals[0].tests
    lines = [read_lines(run / "evals/held_out/rft.jsonl") for run in runs]
    own = paired_detectable(*([line["correct"] for line in one] for one in lines))
    assert own == pytest.approx(test.detectable)


def test_the_interval_of_two_independent_shares_is_newcombes() -> None:
    """His example (Statistics in Medicine 17, 1998, table II, a): 56/70 against 48/80, Wilson intervals, method 10."""

    def wilson(right: int, n: int) -> tuple[float, float]:
        z, share = 1.959964, right / n
        middle, spread = 2 * right + z * z, z * sqrt(z * z + 4 * right * (1 - share))
        return (middle - spread) / (2 * (n + z * z)), (middle + spread) / (2 * (n + z * z))

    found = unpaired_difference(48 / 80, wilson(48, 80), 56 / 70, wilson(56, 70))
    assert found.delta == pytest.approx(0.2)
    assert found.ci95 == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_and_holds_what_it_promises() -> None:
    """Of 2,000 pairs of samples about 95 % have intervals that hold the true gap."""
    generator = np.random.default_rng(0)
    held = 0
    for ours, theirs in generator.binomial((200, 64), (0.5, 0.8), (2000, 2)):
        before, after = ours / 200, theirs / 64
        halves = [1.959964 * sqrt(share * (1 - share) / n) for share, n in ((before, 200), (after, 64))]
        gap = unpaired_difference(
            before, (before - halves[0], before + halves[0]), after, (after - halves[1], after + halves[1])
        )
        held += gap.ci95.low <= 0.3 <= gap.ci95.high
    assert held / 2000 == pytest.approx(0.95, abs=0.015)
