"""Evaluation: greedy accuracy, avg@k and pass@k, per item, on problems that no training saw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpen.config.recipe import Eval
from sharpen.data.render import Renderer
from sharpen.data.source import read_examples
from sharpen.errors import DataError, GraderError
from sharpen.graders.pool import GraderPool
from sharpen.guards.faults import failed
from sharpen.models.load import Loaded, compute_dtype, load
from sharpen.rollout.base import Params
from sharpen.rollout.episodes import Answers, Attempt, make
from sharpen.rollout.grammar import Grammar, grammar_of
from sharpen.runs.ledger import Ledger
from sharpen.runs.observer import Observer
from sharpen.runs.store import write_lines
from sharpen.stages.environment import environment
from sharpen.stages.following import SharedSampler
from sharpen.stages.grading import judge
from sharpen.stages.report import episode, thoughts
from sharpen.stages.resolve import with_paths
from sharpen.stages.routing import Router, graders, leaving
from sharpen.stages.summary import score
from sharpen.train.ranks import Ranks
from sharpen.types import Example, Grade, Rollout

Progress = Callable[[int, int], None]
"""Told how many answers are done, of how many."""

CORRECT = 1 - 1e-9
"""A score from here on counts as correct: partial credit never does."""


async def evaluate(
    config: Eval,
    examples: Sequence[Example],
    loaded: Loaded,
    seed: int,
    observer: Observer,
    label: str,
    check_stop: Callable[[], None] = lambda: None,
    ranks: Ranks | None = None,
    ledger: Ledger | None = None,
    function: Callable[..., Any] | None = None,
) -> list[dict[str, Any]]:
    """The model's answers to the examples, graded: one line an item, in their order.

    `check_stop` is called between batches, and may raise; other `ranks` hold the model already; `ledger` keeps what
    judges answer; `function` is the eval's grader where it was handed over in Python. Raises GraderError
    when the grader itself fails on an item: an accuracy over the rest would be biased.
    """
    if not examples:
        raise DataError("there are no held-out problems", field=f"evals.{config.name}.data")

    def watch(what: str) -> Progress:
        def progress(done: int, total: int) -> None:
            check_stop()
            observer.progress(what, done, total)

        return progress

    keys = [(seed, config.name, sample) for sample in range(config.samples)]
    sampler, grammar = SharedSampler(loaded, ranks or Ranks()), grammar_of(config.response_format, loaded)
    with environment(config.env) as env:
        greedy = await answers(config, examples, loaded, sampler, 0.0, [(0,)], env, watch(f"{label}, greedy"), grammar)
        drawn = await answers(
            config, examples, loaded, sampler, config.temperature, keys, env, watch(f"{label}, drawn"), grammar
        )
    with Router(pools(config, ledger, function)) as pool:
        grades = await graded(pool, examples, greedy, 1)
        drawn_grades = await graded(pool, examples, drawn, config.samples)
    lines = []
    for place, (example, rollout, made) in enumerate(zip(examples, greedy, grades, strict=True)):
        own = slice(place * config.samples, (place + 1) * config.samples)
        lines.append(
            {
                "id": example.id,
                "prompt": list(rollout.prompt or example.messages),
                "answer": _answer(example),
                "text": rollout.sample.text,
                **thoughts(rollout),
                **episode(rollout),
                "finish": rollout.sample.finish,
                "score": made.score,
                "correct": _correct(made),
                "format": made.metrics.get("format"),
                "found": made.metrics.get("found"),
                "explanation": made.explanation,
                "fault": made.fault.kind if made.fault else None,
                "tokens": rollout.sampled,
                "samples": [
                    {"text": other.sample.text, **thoughts(other), "score": grade.score, "correct": _correct(grade)}
                    for other, grade in zip(drawn[own], drawn_grades[own], strict=True)
                ],
            }
        )
    return lines


def standalone(
    model: str,
    config: Eval,
    out: Path | None,
    *,
    base: Path,
    seed: int = 0,
    observer: Observer | None = None,
    function: Callable[..., Any] | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate one model outside a run: its scores with intervals; items go to `out`/eval.jsonl when given.

    `chat_template_kwargs` stand over those that the model was trained with.
    """
    config = with_paths(config, base)
    examples = list(read_examples(config.data, base))
    loaded = load(model, compute_dtype("auto"), chat_template_kwargs)
    observer = observer or Observer()
    if loaded.notice:
        observer.event({"event": "alert", "kind": "slow_path", "message": loaded.notice})
    for told in leaving(graders(config.grader, config.data).values()):
        observer.event(told)
    lines = asyncio.run(evaluate(config, examples, loaded, seed, observer, model, function=function))
    if out:
        write_lines(out / "eval.jsonl", lines)
    return score(lines)


def pools(
    config: Eval, ledger: Ledger | None = None, function: Callable[..., Any] | None = None
) -> dict[str, GraderPool]:
    """The eval's grader, which may be a function handed over in Python, and those that its sources name."""
    return {
        key: GraderPool(own, function=None if key else function, ledger=ledger)
        for key, own in graders(config.grader, config.data).items()
    }


async def answers(
    config: Eval,
    examples: Sequence[Example],
    loaded: Loaded,
    sampler: SharedSampler,
    temperature: float,
    keys: Sequence[tuple[int | str, ...]],
    env: Answers | None,
    progress: Progress,
    grammar: Grammar | None = None,
) -> list[Rollout]:
    """One answer for each example and key, example by example."""
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    attempts = [Attempt(example, (*key, example.id)) for example in examples for key in keys]
    rollouts: list[Rollout] = []
    for start in range(0, len(attempts), sampler.max_rows):
        progress(start, len(attempts))
        part = attempts[start : start + sampler.max_rows]
        params = Params(config.max_tokens, temperature, grammar=grammar)
        rollouts += await make(part, env, sampler, renderer, params, thinking_budget=config.thinking_budget)
    progress(len(attempts), len(attempts))
    return rollouts


async def graded(pool: Router, examples: Sequence[Example], rollouts: Sequence[Rollout], each: int) -> list[Grade]:
    """The grades of `each` rollouts of every example. Raises GraderError where the grader itself fails."""
    pairs = [(examples[place // each], rollout) for place, rollout in enumerate(rollouts)]
    grades = await judge(pairs, pool)
    for (example, _), made in zip(pairs, grades, strict=True):
        if made.score is None:
            cause = f"{made.fault.kind}: {made.fault.detail}" if made.fault else "no cause given"
            raise GraderError(
                f"the {failed(made.fault)} failed on the held-out item {example.id} ({cause})",
                remedy="Mend it or the item; no score is invented for it",
            )
    return grades


def _answer(example: Example) -> str | float | None:
    """The item's own answer, where it is text or a number: metrics over classes need it."""
    answer = example.item.get("answer")
    return answer if isinstance(answer, str | int | float) and not isinstance(answer, bool) else None


def _correct(grade: Grade) -> int:
    return int(grade.score is not None and grade.score >= CORRECT)
