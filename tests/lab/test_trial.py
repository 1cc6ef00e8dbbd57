"""Grades collected: means, histogram, faults, full marks, and what is timed."""

from __future__ import annotations

import asyncio

import pytest

from sharpen.lab import trial
from sharpen.lab.trial import Bench, Marks, Text, Trial, full_marks, histogram, line, overview
from sharpen.runs.statistics import interval
from sharpen.stages.routing import Router
from sharpen.types import Example, Fault, Grade, Sample
from tests.lab.inprocess import InProcess, graders


def made(row: int, score: float | None, metrics: dict[str, float] | None = None, fault: str = "") -> Trial:
    grade = Grade(score, metrics or {}, "said", Fault(fault, "so") if fault else None)
    return Trial(Text(Example(f"r{row}", ()), Sample("t"), row), grade)


@pytest.mark.parametrize(
    ("scores", "edges", "counts"),
    [
        ([0.0, 0.3, 0.3, 0.29, 1.0], (0.0, 1.0), [1, 0, 1, 2, 0, 0, 0, 0, 0, 1]),
        ([0.0, 5.0, 10.0, 9.99], (0.0, 10.0), [1, 0, 0, 0, 0, 1, 0, 0, 0, 2]),
        ([-1.0, 1.0, 0.0], (-1.0, 1.0), [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
    ],
)
def test_the_histogram_counts_exactly(scores: list[float], edges: tuple[float, float], counts: list[int]) -> None:
    found = histogram(scores)
    assert found and found["counts"] == counts
    assert (found["edges"][0], found["edges"][-1], len(found["edges"])) == (*edges, 11)
    assert histogram([]) is None


def test_means_are_over_rows_and_faults_are_told_apart() -> None:
    trials = [
        made(0, 1.0, {"format": 1.0}),
        made(0, 0.0, {"format": 0.0}),
        made(0, None, fault="other_error"),
        made(1, 1.0),
        made(1, 1.0),
        made(2, 0.0, fault="timeout"),
    ]
    found = overview(trials)
    assert (found["n"], found["rows"]) == (6, 3)
    assert found["score"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["ci95"] == list(interval([0.5, 1.0, 0.0]))
    assert found["metrics"] == {"format": 0.5}
    assert found["faults"] == {"completion": {"timeout": 1}, "grader": {"other_error": 1}}
    assert found["spread_share"] == 0.5  # of the two rows with several scores, one differs within
    assert sum(found["histogram"]["counts"]) == 5


def test_a_trial_is_plain_values() -> None:
    assert line(made(3, None, fault="other_error")) == {
        "id": "r3",
        "sample": 0,
        "text": "t",
        "score": None,
        "metrics": {},
        "explanation": "said",
        "fault": {"kind": "other_error", "detail": "so"},
        "seconds": None,
    }


def test_full_marks_are_1_the_top_of_the_range_or_what_is_said() -> None:
    judge = {
        "type": "score_model",
        "model": "m",
        "base_url": "http://localhost:1/v1",
        "input": [{"role": "user", "content": "{{ sample.output_text }}"}],
        "range": [1, 5],
    }
    assert full_marks(graders({"type": "math"})[""]) == 1.0
    assert full_marks(graders(judge)[""]) == 5.0
    assert Marks(graders(judge)).reached(made(0, 5.0)) and not Marks(graders(judge)).reached(made(0, 4.9))
    assert Marks(graders(judge), 3.0).reached(made(0, 3.0)) and not Marks(graders(judge), 3.0).reached(made(0, None))


def test_the_first_are_graded_one_by_one_and_the_rest_at_once_in_their_order() -> None:
    pool = InProcess(graders({"type": "numeric"})[""])
    bench = Bench(Router({"": pool}))  # type: ignore[dict-item]
    texts = [Text(Example(f"r{n}", (), {"answer": 7}), Sample(str(n)), n) for n in range(trial.ALONE + 15)]
    trials = asyncio.run(bench.grade(texts))
    assert pool.calls == [1] * trial.ALONE + [15]
    assert [one.text.row for one in trials] == list(range(len(texts)))
    assert [one.text.row for one in trials if one.score == 1] == [7]
    assert [one.seconds is not None for one in trials] == [True] * trial.ALONE + [False] * 15
    asyncio.run(bench.grade(texts[:3]))
    assert pool.calls[-1] == 3
    found = bench.speed()
    assert (found["alone"]["n"], found["together"]["n"]) == (trial.ALONE, 18)
    assert 0 < found["alone"]["median"] <= found["alone"]["p95"]
    assert found["together"]["per_second"] == pytest.approx(18 / found["together"]["seconds"])
