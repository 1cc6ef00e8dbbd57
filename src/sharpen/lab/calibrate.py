"""A grader held against people's labels: agreement, κ, the best threshold, with intervals over rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

import numpy as np

from sharpen.errors import ConfigError, DataError
from sharpen.graders.template import InvalidVariable, look_up
from sharpen.lab.measures import auc, kendall, spearman
from sharpen.lab.samples import as_template
from sharpen.lab.trial import Marks, Trial, line
from sharpen.types import Example

WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
"""Labels in words."""

RESAMPLES = 2_000
"""Each chooses a threshold of its own."""

EXAMPLES = 5
"""Disagreements that are told."""


class Confusion(NamedTuple):
    """Texts by what grader and people say of them; "right" is what the grader passes."""

    right_good: float
    right_bad: float
    wrong_good: float
    wrong_bad: float

    def agreement(self) -> float:
        """The share of texts of which both say the same."""
        return (self.right_good + self.wrong_bad) / sum(self)

    def kappa(self) -> float | None:
        """Cohen's κ = (p_o − p_e) / (1 − p_e) (Educational and Psychological Measurement 20, 1960).

        p_o is the agreement, p_e that of two who pass as often and know nothing of the texts. None where p_e is 1.
        """
        passed, good, n = self.right_good + self.right_bad, self.right_good + self.wrong_good, sum(self)
        by_chance = (passed * good + (n - passed) * (n - good)) / n**2
        return (self.agreement() - by_chance) / (1 - by_chance) if by_chance < 1 else None

    def balanced(self) -> float | None:
        """Balanced accuracy: the mean of the shares that are passed of the good and held back of the bad."""
        good, bad = self.right_good + self.wrong_good, self.right_bad + self.wrong_bad
        return (self.right_good / good + self.wrong_bad / bad) / 2 if good and bad else None


class Labelled(NamedTuple):
    """A trial and what people say of its text."""

    trial: Trial
    score: float
    label: float


def calibrate(trials: Sequence[Trial], field: str, marks: Marks, passing: float | None = None) -> dict[str, Any]:
    """How the trials' scores stand to the labels in `field` of the samples or the rows.

    A label is true or false, 1 or 0, or another number; of those, `passing` and more is good. Trials without a label,
    and the grader's faults, are left out and counted. Raises ConfigError and DataError.
    """
    found = list(_labelled(trials, field))
    if not found:
        raise DataError("no graded text has a label", field=field, remedy="Name the field that holds it with --labels")
    cut = _cut([one.label for one in found], passing)
    good = [one.label >= cut for one in found]
    scores = [one.score for one in found]
    passed = [marks.reached(one.trial) for one in found]
    resampled = _Resampled(found, good, passed)
    return {
        "field": field,
        "n": len(found),
        "rows": resampled.rows,
        "left_out": len(trials) - len(found),
        "good": sum(good),
        "passing": cut,
        "spearman": spearman(scores, [one.label for one in found]),
        "kendall": kendall(scores, [one.label for one in found]),
        "auc": {"value": auc(scores, good), "ci95": resampled.auc()},
        "at_full_marks": _judged(confusion(passed, good), resampled.passed),
        "best": _best(scores, good, resampled) if len(set(good)) == 2 else None,
        "disagreements": [
            {**line(one.trial), "label": one.label}
            for one, said, wanted in zip(found, passed, good, strict=True)
            if said != wanted
        ][:EXAMPLES],
    }


def confusion(passed: Sequence[bool], good: Sequence[bool]) -> Confusion:
    """The texts by both columns."""
    pairs = Counter(zip(passed, good, strict=True))
    return Confusion(*(float(pairs[said, fine]) for said in (True, False) for fine in (True, False)))


def best_threshold(scores: Sequence[float], good: Sequence[bool]) -> float:
    """The score from which on to pass a text, for the best balanced accuracy.

    It lies midway between two scores, of equally good places where they are furthest apart; or it is the lowest score,
    which passes everything, where nothing is better than that.
    """
    levels = sorted(set(scores))
    candidates = [(levels[0], 0.0)] + [((low + high) / 2, high - low) for low, high in pairwise(levels)]

    def worth(candidate: tuple[float, float]) -> tuple[float, float]:
        threshold, margin = candidate
        value = confusion([score >= threshold for score in scores], good).balanced()
        return (round(value or 0.0, 12), margin)  # rounded: equal shares must tie

    return max(candidates, key=worth)[0]


class _Resampled:
    """Bootstrap over rows: a row's texts are drawn together. Fixed seed."""

    def __init__(self, found: Sequence[Labelled], good: Sequence[bool], passed: Sequence[bool]) -> None:
        places = {row: place for place, row in enumerate(dict.fromkeys(one.trial.text.row for one in found))}
        self.rows = len(places)
        levels = sorted({one.score for one in found})
        self._levels = np.array(levels)
        level_of = {level: place for place, level in enumerate(levels)}
        counts = np.zeros((2, self.rows, len(levels)))  # (good?, rows, levels)
        self._outcomes = np.zeros((self.rows, 4))
        for one, fine, said in zip(found, good, passed, strict=True):
            row = places[one.trial.text.row]
            counts[int(fine), row, level_of[one.score]] += 1
            self._outcomes[row, (0 if said else 2) + (0 if fine else 1)] += 1
        generator = np.random.default_rng(0)
        drawn = generator.multinomial(self.rows, np.full(self.rows, 1 / self.rows), RESAMPLES)
        self._drawn = drawn.astype(np.float64)
        self._bad, self._good = self._drawn @ counts[0], self._drawn @ counts[1]  # (resamples, levels)

    def auc(self) -> list[float] | None:
        """Of each resample by Mann-Whitney over the levels of the score."""
        below = self._bad.cumsum(axis=1) - self._bad
        pairs = self._good.sum(axis=1) * self._bad.sum(axis=1)
        above = (self._good * (below + self._bad / 2)).sum(axis=1)
        return _middle([float(share / all_) for share, all_ in zip(above, pairs, strict=True) if all_])

    def thresholds(self) -> list[float] | None:
        """The best threshold chosen anew in each resample."""
        passed = [side[:, ::-1].cumsum(axis=1)[:, ::-1] for side in (self._good, self._bad)]  # from this level on
        good, bad = (side.sum(axis=1, keepdims=True) for side in (self._good, self._bad))
        both = (good[:, 0] > 0) & (bad[:, 0] > 0)
        if not both.any():
            return None
        balanced = passed[0][both] / good[both] - passed[1][both] / bad[both]
        gaps = np.diff(self._levels)
        places = np.concatenate([self._levels[:1], self._levels[:-1] + gaps / 2])
        margins = np.concatenate([[0.0], gaps])
        best = balanced.max(axis=1, keepdims=True)
        chosen = np.where(balanced > best - 1e-9, margins, -inf).argmax(axis=1)
        return _middle(places[chosen].tolist())

    @property
    def passed(self) -> Iterator[Confusion]:
        """The tables of what has full marks."""
        return (Confusion(*row) for row in (self._drawn @ self._outcomes).tolist())

    def at(self, threshold: float) -> Iterator[Confusion]:
        """The tables of what reaches a threshold."""
        over = self._levels >= threshold
        columns = [side[:, places].sum(axis=1) for places in (over, ~over) for side in (self._good, self._bad)]
        return (Confusion(*row) for row in np.stack(columns, axis=1).tolist())


