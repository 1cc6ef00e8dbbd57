"""Pairs of completions that an earlier run's RFT stage has sampled and graded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from sharpen.config.data import PairsData
from sharpen.data.read import Record, Where
from sharpen.errors import ConfigError, DataError
from sharpen.runs.store import read_lines

Line = dict[str, Any]


def rows(data: PairsData, base: Path) -> Iterator[tuple[Where, Record]]:
    """Preference rows, with the scores of both completions, and where each group stands.

    Raises ConfigError where the run or its stage is not there, DataError where no group has two completions to compare.
    """
    run = base / Path(data.pairs_from).expanduser()
    found = False
    for path in _files(run, data.stage):
        lines = [(number, line) for number, line in enumerate(read_lines(path), start=1)]
        for _, group in groupby(lines, key=lambda numbered: numbered[1]["example"]):
            numbered = list(group)
            where = Where(str(path), numbered[0][0])
            for place, (chosen, rejected) in enumerate(_pairs([line for _, line in numbered], data, where)):
                found = True
                yield where, _row(chosen, rejected, f"{path.parent.name}/{path.stem}/{chosen['example']}/{place}")
    if not found:
        raise DataError(
            "no pair can be made: in no group do two completions differ enough in their scores",
            file=str(run),
            value=f"min_gap {data.min_gap:g}",
            remedy="Take a run whose groups have different scores, or lower min_gap",
        )


def _files(run: Path, stage: str) -> list[Path]:
    """The stage's rollouts, step by step."""
    if not (run / "recipe.yaml").is_file():
        raise ConfigError(
            "there is no run to make pairs from",
            path="pairs_from",
            value=str(run),
            remedy="Give the directory of an earlier run",
        )
    stages = sorted(path.parent.name for path in (run / "rollouts").glob("*/step-*.jsonl"))
    names = list(dict.fromkeys(stages))
    if not names:
        raise ConfigError(
            "the run has no completions: no RFT stage of it has begun",
            path="pairs_from",
            value=str(run),
            remedy="Give a run with an RFT stage",
        )
    if stage and stage not in names:
        raise ConfigError("the run has no completions of this stage", path="stage", value=stage, remedy=_of(names))
    if not stage and len(names) > 1:
        raise ConfigError("several stages of the run have completions", path="stage", value=names, remedy=_of(names))
    return sorted((run / "rollouts" / (stage or names[0])).glob("step-*.jsonl"))


def _of(names: Sequence[str]) -> str:
    return f"Give one of {', '.join(names)}"


def _pairs(group: Sequence[Line], data: PairsData, where: Where) -> Iterator[tuple[Line, Line]]:
    """The better and the worse completion of each pair of a group."""
    if any("messages" in line for line in group):
        raise where.error(
            "the completions are episodes in an environment, of which no pairs are made",
            field="messages",
            remedy="Take a run whose RFT stage has no `env`",
        )
    scored = [line for line in group if line["scores"]["score"] is not None]
    different = {(line["text"], line.get("reasoning", "")): line for line in reversed(scored)}.values()
    by_score = sorted(reversed(different), key=lambda line: -line["scores"]["score"])  # of equals the first sampled
    better = [line for line in by_score if line["finish"] == "stop"]
    for chosen, rejected in list(zip(better, reversed(by_score), strict=False))[: data.per_group]:
        if chosen["scores"]["score"] - rejected["scores"]["score"] > data.min_gap:
            yield chosen, rejected


def _row(chosen: Line, rejected: Line, name: str) -> Record:
    answers = [[{"role": "assistant", "content": line["text"], **_thoughts(line)}] for line in (chosen, rejected)]
    return {
        "id": name,
        "prompt": chosen["prompt"],
        "chosen": answers[0],
        "rejected": answers[1],
        "chosen_score": chosen["scores"]["score"],
        "rejected_score": rejected["scores"]["score"],
        **({"tools": chosen["tools"]} if "tools" in chosen else {}),
    }


def _thoughts(line: Line) -> dict[str, str]:
    return {"reasoning_content": line["reasoning"]} if line.get("reasoning") else {}
