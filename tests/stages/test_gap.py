"""At the first step sampler and trainer are compared, and a gap over the bound raises an alert."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from sharpen.config.stages import RFT
from sharpen.stages import rft
from sharpen.types import Sequence as Row

STAGE = RFT.model_validate({"data": {"path": "a"}, "grader": {"type": "math"}})
SAMPLED = (-1.0, -2.0, -0.5, -3.0)


@dataclass
class Told:
    """A run that only remembers its events, with a model of one type, and an engine that disagrees by `gaps`."""

    dtype: torch.dtype
    gaps: tuple[float, ...]
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def run(self) -> Told:
        return self

    loaded = run

    def event(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})

    def score(self, rows: list[Row], temperature: float) -> list[Row]:
        old = (0.0, *(logprob + gap for logprob, gap in zip(SAMPLED, self.gaps, strict=True)))
        return [replace(row, old_logprobs=old) for row in rows]


@pytest.mark.parametrize(
    ("dtype", "gaps", "alert"),
    [
        (torch.bfloat16, (0.02, -0.02, 0.019, 0.02), False),  # the mean counts
        (torch.bfloat16, (0.0, 0.0, 0.0, -0.1), True),
        (torch.float32, (9e-4, -9e-4, 9e-4, 9e-4), False),  # the largest counts
        (torch.float32, (0.0, 0.0, 0.0, -2e-3), True),
    ],
)
def test_an_alert_is_raised_where_sampler_and_trainer_are_too_far_apart(
    dtype: torch.dtype, gaps: tuple[float, ...], alert: bool
) -> None:
    told: Any = Told(dtype, gaps)
    mask = (False, True, True, True, True)
    rows = [Row((5, 6, 7, 8, 9), mask, atom="0", rollout_logprobs=(0.0, *SAMPLED))]
    rft._check_gap(STAGE, told, told, rows)
    parity, *alerts = told.events
    assert parity["logprob_gap_mean"] == pytest.approx(sum(map(abs, gaps)) / 4)
    assert parity["logprob_gap_max"] == pytest.approx(max(map(abs, gaps)))
    assert parity["tokens"] == 4
    assert [event["kind"] for event in alerts] == ["logprob_gap"] * alert
