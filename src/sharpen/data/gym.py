"""Problems of a reasoning-gym generator, by index: item i is the same whatever range it is drawn in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any

from sharpen.config.data import ReasoningGymData
from sharpen.data import overlap
from sharpen.errors import ConfigError
from sharpen.types import Example, Labelled

BLOCK = 500
"""Items are drawn from datasets of this size, seeded with a multiple of it.

Item j of a reasoning-gym dataset with seed s uses Random(s + j), but `acre` and `gsm_symbolic` (and
`list_functions`) also draw from Random(s) for all `size` items at once. Fixed blocks make every
item a function of its index alone.
"""

UNREPEATABLE = frozenset(
    {
        "codeio",
        "intermediate_integration",
        "isomorphic_strings",
        "knight_swap",
        "list_functions",
        "polynomial_multiplication",
        "ransom_note",
        "word_ladder",
    }
)
"""Generators that give other items in another process (they walk sets), in reasoning-gym 0.1.25."""


def examples(data: ReasoningGymData) -> Iterator[Example]:
    """The problems of an index range, without those whose prompt occurred before in it.

    `item` is the generator's entry, with `generator` and `params`: what its verifier needs.
    Raises ConfigError for a wrong generator or parameter.
    """
    seen: set[bytes] = set()
    for index, entry in _entries(data):
        messages = ({"role": "user", "content": entry["question"] + data.suffix},)
        key = overlap.key(messages)
        if key in seen:
            continue
        seen.add(key)
        item = {name: entry[name] for name in ("question", "answer", "metadata")}
        item |= {"generator": data.generator, "params": data.params}
        yield Example(id=f"{data.generator}:{index}", messages=messages, item=item)


def labelled(data: ReasoningGymData) -> Iterator[Labelled]:
    """The same problems, each with the generator's answer as the assistant's turn."""
    for example in examples(data):
        answer = example.item["answer"]
        if answer is None:
            raise ConfigError(
                "this generator has a verifier but no answers to imitate",
                path="generator",
                value=data.generator,
                remedy="Use it for RFT or evaluation, or choose another generator",
            )
        reply = {"role": "assistant", "content": str(answer)}
        yield Labelled(id=example.id, messages=(*example.messages, reply), trained=(1,))


def installed() -> str:
    """The version of reasoning-gym: another version may draw other items."""
    return version("reasoning-gym")


def _entries(data: ReasoningGymData) -> Iterator[tuple[int, dict[str, Any]]]:
    stop = data.start + data.count
    for seed in range(data.start // BLOCK * BLOCK, stop, BLOCK):
        dataset = _dataset(data, seed)
        for index in range(max(seed, data.start), min(seed + BLOCK, stop)):
            try:
                yield index, dataset[index - seed]
            except Exception as error:  # foreign code: whatever it raises, the parameters caused it
                raise _failed(data, error) from error


def _dataset(data: ReasoningGymData, seed: int) -> Any:
    # Imported here: it takes a second.
    from reasoning_gym.factory import DATASETS, create_dataset  # type: ignore[import-untyped]

    if data.generator not in DATASETS:
        close = get_close_matches(data.generator, DATASETS, n=3)
        hint = f"Did you mean {' or '.join(close)}?" if close else "See reasoning-gym's list of datasets"
        raise ConfigError("reasoning-gym has no such generator", path="generator", value=data.generator, remedy=hint)
    if data.generator in UNREPEATABLE:
        raise ConfigError(
            "this generator gives other problems in every process, so a run could not be repeated",
            path="generator",
            value=data.generator,
            remedy="Choose another, or write its problems to a JSONL file once and use that",
        )
    _check_params(data, DATASETS[data.generator][1])
    try:
        return create_dataset(data.generator, seed=seed, size=BLOCK, **data.params)
    except Exception as error:  # asserts, TypeErrors: each generator checks in its own way
        raise _failed(data, error) from error


def _check_params(data: ReasoningGymData, config: type[Any]) -> None:
    """Names must be the generator's, and plain values of the type of its defaults."""
    known = {field.name: field for field in fields(config) if field.name not in ("seed", "size")}
    for name, value in data.params.items():
        path = f"params.{name}"
        if name in ("seed", "size"):
            raise ConfigError(
                "the index range is not a parameter", path=path, value=value, remedy="Use start and count"
            )
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"It has {', '.join(known)}"
            raise ConfigError(f"{data.generator} has no such parameter", path=path, value=value, remedy=hint)
        default = known[name].default
        if default is MISSING or not isinstance(default, bool | int | float | str):
            continue
        allowed = (int, float) if isinstance(default, float) else (type(default),)
        if type(value) not in allowed:
            remedy = f"Give a value of type {type(default).__name__}, such as {default!r}"
            raise ConfigError("a parameter of the wrong type", path=path, value=value, remedy=remedy)


def _failed(data: ReasoningGymData, error: Exception) -> ConfigError:
    """What a generator raised, as our error: at the parameter its message names, if any."""
    text = str(error) or type(error).__name__
    named = [name for name in data.params if re.search(rf"\b{re.escape(name)}\b", text)]
    path = f"params.{named[0]}" if named else "params"
    value = data.params[named[0]] if named else data.params
    return ConfigError(f"{data.generator} refused: {text}", path=path, value=value, remedy="Change the parameters")
