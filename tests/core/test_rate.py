"""`lr: auto`: what is published comes out, bigger models never get more, and adapters get ten times as much."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.train.rate import auto_lr

METHODS = st.sampled_from(["sft", "dpo", "rft"])
SIZES = st.integers(1, 10**13)


@pytest.mark.parametrize(
    ("method", "parameters", "adapter", "low", "high"),
    [
        ("sft", 134_515_008, False, 5e-5, 1e-4),  # the quickstart: 5e-5
        ("sft", 8_030_000_000, False, 4e-6, 6e-6),  # Tülu 3, 8 B: 5e-6
        ("sft", 70_550_000_000, False, 1e-6, 2e-6),  # Tülu 3, 70 B: 2e-6
        ("sft", 8_030_000_000, True, 4e-5, 3e-4),  # LoRA Without Regret, 8 B
        ("dpo", 134_515_008, False, 1e-5, 1e-5),  # examples/dpo
        ("dpo", 8_030_000_000, False, 4.5e-7, 5.5e-7),  # Tülu 3, 8 B: 5e-7
        ("dpo", 70_550_000_000, False, 2e-7, 2e-7),  # Tülu 3, 70 B: 2e-7
        ("rft", 134_515_008, False, 2e-5, 2e-5),  # the quickstart
        ("rft", 7_000_000_000, False, 1e-6, 1e-6),  # DeepSeekMath, 7 B
        ("rft", 32_000_000_000, False, 1e-6, 1e-6),  # DAPO, 32 B
        ("rft", 30_000, False, 2e-5, 2e-5),
    ],
)
def test_published_rates_come_out(
    method: Literal["sft", "dpo", "rft"], parameters: int, adapter: bool, low: float, high: float
) -> None:
    assert low <= auto_lr(method, parameters, adapter=adapter).lr <= high


@given(METHODS, SIZES, SIZES, st.booleans())
def test_a_bigger_model_never_gets_a_higher_rate(
    method: Literal["sft", "dpo", "rft"], one: int, other: int, adapter: bool
) -> None:
    small, big = sorted((one, other))
    assert auto_lr(method, small, adapter=adapter).lr >= auto_lr(method, big, adapter=adapter).lr


@given(METHODS, SIZES)
def test_an_adapter_gets_ten_times_full_fine_tunings_rate(
    method: Literal["sft", "dpo", "rft"], parameters: int
) -> None:
    full, adapter = (auto_lr(method, parameters, adapter=adapter).lr for adapter in (False, True))
    assert adapter == pytest.approx(10 * full)


@given(SIZES, st.booleans())
def test_preferences_get_the_lowest_rate_and_imitation_the_highest(parameters: int, adapter: bool) -> None:
    dpo, rft, sft = (auto_lr(method, parameters, adapter=adapter).lr for method in ("dpo", "rft", "sft"))
    assert dpo <= rft <= sft


def test_the_reason_says_number_method_size_and_source() -> None:
    reason = auto_lr("rft", 134_515_008, adapter=True).reason
    assert reason.startswith("0.0002 for rft of an adapter")
    assert "135 M parameters" in reason and "arXiv:2402.03300" in reason


def test_the_table_in_the_docs_is_the_rule() -> None:
    text = (Path(__file__).parents[2] / "docs/settings.md").read_text()
    rows = re.findall(r"^\| ([\d.]+) ([MB])\D* \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for number, unit, cells in rows:
        parameters = int(float(number) * {"M": 1e6, "B": 1e9}[unit])
        rates = [auto_lr(m, parameters, adapter=a).lr for a in (False, True) for m in ("sft", "dpo", "rft")]
        assert [float(cell) for cell in cells.split("|")] == rates
