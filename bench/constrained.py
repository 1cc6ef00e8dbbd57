"""What a `response_format` gives and costs: the share of valid JSON, parity of log-probabilities, tokens per second.

    python -m bench.constrained --out bench/constrained.json

64 prompts ask to extract four fields of a sentence as JSON. `drawn` and `greedy` answer them at temperature 1 and 0,
free and held to the schema: a completion is valid where it, or its last ```json block, is JSON of the schema.
`steady` has 64 sequences side by side with end tokens ignored, free and inside one JSON string, where nearly the whole
vocabulary is allowed. The sides of it take turns, a process each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any
from zlib import decompress

from bench.common import Gauge, Measurement, Measurements, Record, apart, arguments, joined, picked, prepared

PROMPTS, LIMIT = 64, 192
STEADY_TOKENS, WARM = 64, 4
NAMES = ("Ada", "Bo", "Carla", "Dimitri", "Elif", "Farid", "Greta", "Hugo")
CITIES = ("Oslo", "Lima", "Kyoto", "Porto", "Accra", "Tartu", "Quito", "Bergen")
JOBS = ("nurse", "carpenter", "teacher", "baker", "pilot", "painter", "farmer", "judge")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "city": {"type": "string"},
        "hobbies": {"type": "array", "items": {"type": "string"}, "maxItems": 4},
    },
    "required": ["name", "age", "city", "hobbies"],
    "additionalProperties": False,
}
STRING = {"type": "string", "minLength": 10_000}
"""Longer than any sequence here gets."""


def question(place: int) -> str:
    """No two of the 64 are equal."""
    name, city, job = NAMES[place % 8], CITIES[place // 8], JOBS[(place + place // 8) % 8]
    return (
        "Extract the name (text), the age (whole number), the city (text) and the hobbies (list of texts) from the "
        "sentence as a JSON object with the keys name, age, city and hobbies. Answer with the JSON only.\n\n"
        f"{name}, {20 + place} years old, is a {job} in {city} and likes chess and {'skiing' if place % 2 else 'jazz'}."
    )


def _held(loaded: Any, schema: dict[str, Any]) -> Any:
    from sharpen.config.response_format import JsonSchemaFormat
    from sharpen.rollout.grammar import grammar_of

    return grammar_of(JsonSchemaFormat(schema=schema), loaded)


def answers(model: str, dtype: Any, held: bool, temperature: float) -> Measurement:
    """One completion of each prompt, and what the trainer makes of them."""
    from bench.ours import versions
    from sharpen.data.render import Renderer
    from sharpen.models.load import compute_dtype, load
    from sharpen.rollout.base import Params, Request
    from sharpen.rollout.local import LocalSampler

    loaded = load(model, compute_dtype(dtype))
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    prompts = [renderer.prompt([{"role": "user", "content": question(place)}]) for place in range(PROMPTS)]
    params = Params(LIMIT, temperature, grammar=_held(loaded, SCHEMA) if held else None)
    sampler = LocalSampler(loaded.model, loaded.stop, max_rows=PROMPTS)
    with Gauge() as gauge, gauge.step() as tokens:
        requests = [Request(prompt, (0, place)) for place, prompt in enumerate(prompts)]
        segments = asyncio.run(sampler.sample(requests, params))
        tokens += [segment.sampled for segment in segments]
    samples = [renderer.sample(segment) for segment in segments]
    ended = [sample for sample in samples if sample.finish == "stop"]
    facts = {
        "dtype": str(loaded.dtype),
        "valid": share([valid(sample.text) for sample in samples]),
        "ended": len(ended),
        "valid_of_ended": share([valid(sample.text) for sample in ended]),
        "gap": gap(loaded.model, segments),
        "examples": [sample.text for sample in samples[:3]],
    }
    if held:
        facts |= {"support": carried(segments), "masks": masks(params.grammar, segments)}
    return gauge.measurement(versions(), **facts)


def valid(text: str) -> bool:
    """Whether a completion, or its last ```json block, is JSON of the schema."""
    from sharpen.completion import output_json
    from sharpen.config.json_schema import validator

    try:
        return bool(validator(SCHEMA).is_valid(output_json(text)))
    except ValueError:
        return False


def share(found: Sequence[bool]) -> dict[str, Any]:
    """The share of what holds, with Wilson's 95 % interval."""
    from sharpen.lab.measures import wilson

    return {"share": mean(found) if found else None, "ci95": wilson(sum(found), len(found)) if found else None}


def gap(model: Any, segments: Sequence[Any]) -> dict[str, Any]:
    """|log-probability| between sampler and trainer, in nats a token, and core-seconds of the trainer's look."""
    from sharpen.train.engine import score
    from sharpen.types import Sequence as Row

    rows = [Row(one.tokens, one.mask, str(place), support=one.support) for place, one in enumerate(segments)]
    began = time.process_time()
    score(model, [replace(row, support=None) for row in rows], 1024)
    between = time.process_time()
    scored = score(model, rows, 1024)
    seconds = {"without_support": between - began, "with_support": time.process_time() - between}
    gaps = [
        abs(new - old)
        for row, segment in zip(scored, segments, strict=True)
        for new, old, sampled in zip(row.old_logprobs, segment.logprobs, segment.mask, strict=True)
        if sampled
    ]
    return {
        "mean": mean(gaps),
        "max": max(gaps),
        "tokens": len(gaps),
        "completions": len(segments),
        "core_seconds": seconds,
    }


def carried(segments: Sequence[Any]) -> dict[str, Any]:
    """Bytes a sampled token: of supports as they are, with 8 for the reference to its set, and as ids of 4 bytes."""
    sets = [own for segment in segments for own in segment.support.sets]
    distinct = {id(own): own for own in sets}
    sizes = {key: _size(own) for key, own in distinct.items()}
    kept = sum(len(own) for own in distinct.values()) + 8 * len(sets)
    return {
        "tokens": len(sets),
        "distinct_sets": len(distinct),
        "bytes_per_token": kept / len(sets),
        "bytes_per_token_as_ids": 4 * mean(sizes[id(own)] for own in sets),
        "largest_set": {"tokens": max(sizes.values()), "bytes": max(len(own) for own in distinct.values())},
    }


def _size(own: bytes) -> int:
    return int.from_bytes(decompress(own), "little").bit_count()


def masks(grammar: Any, segments: Sequence[Any]) -> dict[str, float]:
    """Core-milliseconds that the grammar takes a token, beside the model: what is allowed, its set, and going on."""
    from sharpen.rollout.grammar import Allowed, advance

    known: dict[bytes, bytes] = {}
    beginning = following = 0.0
    tokens = 0
    for segment in segments:
        began = time.process_time()
        matcher = grammar.begin()
        begun = time.process_time()
        for token in segment.tokens[len(segment.tokens) - segment.sampled :]:
            Allowed(grammar, [matcher]).sets(known)
            if token not in grammar.stop:
                advance(matcher, token)
            tokens += 1
        beginning, following = beginning + begun - began, following + time.process_time() - begun
    return {"ms_per_token": 1000 * following / tokens, "ms_per_completion": 1000 * beginning / len(segments)}


def steady(model: str, dtype: Any, held: bool, rounds: int) -> Measurement:
    """64 sequences of so many tokens each, end tokens ignored."""
    from bench.ours import versions
    from sharpen.data.render import Renderer
    from sharpen.models.load import compute_dtype, load
    from sharpen.rollout.base import Params, Request
    from sharpen.rollout.local import LocalSampler

    loaded = load(model, compute_dtype(dtype))
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    prompts = [renderer.prompt([{"role": "user", "content": question(place)}]) for place in range(PROMPTS)]
    sampler = LocalSampler(loaded.model, frozenset(), max_rows=PROMPTS)
    grammar = _held(loaded, STRING) if held else None
    with Gauge(warmup=1) as gauge:
        for number, limit in enumerate([WARM] + [STEADY_TOKENS] * rounds):
            with gauge.step() as tokens:
                requests = [Request(prompt, (number, place)) for place, prompt in enumerate(prompts)]
                segments = asyncio.run(sampler.sample(requests, Params(limit, grammar=grammar)))
                tokens += [segment.sampled for segment in segments]
    more = {"support": carried(segments)} if held else {}
    return gauge.measurement(versions(), dtype=str(loaded.dtype), **more)


def ratio(ours: Measurements, _: Measurements) -> dict[str, Any]:
    """Tokens a second, and a core-second, which other work disturbs less: held over free."""
    if not {"steady, free", "steady, held"} <= ours.keys():
        return {}
    held, free = (ours[f"steady, {name}"] for name in ("held", "free"))
    rates = [sum(one["tokens"]) / sum(one["core_seconds"]) for one in (held, free)]
    return {
        "tokens_per_second": held["tokens_per_second"] / free["tokens_per_second"],
        "tokens_per_core_second": rates[0] / rates[1],
    }


def main() -> None:
    """Measure, and print the document."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of the steady work, free and held in turn")
    options = prepared(parser)
    record = Record(options, ratio)
    settings = picked(options, "model", "dtype")
    sides = {"free": False, "held": True}
    for work, temperature in (("drawn", 1.0), ("greedy", 0.0)):
        for name, held in sides.items():
            called = apart("bench.constrained:answers", **settings, held=held, temperature=temperature)
            record.add("ours", f"{work}, {name}", called)
    taken: dict[str, list[Measurement]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, held in sides.items():
            taken[name].append(apart("bench.constrained:steady", **settings, held=held, rounds=1))
    for name, rounds in taken.items():
        record.add("ours", f"steady, {name}", joined(rounds))
    record.finish()


if __name__ == "__main__":
    main()
