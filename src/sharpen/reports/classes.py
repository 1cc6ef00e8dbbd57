"""Where answers are labels: confusion matrix, precision, recall, F1 and macro-F1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sharpen.reports.glossary import term
from sharpen.reports.markup import Html, folded, tag
from sharpen.reports.numbers import MISSING, Span, finite, show
from sharpen.reports.read import Record, text_of
from sharpen.runs.statistics import RESAMPLES

MOST_CLASSES = 50
ITEMS_PER_CLASS = 3
"""With fewer items to a class on average, answers are answers and no labels."""
OTHER = "other"
Counts = np.ndarray[Any, np.dtype[np.int64]]
Scores = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Classes:
    """What became of each class. `confusion[i, j]`: items of class i taken for class j; the last column is no class."""

    labels: tuple[str, ...]
    confusion: Counts
    """(classes, classes + 1)"""
    precision: Scores
    """(classes,); NaN for a class that was never answered."""
    recall: Scores
    f1: Scores
    macro_f1: float
    """The plain mean of the classes' F1."""
    ci95: Span
    """Of macro-F1, by bootstrap over items."""


def measure(items: Sequence[Record]) -> Classes | None:
    """The classes of an eval's items, or None where the reference answers are no small set of labels."""
    references = [_reference(item) for item in items]
    labels = tuple(sorted({label for label in references if label is not None}))
    if None in references or not 2 <= len(labels) <= MOST_CLASSES or len(items) < ITEMS_PER_CLASS * len(labels):
        return None
    place = {label: index for index, label in enumerate(labels)}
    pattern = _pattern(labels)
    confusion = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for item, reference in zip(items, references, strict=True):
        row = place[str(reference)]
        confusion[row, _answered(item, row, place, pattern)] += 1
    precision, recall, f1 = _scores(confusion[None])
    return Classes(
        labels, confusion, precision[0], recall[0], f1[0], float(np.nanmean(f1[0])), _macro_interval(confusion)
    )


def section(items: Sequence[Record], title: str) -> Html:
    """Macro-F1 in a line that opens to the classes and the confusion matrix; nothing where there are no labels."""
    found = measure(items)
    if found is None:
        return Html("")
    return folded(
        f"{title}: {summary(found)} over {len(found.labels)} classes", _table(found), _matrix(found), class_="classes"
    )


def summary(classes: Classes) -> str:
    """`macro-F1 71.2% [66.0, 76.1]`"""
    return f"macro-F1 {show(classes.macro_f1, 'share')} [{classes.ci95.low * 100:.1f}, {classes.ci95.high * 100:.1f}]"


def _reference(item: Record) -> str | None:
    """The label, as text without white space around it; case does not count."""
    answer = item.get("answer")
    return text_of(answer).strip().casefold() or None if isinstance(answer, str | int | float) else None


def _pattern(labels: Sequence[str]) -> re.Pattern[str]:
    """Any label as a word of its own, longer ones first: `very good` is not `good`."""
    longest_first = sorted(labels, key=len, reverse=True)
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-]|\.\w)")


def _answered(item: Record, row: int, place: dict[str, int], pattern: re.Pattern[str]) -> int:
    """The class an answer names: the reference's where it is graded right, else the only label that stands in it.

    No label, several, or the reference in an answer that is graded wrong (out of form): no class.
    """
    if finite(item, "correct") == 1:
        return row
    named = {place[label] for label in pattern.findall(text_of(item.get("text")).casefold())}
    return named.pop() if len(named) == 1 and row not in named else len(place)


def _scores(confusions: Counts) -> tuple[Scores, Scores, Scores]:
    """Precision, recall and F1 = 2 tp / (2 tp + fp + fn) of (n, classes, classes + 1); NaN where 0/0."""
    right = np.diagonal(confusions, axis1=1, axis2=2).astype(np.float64)
    answered = confusions[:, :, :-1].sum(axis=1)
    there = confusions.sum(axis=2)
    with np.errstate(invalid="ignore"):
        return right / answered, right / there, 2 * right / (answered + there)


def _macro_interval(confusion: Counts) -> Span:
    """Drawing items with replacement is drawing the cells' counts from a multinomial."""
    cells = np.flatnonzero(confusion)
    counts = confusion.ravel()[cells]
    total = int(counts.sum())
    drawn = np.random.default_rng(0).multinomial(total, counts / total, RESAMPLES)
    macro = np.zeros(RESAMPLES)
    for start in range(0, RESAMPLES, 500):
        block = drawn[start : start + 500]
        full = np.zeros((len(block), confusion.size), dtype=np.int64)
        full[:, cells] = block
        macro[start : start + 500] = np.nanmean(_scores(full.reshape(-1, *confusion.shape))[2], axis=1)
    low, high = np.percentile(macro, (2.5, 97.5))
    return Span(float(low), float(high))


def _table(classes: Classes) -> Html:
    names = ("Class", "Items", *map(term, ("precision", "recall", "f1")))
    head = tag("tr", *(tag("th", cell, scope="col") for cell in names))
    rows = []
    for index, label in enumerate(classes.labels):
        values = (classes.precision[index], classes.recall[index], classes.f1[index])
        said = [MISSING if np.isnan(value) else show(float(value), "share") for value in values]
        cells = [f"{classes.confusion[index].sum():,}", *said]
        rows.append(tag("tr", tag("th", label, scope="row"), *(tag("td", cell) for cell in cells)))
    macro = (f"{classes.confusion.sum():,}", "", "", show(classes.macro_f1, "share"))
    rows.append(tag("tr", tag("th", term("macro_f1"), scope="row"), *(tag("td", cell) for cell in macro)))
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="per-class")


def _matrix(classes: Classes) -> Html:
    """Rows are the references, columns the answers; the deeper the tint, the larger the row's share."""
    names = [*classes.labels, OTHER]
    head = tag("tr", tag("th", "is ↓ answered →"), *(tag("th", name, scope="col") for name in names))
    rows = []
    for label, counts in zip(classes.labels, classes.confusion, strict=True):
        shares = counts / counts.sum()
        cells = (
            tag("td", f"{number:,}" if number else "·", style=f"--share: {100 * share:.0f}%")
            for number, share in zip(counts, shares, strict=True)
        )
        rows.append(tag("tr", tag("th", label, scope="row"), *cells))
    note = "Other: no label stands in the answer, or several, or the right one in an answer graded wrong."
    return tag(
        "div",
        tag("table", tag("thead", head), tag("tbody", *rows), class_="confusion"),
        tag("p", note, class_="rule"),
        class_="wide",
    )
