"""A run's completions and answers as flat rows: for a DataFrame, or without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sharpen.errors import ConfigError
from sharpen.reports.read import Record, Run, jsonl

ROLLOUTS = "stage step example prompt text reward advantage score tokens finish fault explanation version".split()
EVALS = "eval model id prompt answer text score correct format found tokens finish fault explanation samples".split()
TURNS = ("messages", "env_state", "env_reward")
"""What an environment adds."""


def rollouts(run: Run, stage: str | None, step: int | None) -> list[dict[str, Any]]:
    """One row a completion, in the order of stages and steps. Raises ConfigError for a stage or step without any."""
    files = {
        (own.name, int(file.stem.removeprefix("step-"))): file for own in run.stages for file in run.rollouts(own.name)
    }
    known("stage", stage, [name for name, _ in files])
    chosen = {key: file for key, file in files.items() if stage in (None, key[0])}
    known("step", step, [number for _, number in chosen])
    return [
        _rollout(key, record) for key, file in chosen.items() if step in (None, key[1]) for record in jsonl(file)[0]
    ]


def evals(run: Run, name: str | None, model: str | None) -> list[dict[str, Any]]:
    """One row an item and model, evals by name, models in the order of training. Raises ConfigError as `rollouts`."""
    chosen = {key: models for key, models in run.evals.items() if name in (None, key)}
    known("name", name, list(run.evals))
    known("model", model, [own for own in run.models if any(own in models for models in chosen.values())])
    return [
        {"eval": key, "model": own, **_flat(record, EVALS[2:])}
        for key, models in chosen.items()
        for own in run.models
        if model in (None, own)
        for record in models.get(own, ())
    ]


def known(what: str, value: object, has: Sequence[object]) -> None:
    """Raise ConfigError for a value that is not among what the run has."""
    if value is not None and value not in has:
        names = ", ".join(map(str, dict.fromkeys(has))) or "none"
        raise ConfigError(f"the run has nothing of this {what}", path=what, value=value, remedy=f"It has: {names}")


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    """A DataFrame of the rows; without any it still has its columns. Raises ConfigError where pandas is missing."""
    try:
        import pandas  # type: ignore[import-untyped]  # no dependency: only who wants a DataFrame has it
    except ImportError as error:
        raise ConfigError(
            "a DataFrame needs pandas, which is not installed",
            remedy="pip install pandas, or ask for a list of dicts with as_frame=False",
        ) from error
    return pandas.DataFrame(list(rows), columns=None if rows else list(columns))


def _rollout(key: tuple[str, int], record: Record) -> dict[str, Any]:
    scores, tokens = dict(record.get("scores") or {}), record.get("tokens")
    flat = {**record, "score": scores.pop("score", None), "tokens": len(tokens or ())}
    return {
        "stage": key[0],
        "step": key[1],
        **_flat(flat, ROLLOUTS[2:]),
        **{f"scores.{name}": value for name, value in scores.items()},
    }


def _flat(record: Record, columns: Sequence[str]) -> dict[str, Any]:
    turns = {name: record[name] for name in TURNS if name in record}
    return {**{name: record.get(name) for name in columns}, "prompt": prompt_text(record.get("prompt")), **turns}


def prompt_text(messages: Any) -> str:
    """The prompt for reading: the user's words alone where there are no others, else every turn with its role."""
    turns = list(_turns(messages))
    return turns[0][1] if len(turns) == 1 else "\n\n".join(f"{role}: {text}" for role, text in turns)


def _turns(messages: Any) -> Iterator[tuple[str, str]]:
    for message in messages or ():
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        yield str(message.get("role")), " ".join(str(part.get("text") or "") for part in parts).strip()
