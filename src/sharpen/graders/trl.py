"""`trl`: a reward function written for TRL's trainers, called as they call it.

As in `GRPOTrainer._calculate_rewards` of TRL 1.16: `fn(prompts=..., completions=..., **columns)` with a list entry for
each completion of the batch, and `log_extra` and `log_metric`. What a trainer alone has is not handed over:
`completion_ids` (graders see texts), `trainer_state`, `environments`. A single answer comes with its thoughts in it, as
TRL decodes it.
"""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from sharpen.config.graders.adapters import TRL
from sharpen.errors import ConfigError
from sharpen.graders.base import grader_fault
from sharpen.graders.foreign import number, said, text_of, whole
from sharpen.graders.plugin import FAULT
from sharpen.plugins import load
from sharpen.types import Example, Grade, Sample

OF_A_TRAINER = ("completion_ids", "trainer_state", "environments")
NO_COLUMNS = ("prompt", "completion", "completion_ids")
"""Fields that TRL does not hand over as columns."""


class TRLGrader:
    """Each reward is a score. None, TRL's sign that a reward does not apply, is a fault of the grader for that row."""

    def __init__(self, config: TRL) -> None:
        """Raises ConfigError where there is no such function, or it needs what only a trainer has."""
        self._use = config.use
        self._conversational = config.conversational
        self._function = load(config.use)
        needed = [name for name in OF_A_TRAINER if name in _required(self._function)]
        if needed:
            raise ConfigError(
                f"this reward function needs {', '.join(needed)}, which only TRL's trainers have",
                value=config.use,
                remedy="Give the parameter a default, or use a function that reads prompts, completions and columns",
            )

    async def grade_many(self, pairs: Sequence[tuple[Example, Sample]]) -> list[Grade]:
        """Call the function once for all pairs."""
        notes = _Notes()
        columns = {**columns_of(pairs), "log_extra": notes.extra, "log_metric": notes.metric}
        prompts, completions = self._texts(pairs)
        returned = self._function(prompts=prompts, completions=completions, **columns)
        if inspect.isawaitable(returned):
            returned = await returned
        if isinstance(returned, str | Mapping) or not isinstance(returned, Iterable):
            return self._all_at_fault(pairs, f"returned no list of rewards: {returned!r:.200}")
        rewards = list(returned)
        if len(rewards) != len(pairs):
            return self._all_at_fault(pairs, f"returned {len(rewards)} rewards for {len(pairs)} completions")
        if wrong := notes.uneven(len(pairs)):
            return self._all_at_fault(pairs, wrong)
        return [self._grade(reward, *notes.of(row)) for row, reward in enumerate(rewards)]

    def _texts(self, pairs: Sequence[tuple[Example, Sample]]) -> tuple[list[Any], list[Any]]:
        """Prompts and completions, as messages or as texts."""
        prompts: list[Any] = [[dict(message) for message in example.messages] for example, _ in pairs]
        completions: list[Any] = [
            said(sample) if sample.messages else [{"role": "assistant", "content": whole(sample)}]
            for _, sample in pairs
        ]
        if self._conversational:
            return prompts, completions
        return list(map(text_of, prompts)), [whole(sample) for _, sample in pairs]

    def _grade(self, reward: Any, metrics: Mapping[str, float], noted: str) -> Grade:
        if reward is None:
            return grader_fault("other_error", f"{self._use} returned None: this reward does not apply to the row")
        try:
            return Grade(number(reward, f"a reward of {self._use}"), metrics, noted)
        except (TypeError, OverflowError) as error:
            return grader_fault(FAULT, str(error))

    def _all_at_fault(self, pairs: Sequence[object], why: str) -> list[Grade]:
        return [grader_fault(FAULT, f"{self._use} {why}")] * len(pairs)


class _Notes:
    """What a function logs beside its rewards: `log_extra`, a value a completion; `log_metric`, one for the batch."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = defaultdict(list)
        self._numbers: dict[str, list[float]] = defaultdict(list)

    def extra(self, column: str, values: Iterable[Any]) -> None:
        """TRL's `log_extra`."""
        self._columns[str(column)].extend(values)

    def metric(self, name: str, value: Any) -> None:
        """TRL's `log_metric`."""
        self._numbers[str(name)].append(number(value, f"the metric {name!r}"))

    def uneven(self, rows: int) -> str:
        """What is wrong with a column that does not have a value for each row; empty where none is."""
        counts = {column: len(values) for column, values in self._columns.items()}
        wrong = [f"{count} values of {column!r}" for column, count in counts.items() if count != rows]
        return f"logged {', '.join(wrong)} for {rows} completions" if wrong else ""

    def of(self, row: int) -> tuple[dict[str, float], str]:
        """A row's numbers, and the rest in words."""
        metrics = {name: fmean(values) for name, values in self._numbers.items()}
        words = []
        for column, values in self._columns.items():
            try:
                metrics[column] = number(values[row], column)
            except (TypeError, OverflowError):
                words.append(f"{column}: {values[row]!s:.200}")
        return {name: value for name, value in metrics.items() if math.isfinite(value)}, "; ".join(words)


def columns_of(pairs: Sequence[tuple[Example, Sample]]) -> dict[str, list[Any]]:
    """The items' fields, each as a list with an entry a row; None where a row does not have it."""
    names = dict.fromkeys(name for example, _ in pairs for name in example.item if name not in NO_COLUMNS)
    return {name: [example.item.get(name) for example, _ in pairs] for name in names}


def _required(function: Any) -> list[str]:
    """The parameters that a function cannot be called without."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in
        return []
    return [each.name for each in parameters if each.default is each.empty]
