"""A grader looked over: what it says of samples, of the gold answers, of attacks, and how it stands to people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.config.graders import Grader
from sharpen.config.graders.version import version
from sharpen.config.recipe import Eval
from sharpen.data.source import read_examples
from sharpen.errors import ConfigError, DataError
from sharpen.graders.pool import GraderPool
from sharpen.lab import samples
from sharpen.lab.calibrate import calibrate
from sharpen.lab.measures import wilson
from sharpen.lab.redteam import red_team
from sharpen.lab.trial import Bench, Marks, Text, line, overview
from sharpen.runs.observer import Observer
from sharpen.stages.resolve import with_paths
from sharpen.stages.routing import Router, graders, leaving
from sharpen.types import Example

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look at, beside the gold answers."""

    samples: Path | None = None
    """A file of texts."""

    model: str = ""
    """A model to draw them from; how many, how long and how hot, the eval says."""

    gold: str = ""
    """A field of the rows, or a template, with the reference answer; empty: `item.answer`, where there is one."""

    red_team: bool = False
    """Whether to attack the grader."""

    threshold: float | None = None
    """The score that counts as full marks; None: the top of the grader's range, or 1."""

    labels: str = ""
    """A field of the samples or the rows with people's labels."""

    passing: float | None = None
    """The label from which on a text is good."""

    seed: int = 0
    """Of what is drawn."""


async def grade(
    config: Eval,
    wanted: Wanted,
    *,
    base: Path,
    observer: Observer | None = None,
    function: Callable[..., Any] | None = None,
) -> dict[str, Any]:
    """What became of it all, as plain values; `config` names grader and rows, paths being relative to `base`.

    `function` is the grader where it was handed over in Python.

    Raises SharpenError with the remedy.
    """
    observer = observer or Observer()
    if wanted.samples and wanted.model:
        raise ConfigError(
            "samples come from a file or from a model", path="--samples, --model", remedy="Leave one of them out"
        )
    if wanted.labels and not (wanted.samples or wanted.model):
        raise ConfigError(
            "labels are people's words on texts, and there are none", path="--labels", remedy="Give them with --samples"
        )
    examples = list(read_examples(config.data, base))
    if not examples:
        raise DataError("there are no rows", field="data", remedy="Give at least one")
    template = samples.as_template(wanted.gold) if wanted.gold else samples.GOLD
    gold = samples.gold_texts(examples, template)
    if wanted.gold and not gold:
        raise ConfigError(
            "no row has a reference answer there",
            path="--gold",
            value=wanted.gold,
            remedy=f"The fields of {examples[0].id} are {sorted(examples[0].item)}",
        )
    placed: Eval = with_paths(config, base)
    configs = graders(placed.grader, placed.data)
    for told in leaving(configs.values()):
        observer.event(told)
    marks = Marks(configs, wanted.threshold)
    texts, about = await _texts(config, wanted, examples, observer)
    pools = {key: GraderPool(own, function=None if key else function) for key, own in configs.items()}
    with Router(pools) as router:
        bench = Bench(router)
        observer.progress("grading samples", 0, len(texts))
        drawn = await bench.grade(texts)
        observer.progress("grading gold answers", 0, len(gold))
        golden = await bench.grade(gold)
        observer.progress("attacking", 0, len(examples))
        attacks = await red_team(examples, template, bench, marks) if wanted.red_team else None
    failed = [trial for trial in golden if not marks.reached(trial)]
    passed = len(golden) - len(failed)
    scores = [trial.score for trial in golden if trial.score is not None]
    return {
        "schema_version": SCHEMA_VERSION,
        "graders": _named(configs, examples, marks),
        "data": {"rows": len(examples)},
        "samples": {**about, **overview(drawn), "trials": [line(trial) for trial in drawn]} if about else None,
        "gold": {
            "template": template,
            "n": len(golden),
            "without": len(examples) - len(golden),
            "passed": passed,
            "share": passed / len(golden) if golden else None,
            "ci95": list(wilson(passed, len(golden))) if golden else None,
            "highest": max(scores, default=None),
            **{key: value for key, value in overview(golden).items() if key in ("score", "faults", "histogram")},
            "failed": [line(trial) for trial in failed],
        },
        "red_team": attacks,
        "labels": calibrate(drawn, wanted.labels, marks, wanted.passing) if wanted.labels else None,
        "speed": bench.speed(),
    }


def faultless(result: Mapping[str, Any]) -> bool:
    """Whether every gold answer has full marks, and no attack has."""
    attacks = result["red_team"] or ()
    return not result["gold"]["failed"] and not any(attack["false_positives"] for attack in attacks)


async def _texts(
    config: Eval, wanted: Wanted, examples: Sequence[Example], observer: Observer
) -> tuple[list[Text], dict[str, Any]]:
    """The samples, and where they are from; nothing where none are asked for."""
    if wanted.samples:
        given = samples.read(wanted.samples, examples)
        return given.texts, {"source": str(wanted.samples), "unmatched": given.unmatched}
    if wanted.model:
        about = {"source": wanted.model, "each": config.samples, "temperature": config.temperature}
        return await samples.draw(wanted.model, config, examples, wanted.seed, observer), about
    return [], {}


def _named(configs: Mapping[str, Grader], examples: Sequence[Example], marks: Marks) -> list[dict[str, Any]]:
    """The graders, with their versions and how many rows each grades."""
    rows = Counter(example.grader for example in examples)
    return [
        {
            "name": config.name or config.type,
            "type": config.type,
            "version": version(config),
            "full_marks": marks.full[key],
            "rows": rows[key],
        }
        for key, config in configs.items()
        if rows[key]
    ]
