"""Without a run: a grader tried on texts, and a model on held-out problems."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sharpen.api.graders import Graded, Grader
from sharpen.api.recipes import Eval
from sharpen.api.rows import Data, rows
from sharpen.api.runs import Run
from sharpen.config.recipe import Eval as EvalConfig
from sharpen.runs.observer import Observer

T = TypeVar("T")

Samples = str | Path | Iterable[str | Mapping[str, Any]]
"""A file of texts, or texts: in the order of the rows, or dicts with `text`, and `id` to name their row."""


def grade(
    grader: Grader,
    data: Data,
    *,
    samples: Samples | None = None,
    model: str = "",
    k: int = 8,
    temperature: float = 1.0,
    max_tokens: int = 128,
    gold: str = "",
    red_team: bool = False,
    threshold: float | None = None,
    labels: str = "",
    passing: float | None = None,
    seed: int = 0,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Look a grader over before it teaches anything, as `sharpen grade` does (docs/lab.md).

    It grades the rows' own answers (`["gold"]`), the samples, or `k` answers of a model to each row (`["samples"]`),
    and with `red_team` answers that deserve nothing; returns what `sharpen grade --json` prints. Raises SharpenError.
    """
    from sharpen.lab import grading

    held_out = Eval(data, name="grade", grader=grader, samples=k, temperature=temperature, max_tokens=max_tokens)
    config, function = _parts(held_out)
    with tempfile.TemporaryDirectory() as folder:
        texts = None if samples is None else _file(samples, Path(folder))
        wanted = grading.Wanted(texts, model, gold, red_team, threshold, labels, passing, seed)
        return _apart(
            lambda: asyncio.run(grading.grade(config, wanted, base=Path(), observer=observer, function=function))
        )


def evaluate(
    model: str | Path | Run,
    held_out: EvalConfig | Graded[EvalConfig],
    *,
    out: str | Path | None = None,
    seed: int = 0,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Any model's scores on held-out problems, with intervals, as `sharpen eval` tells them and summary.json has them.

    `model` is an alias, a folder, a hub id, or a run, whose last model it means. With `out`, a folder, the answers are
    kept there, item by item. Raises SharpenError.
    """
    from sharpen.answer.named import named
    from sharpen.stages.evaluate import standalone  # imports torch

    config, function = _parts(held_out)
    name = named(str(model.path if isinstance(model, Run) else model))
    folder = Path(out) if out is not None else None
    return _apart(
        lambda: standalone(name, config, folder, base=Path(), seed=seed, observer=observer, function=function)
    )


def _parts(held_out: EvalConfig | Graded[EvalConfig]) -> tuple[EvalConfig, Any]:
    return (held_out.config, held_out.grader) if isinstance(held_out, Graded) else (held_out, None)


def _file(samples: Samples, folder: Path) -> Path:
    """The samples as a file, as the lab reads them."""
    if isinstance(samples, str | Path):
        return Path(samples)
    texts = rows([{"text": sample} if isinstance(sample, str) else sample for sample in samples])
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    return path


def _apart(work: Callable[[], T]) -> T:
    """Do work that has an event loop of its own, also where one is running already (notebooks)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1, thread_name_prefix="sharpen") as executor:
        return executor.submit(work).result()
