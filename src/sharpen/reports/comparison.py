"""Runs side by side: in what they differ, and whether what came out differs by more than chance."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sharpen.errors import RunError
from sharpen.reports.numbers import at, finite, points
from sharpen.reports.read import Record, Run, read, text_of
from sharpen.runs.statistics import ArmDifference, Matrix, arm_difference, arm_interval, detectable, paired_detectable
from sharpen.types import Interval

COLOURS = ("sft", "rft", "other-0", "other-1", "other-2", "base")
"""The page's colours, by arm."""

Facts = Mapping[str, str]
Key = tuple[str, str]
"""What an item is known by: its id and its prompt."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Runs that differ in nothing but their seed."""

    name: str
    runs: tuple[Run, ...]
    facts: Facts
    colour: str

    @property
    def seeds(self) -> tuple[str, ...]:
        """The runs' seeds."""
        return tuple(seed_of(run) for run in self.runs)


@dataclass(frozen=True, slots=True)
class ArmScore:
    """How an arm did: the mean over its seeds, with an interval over items (and seeds)."""

    mean: float
    ci95: Interval
    by_seed: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Test:
    """An arm against the first one, on the same items."""

    __test__ = False  # pytest takes it for one of its own

    first: Arm
    other: Arm
    difference: ArmDifference
    detectable: float
    """The smallest true difference found with a power of 80 %."""

    def claim(self) -> str:
        """One sentence that says no more than was shown."""
        change = self.difference
        low, high = points(change.ci95.low), points(change.ci95.high)
        span = f"{points(change.delta)} points [{low}, {high}]"
        limit = f"a true difference of {points(self.detectable).lstrip('+')} points would be found 4 times in 5"
        if not change.shown:
            cause = "" if change.agree else "the seeds do not agree in its sign; "
            return f"No difference shown between {self.other.name} and {self.first.name}: {span}; {cause}{limit}."
        word = "more" if change.delta > 0 else "less"
        better = f"{self.other.name} gets {word} right than {self.first.name}: {span}"
        alone = [arm.name for arm in (self.first, self.other) if len(arm.runs) == 1]
        if not alone:
            return f"{better}; every seed agrees."
        one = f"Seeds were not varied in {' and '.join(alone)}"
        return f"{better}. {one}: this holds for these runs, not yet for their recipes."


@dataclass(frozen=True, slots=True)
class Flips:
    """Items that two arms answer differently, the clearest first, each with a run of either side that shows it."""

    won: tuple[tuple[Record, Record], ...]
    """(answer of the first arm, answer of the other)"""
    lost: tuple[tuple[Record, Record], ...]
    same: int


