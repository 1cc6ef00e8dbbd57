"""A grader under attack: how often answers that deserve nothing get full marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sharpen.graders.template import as_text
from sharpen.lab.attacks import ATTACKS, Attack, Target, holds, others
from sharpen.lab.measures import wilson
from sharpen.lab.samples import gold
from sharpen.lab.trial import Bench, Marks, Text, Trial, line
from sharpen.types import Example, Sample

EXAMPLES = 3
"""Successful texts that are told of each attack."""


async def red_team(examples: Sequence[Example], template: str, bench: Bench, marks: Marks) -> list[dict[str, Any]]:
    """What each attack came to on the rows; `template` says where their reference answers stand."""
    golds = [gold(example, template) for example in examples]
    targets = [Target(prompt(example), golds[row], others(golds, row)) for row, example in enumerate(examples)]
    texts = [
        [
            Text(example, Sample(said), row, place)
            for row, example in enumerate(examples)
            for place, said in enumerate(attack.texts(targets[row]))
        ]
        for attack in ATTACKS
    ]
    trials = iter(await bench.grade([text for several in texts for text in several]))
    own = [[next(trials) for _ in several] for several in texts]
    return [outcome(attack, mine, golds, marks) for attack, mine in zip(ATTACKS, own, strict=True)]


def outcome(attack: Attack, trials: Sequence[Trial], golds: Sequence[str | None], marks: Marks) -> dict[str, Any]:
    """An attack's false positives: the share of rows on which one of its texts at least has full marks.

    Texts that hold the right answer are counted apart, and so are the grader's faults.
    """
    holding: list[Trial] = []
    wrong: list[Trial] = []
    for trial in trials:
        if trial.score is not None:
            own = golds[trial.text.row]
            (holding if own is not None and holds(trial.text.sample.text, own) else wrong).append(trial)
    rows = {trial.text.row for trial in wrong}
    paid = [trial for trial in wrong if marks.reached(trial)]
    fooled = {trial.text.row for trial in paid}
    scores = [trial.score for trial in wrong if trial.score is not None]
    return {
        "attack": attack.name,
        "about": attack.about,
        "n": len(wrong),
        "rows": len(rows),
        "mean": sum(scores) / len(scores) if scores else None,
        "false_positives": len(fooled),
        "rate": len(fooled) / len(rows) if rows else None,
        "ci95": list(wilson(len(fooled), len(rows))) if rows else None,
        "by_text": _by_text(wrong, marks) if attack.fixed else [],
        "holding": {"n": len(holding), "paid": sum(marks.reached(trial) for trial in holding)},
        "left_out": len(trials) - len(wrong) - len(holding),
        "examples": [line(trial) for trial in paid[:EXAMPLES]],
    }


def prompt(example: Example) -> str:
    """What was last asked, as text."""
    content = example.messages[-1].get("content") if example.messages else None
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if isinstance(part, dict) and "text" in part)
    return "" if content is None else as_text(content)


def _by_text(trials: Sequence[Trial], marks: Marks) -> list[dict[str, Any]]:
    """The rate of each of an attack's texts, the most successful first."""
    found: dict[str, list[bool]] = {}
    for trial in trials:
        found.setdefault(trial.text.sample.text, []).append(marks.reached(trial))
    shares = sorted(((sum(hits) / len(hits), text) for text, hits in found.items()), key=lambda share: -share[0])
    return [{"text": text, "n": len(found[text]), "rate": rate} for rate, text in shares]
