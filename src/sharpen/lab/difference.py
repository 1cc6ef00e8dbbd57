"""What another grader makes of the same attempts: the order of all, and within groups. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sharpen.lab.measures import kendall, ranks, spearman
from sharpen.lab.trial import SLACK, faults
from sharpen.rl.advantages import SPREAD
from sharpen.types import Grade

EXAMPLES = 5
"""Disagreements that are told."""


class Attempt(NamedTuple):
    """A rollout that was kept, and what the new grader says of it; `full` is what the old one's full marks were."""

    line: Mapping[str, Any]
    step: int
    group: int
    full: float
    old: float | None
    new: Grade

    @property
    def both(self) -> tuple[float, float] | None:
        """Its two scores; None where either grader failed."""
        return None if self.old is None or self.new.score is None else (self.old, self.new.score)


def compare(attempts: Sequence[Attempt], full: float) -> dict[str, Any]:
    """Two graders' scores of the same attempts: correlations, flips, what changes within groups, and by step.

    `full` is the new grader's full marks. Attempts at which either grader failed are counted, and left out.
    """
    pairs = [attempt for attempt in attempts if attempt.both]
    old = [attempt.both[0] for attempt in pairs if attempt.both]
    new = [attempt.both[1] for attempt in pairs if attempt.both]
    right = [(a.both[0] >= a.full - SLACK, a.both[1] >= full - SLACK) for a in pairs if a.both]
    return {
        "n": len(attempts),
        "compared": len(pairs),
        "faults": {
            "before": sum(attempt.old is None for attempt in attempts),
            "after": faults(attempt.new for attempt in attempts),
        },
        "mean": {"before": _mean(old), "after": _mean(new)},
        "spearman": spearman(old, new),
        "kendall": kendall(old, new),
        "flips": {
            "right_to_wrong": right.count((True, False)),
            "wrong_to_right": right.count((False, True)),
            "right_both": right.count((True, True)),
            "wrong_both": right.count((False, False)),
        },
        "groups": within_groups(pairs),
        "by_step": _by_step(pairs),
        "examples": _examples(pairs, right, (ranks(old) - ranks(new)).tolist()),
    }


def within_groups(pairs: Sequence[Attempt]) -> dict[str, Any]:
    """What of the order within groups, which alone GRPO learns from, is another under the new grader.

    Of the pairs that the old grader tells apart, `same` stay so, `reversed` turn round and `tied` are no longer told
    apart; `parted` are told apart only now. A group teaches where its scores differ.
    """
    counts = {"same": 0, "reversed": 0, "tied": 0, "parted": 0}
    groups = [[a.both for a in own if a.both] for _, own in groupby(pairs, key=lambda a: (a.step, a.group))]
    groups = [own for own in groups if len(own) > 1]
    for own in groups:
        for place, (before, after) in enumerate(own):
            for other_before, other_after in own[:place]:
                was, became = _side(before - other_before), _side(after - other_after)
                if was:
                    counts["same" if was == became else "tied" if not became else "reversed"] += 1
                elif became:
                    counts["parted"] += 1
    taus = [tau for own in groups if (tau := kendall(*zip(*own, strict=True))) is not None]
    teaches = [[_spreads([scores[side] for scores in own]) for own in groups] for side in (0, 1)]
    return {
        "n": len(groups),
        "changed": sum(_order(0, own) != _order(1, own) for own in groups),
        "teaches": {"before": sum(teaches[0]), "after": sum(teaches[1])},
        "kendall": _mean(taus),
        "pairs": counts,
    }


def _side(difference: float) -> int:
    return 0 if abs(difference) <= SPREAD else 1 if difference > 0 else -1


def _order(side: int, own: Sequence[tuple[float, float]]) -> list[int]:
    """The signs of all pairs' differences."""
    return [_side(one[side] - other[side]) for place, one in enumerate(own) for other in own[:place]]


def _spreads(scores: Sequence[float]) -> bool:
    return max(scores) - min(scores) > SPREAD


def _by_step(pairs: Sequence[Attempt]) -> list[dict[str, Any]]:
    found = []
    for step, own in groupby(pairs, key=lambda attempt: attempt.step):
        both = [attempt.both for attempt in own if attempt.both]
        before, after = (_mean([scores[side] for scores in both]) for side in (0, 1))
        found.append({"step": step, "n": len(both), "before": before, "after": after})
    return found


def _examples(
    pairs: Sequence[Attempt], right: Sequence[tuple[bool, bool]], gaps: Sequence[float]
) -> list[dict[str, Any]]:
    """Flips first, then those whose ranks among all attempts differ most; a text of an example is told once."""
    size = [(before != after, abs(gap)) for (before, after), gap in zip(right, gaps, strict=True)]
    told: dict[tuple[str, str], dict[str, Any]] = {}
    for place in sorted(range(len(pairs)), key=lambda place: size[place], reverse=True):
        if len(told) == EXAMPLES or size[place] == (False, 0):
            break
        attempt = pairs[place]
        name, text = str(attempt.line["example"]), str(attempt.line["text"])
        before = {"score": attempt.old, "explanation": attempt.line.get("explanation") or ""}
        after = {"score": attempt.new.score, "explanation": attempt.new.explanation}
        entry = {"step": attempt.step, "id": name, "text": text, "before": before, "after": after}
        told.setdefault((name, text), entry)
    return list(told.values())


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