@dataclass(frozen=True, slots=True)
class EvalComparison:
    """An eval on the items that all its runs have answered."""

    name: str
    items: int
    left_out: int
    """Items that some run has and another lacks."""
    arms: tuple[Arm, ...]
    """Those that have this eval."""
    answers: Mapping[str, tuple[tuple[Record, ...], ...]]
    """By arm: for each run, the last model's answers, in one order for all."""
    scores: Mapping[str, ArmScore]
    tests: tuple[Test, ...]

    def flips(self, test: Test) -> Flips:
        """What the second arm of a test wins and loses."""
        before, after = self.answers[test.first.name], self.answers[test.other.name]
        change = _correct(after).mean(axis=0) - _correct(before).mean(axis=0)
        order = np.argsort(-np.abs(change), kind="stable")
        pairs = {
            sign: tuple(
                (_answering(before, item, sign < 0), _answering(after, item, sign > 0))
                for item in map(int, order)
                if change[item] * sign > 0
            )
            for sign in (1, -1)
        }
        return Flips(pairs[1], pairs[-1], int((change == 0).sum()))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything the page and the terminal show."""

    arms: tuple[Arm, ...]
    differences: tuple[tuple[str, tuple[str, ...]], ...]
    """(path in the recipe, each arm's value)"""
    evals: tuple[EvalComparison, ...]
    notes: tuple[str, ...]


def compare(paths: Sequence[Path]) -> Comparison:
    """The comparison of run directories. Raises RunError where nothing can be compared."""
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise RunError(
            "a comparison needs two or more different run directories",
            value=" ".join(map(str, paths)),
            remedy="Name each run once",
        )
    arms = group([read(path) for path in paths])
    names = list(dict.fromkeys(name for arm in arms for run in arm.runs for name in _answered(run)))
    shared = [name for name in names if sum(all(_final(run, name) for run in arm.runs) for arm in arms) > 1]
    if len(arms) == 1:
        shared = [name for name in names if all(_final(run, name) for run in arms[0].runs)]
    if not shared:
        seen = "; ".join(f"{run.path.name}: {', '.join(_answered(run)) or 'none'}" for arm in arms for run in arm.runs)
        raise RunError("the runs have no eval in common", value=seen, remedy="Run them with an eval of the same name")
    evals, notes = [], []
    for name in shared:
        having = [arm for arm in arms if all(_final(run, name) for run in arm.runs)]
        found = _eval(name, having)
        last = {run.path.resolve().name: _last(run, name) for arm in having for run in arm.runs}
        if len(set(last.values())) > 1:
            said = ", ".join(f"{folder} by {model}" for folder, model in last.items())
            notes.append(f"Eval {name} was answered last by different stages: {said}.")
        if found is None:
            notes.append(f"Eval {name} is left out: its runs have no item in common.")
        else:
            evals.append(found)
    if not evals:
        raise RunError(
            "the runs' evals have no item in common",
            value=", ".join(shared),
            remedy="Items are the same where id and prompt are; give the runs the same held-out data",
        )
    return Comparison(tuple(arms), _differences(arms), tuple(evals), tuple(notes))


def group(runs: Sequence[Run]) -> list[Arm]:
    """The runs as arms, in the order given. Raises RunError for two runs of one recipe with one seed."""
    together: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        together.setdefault(tuple(sorted(facts(run).items())), []).append(run)
    for same in together.values():
        seeds = [seed_of(run) for run in same]
        twice = [run.path.name for run in same if seeds.count(seed_of(run)) > 1]
        if twice:
            raise RunError(
                "runs with the same recipe and seed are one run, done twice",
                value=", ".join(twice),
                remedy="Compare only one of them, or run with another seed",
            )
    names = _names(list(together.values()))
    return [
        Arm(name, tuple(sorted(same, key=lambda run: (len(seed_of(run)), seed_of(run)))), dict(key), colour)
        for name, (key, same), colour in zip(
            names, together.items(), (COLOURS * len(together))[: len(together)], strict=True
        )
    ]


def facts(run: Run) -> Facts:
    """All that makes a run but its seed and its place: recipe, contents of data files, versions."""
    recipe = {key: value for key, value in run.recipe.items() if key not in ("seed", "resolved")}
    flat = _flatten(recipe)
    digests = at(run.recipe, "resolved", "data")
    for name, digest in digests.items() if isinstance(digests, Mapping) else ():
        path = f"{name}.data.path" if str(name).startswith("evals.") else f"{name}.path"
        if path in flat:
            flat[path] = f"contents {text_of(digest)[:12]}"
    return flat | _flatten({"versions": at(run.recipe, "resolved", "versions") or {}})


def seed_of(run: Run) -> str:
    """The run's seed, as the recipe writes it."""
    return text_of(run.recipe.get("seed", 0))


def _flatten(value: object, path: str = "") -> dict[str, str]:
    """`stages.sft.optim.lr` to its value; entries of a list go by their names, as in `--set`."""
    if isinstance(value, list) and value and all(isinstance(entry, Mapping) and entry.get("name") for entry in value):
        value = {str(entry["name"]): entry for entry in value}
    if not isinstance(value, Mapping):
        return {path: "null" if value is None else text_of(value)}
    return {
        key: text
        for name, inner in value.items()
        for key, text in _flatten(inner, f"{path}.{name}" if path else str(name)).items()
    }


def _names(arms: Sequence[Sequence[Run]]) -> list[str]:
    """An arm's name: its folder's, or what its folders' names have in common before the seed; numbered if need be."""
    named = []
    for runs in arms:
        folders = [run.path.resolve().name for run in runs]
        stems = [name.removesuffix(seed_of(run)) for name, run in zip(folders, runs, strict=True)]
        common = os.path.commonprefix(stems)  # noqa: RUF071 - of names, not of paths
        common = common.rstrip("-_. ").removesuffix("seed").rstrip("-_. ")
        named.append(folders[0] if len(runs) == 1 else common or f"{folders[0]} and others")
    return [f"{name} ({named[:i].count(name) + 1})" if named.count(name) > 1 else name for i, name in enumerate(named)]


def _differences(arms: Sequence[Arm]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    paths = dict.fromkeys(path for arm in arms for path in arm.facts)
    rows = ((path, tuple(arm.facts.get(path, "") for arm in arms)) for path in paths)
    return tuple((path, values) for path, values in rows if len(set(values)) > 1)


def _answered(run: Run) -> list[str]:
    return [name for name in run.evals if _final(run, name)]


def _last(run: Run, name: str) -> str:
    """The last model that has answered an eval; empty where none has."""
    answers = run.evals.get(name, {})
    return next((model for model in reversed(run.models) if answers.get(model)), "")


def _final(run: Run, name: str) -> tuple[Record, ...]:
    """The last model's answers."""
    return run.evals.get(name, {}).get(_last(run, name), ())


def _eval(name: str, arms: Sequence[Arm]) -> EvalComparison | None:
    by_key = {run.path: {_key(item): item for item in _final(run, name)} for arm in arms for run in arm.runs}
    everything = dict.fromkeys(key for items in by_key.values() for key in items)
    common = [key for key in everything if all(key in items for items in by_key.values())]
    if not common:
        return None
    answers = {arm.name: tuple(tuple(by_key[run.path][key] for key in common) for run in arm.runs) for arm in arms}
    right = {name: _correct(rows) for name, rows in answers.items()}
    scores = {
        name: ArmScore(float(values.mean()), arm_interval(values), tuple(map(float, values.mean(axis=1))))
        for name, values in right.items()
    }
    tests = tuple(_test(arms[0], other, right) for other in arms[1:])
    return EvalComparison(name, len(common), len(everything) - len(common), tuple(arms), answers, scores, tests)


def _test(first: Arm, other: Arm, right: Mapping[str, Matrix]) -> Test:
    before, after = right[first.name], right[other.name]
    difference = arm_difference(before, after, paired=first.seeds == other.seeds)
    if len(before) == len(after) == 1:
        return Test(first, other, difference, paired_detectable(before[0].tolist(), after[0].tolist()))
    return Test(first, other, difference, detectable(difference.error, before.shape[1]))


def _key(item: Record) -> Key:
    return text_of(item.get("id")), text_of(item.get("prompt"))


def _correct(answers: Sequence[Sequence[Record]]) -> Matrix:
    """1 where an answer is right: (runs, items)."""
    return np.array([[finite(item, "correct") == 1 for item in items] for items in answers], dtype=np.float64)


def _answering(answers: Sequence[Sequence[Record]], item: int, right: bool) -> Record:
    """An item's answer from the first run that got it right (or wrong)."""
    return next(items[item] for items in answers if (finite(items[item], "correct") == 1) == right)