def _best(scores: Sequence[float], good: Sequence[bool], resampled: _Resampled) -> dict[str, Any]:
    """The best threshold, and what comes of it."""
    threshold = best_threshold(scores, good)
    table = confusion([score >= threshold for score in scores], good)
    return {
        "threshold": threshold,
        "ci95": resampled.thresholds(),
        **_judged(table, resampled.at(threshold)),
    }


def _judged(table: Confusion, resampled: Iterator[Confusion]) -> dict[str, Any]:
    """A table, and what it comes to, with intervals."""
    drawn = list(resampled)
    measures: Mapping[str, Callable[[Confusion], float | None]] = {
        "agreement": Confusion.agreement,
        "kappa": Confusion.kappa,
        "balanced_accuracy": Confusion.balanced,
    }
    return {
        "confusion": {name: int(count) for name, count in table._asdict().items()},
        **{
            name: {"value": measure(table), "ci95": _middle([v for one in drawn if (v := measure(one)) is not None])}
            for name, measure in measures.items()
        },
    }


def _middle(values: Sequence[float]) -> list[float] | None:
    """The middle 95 % of the resamples."""
    if not values:
        return None
    low, high = np.percentile(values, (2.5, 97.5)).tolist()
    return [low, high]


def _labelled(trials: Sequence[Trial], field: str) -> Iterator[Labelled]:
    template = as_template(field)
    for trial in trials:
        own, example = trial.text.fields, trial.text.example
        said = own[field] if field in own else _of_row(example, trial, template)
        if said is not None and trial.score is not None:
            yield Labelled(trial, trial.score, _number(said, field, example))


def _of_row(example: Example, trial: Trial, template: str) -> Any:
    try:
        return look_up(template, example, trial.text.sample)
    except InvalidVariable:
        return None


def _number(said: Any, field: str, example: Example) -> float:
    try:
        return (
            WORDS[said.strip().casefold()]
            if isinstance(said, str) and said.strip().casefold() in WORDS
            else float(said)
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the label of row {example.id} is neither a number nor true or false",
            file=example.place,
            field=field,
            value=said,
            remedy="Write true or false, 1 or 0, or a number",
        ) from error


def _cut(labels: Sequence[float], passing: float | None) -> float:
    """The label from which on a text is good."""
    if passing is not None:
        return passing
    if set(labels) <= {0.0, 1.0}:
        return 1.0
    raise ConfigError(
        "labels are numbers beside 0 and 1, so it is open which of them are good",
        path="--labels",
        value=f"{min(labels):g} to {max(labels):g}",
        remedy="Say from which on with --passing, such as --passing 4",
    )
