"""Correlations, κ, AUC and intervals, held against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics  # type: ignore[import-untyped]

from sharpen.lab.calibrate import confusion
from sharpen.lab.measures import auc, kendall, ranks, spearman, wilson

FEW = st.sampled_from([0.0, 0.25, 0.5, 1.0])
COLUMNS = st.lists(st.tuples(FEW | st.floats(-5, 5), FEW | st.floats(-5, 5)), min_size=2, max_size=40)
JUDGED = st.lists(st.tuples(FEW, st.booleans()), min_size=2, max_size=40)


@given(COLUMNS)
def test_rank_correlations_are_scipys(pairs: list[tuple[float, float]]) -> None:
    one, other = zip(*pairs, strict=True)
    if len(set(one)) < 2 or len(set(other)) < 2:
        assert kendall(one, other) is None and spearman(one, other) is None
        return
    assert kendall(one, other) == pytest.approx(scipy.stats.kendalltau(one, other).statistic)
    assert spearman(one, other) == pytest.approx(scipy.stats.spearmanr(one, other).statistic)
    assert ranks(one).tolist() == scipy.stats.rankdata(one).tolist()


def test_kendall_counts_thousands_of_pairs_as_scipy_does() -> None:
    generator = np.random.default_rng(0)
    one = generator.normal(size=3000)
    other = np.round(one + generator.normal(size=3000), 1)
    expected = scipy.stats.kendalltau(one, other).statistic
    assert kendall(one.tolist(), other.tolist()) == pytest.approx(expected)


@given(JUDGED)
def test_auc_kappa_and_balanced_accuracy_are_scikit_learns(pairs: list[tuple[float, bool]]) -> None:
    scores, good = zip(*pairs, strict=True)
    passed = [score >= 0.5 for score in scores]
    table = confusion(passed, good)
    assert table.agreement() == pytest.approx(metrics.accuracy_score(good, passed))
    if len(set(good) | set(passed)) > 1:  # scikit-learn warns, and says nan, where chance alone agrees fully
        assert table.kappa() == pytest.approx(metrics.cohen_kappa_score(good, passed))
    else:
        assert table.kappa() is None
    if len(set(good)) == 2:
        assert auc(scores, good) == pytest.approx(metrics.roc_auc_score(good, scores))
        assert table.balanced() == pytest.approx(metrics.balanced_accuracy_score(good, passed))
    else:
        assert auc(scores, good) is None and table.balanced() is None


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 7), (50, 400)])
def test_wilsons_interval_is_scipys(hits: int, n: int) -> None:
    expected = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
