"""Figures as a reader wants them."""

from __future__ import annotations

import pytest

from sharpen.reports.markup import Html, long_text, tag
from sharpen.reports.numbers import MINUS, MISSING, count, duration, finite, moment, plain, points, span


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.03125, "0.031"),
        (2.0e-5, "2.0e-05"),
        (12.34, "12.3"),
        (18204.4, "18,204"),
        (-0.5, f"{MINUS}0.500"),
    ],
)
def test_plain_keeps_about_three_digits(value: float, text: str) -> None:
    assert plain(value) == text


def test_changes_carry_their_sign_and_zero_none() -> None:
    assert [points(value) for value in (0.1234, -0.05, -0.0001, None)] == [
        "+12.3",
        f"{MINUS}5.0",
        "0.0",
        MISSING,
    ]


def test_durations_and_counts_fit_their_size() -> None:
    assert [duration(value) for value in (3.44, 59.99, 125, 3840)] == [
        "3.4 s",
        "1 min 0 s",
        "2 min 5 s",
        "1 h 4 min",
    ]
    assert [count(value) for value in (812, 41_200, 1_250_000)] == ["812", "41.2 k", "1.25 M"]


def test_only_finite_numbers_count() -> None:
    record = {"a": {"b": 1}, "nan": float("nan"), "true": True, "text": "1", "huge": 10**400}
    assert finite(record, "a", "b") == 1
    assert [finite(record, key) for key in ("nan", "true", "text", "huge", "none")] == [None] * 5
    assert span({"ci95": [0.1, None]}, "ci95") is None


def test_a_time_is_seconds_or_iso() -> None:
    assert moment(1_790_000_000) == moment("2026-09-21T14:13:20+00:00") == moment("2026-09-21T14:13:20")
    assert moment("yesterday") is None and moment(1e30) is None and moment(None) is None


def test_data_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "<b>", Html("<i></i>"), class_='"') == '<p class="&quot;">&lt;b&gt;<i></i></p>'


def test_a_long_text_is_folded_and_cut() -> None:
    assert "<details" in long_text("a" * 1000) and "<details" not in long_text("a" * 100)
    assert "500 more characters" in long_text("a" * 2000, limit=1500)
    assert "(empty)" in long_text("")
