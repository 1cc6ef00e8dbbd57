"""A client's grader as one of ours: `grader` is the only way from OpenAI's JSON to what a recipe or a process is given.

Every fault is told with its place. Judges are those that the operator maps, and nothing else takes their place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from sharpen.config.base import Config
from sharpen.config.graders import Grader
from sharpen.config.graders.remote import on_this_machine
from sharpen.config.load import explain
from sharpen.server import names
from sharpen.server.errors import APIError, invalid
from sharpen.server.grading import guard, tokens
from sharpen.server.settings import External, Settings

JUDGE = "judge:"
"""Begins the names under which this server's own judges are asked, with a token and in no other way."""

NO_KEY = "SHARPEN_NO_KEY"
"""A variable that nobody sets, for judges that need no key: none of the environment's others may go there."""

DEEPEST = 100
"""Objects and lists within each other, at most."""
PARTS = 32
"""Graders in a `multi`, at most."""


CODE = "invalid_grader"
ROOT = "grader"


class _Given(Config):
    grader: Grader


def grader(given: object, settings: Settings, *, judge_url: str, param: str = "grader") -> dict[str, Any]:
    """The config of ours that a client's grader is, as plain values. `judge_url` is this server's own, `http://…/v1`.

    Raises APIError 400, with the place of the fault below `param`. May take a second: call it in a thread.
    """
    if not isinstance(given, Mapping):
        raise invalid(f"{param}: a grader is an object with a `type` (got {given!r:.120})", param)
    _is_json(given, param)
    plain = _without_nulls(given)
    guard.check(plain, settings, param)
    if plain.get("type") == "multi":
        shaped = _map_parts(plain.get("graders"), settings, judge_url, f"{param}.graders")
        plain = {**plain, "graders": shaped}
    else:
        plain = _part(plain, settings, judge_url, param)
    try:
        config = _Given.model_validate({"grader": plain}).grader
    except ValidationError as error:
        raise _told(error, param) from None
    found: dict[str, Any] = config.model_dump(mode="json", exclude_unset=True)
    return found


def own_url(settings: Settings, port: int | None = None) -> str:
    """Where processes of this machine ask this server, `http://…/v1`; `port`: the one it was given, where it asked for
    any."""
    anywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}
    host = anywhere.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port or settings.port}/v1"


def veiled(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A grader of ours without what its headers hold, which may be a client's secret, and the environment that has it:
    the headers name variables of it. Recipes are kept, shown and handed on; environments are not."""
    hidden: dict[str, str] = {}

    def without(part: Mapping[str, Any]) -> dict[str, Any]:
        headers = {}
        for name, value in part.get("headers", {}).items():
            variable = f"SHARPEN_HEADER_SECRET_{len(hidden)}"
            hidden[variable] = value
            headers[name] = f"${{{variable}}}" if value else value
        return {**part, "headers": headers} if headers else dict(part)

    if config["type"] == "multi":
        return {**config, "graders": {name: without(part) for name, part in parts(config)}}, hidden
    return without(config), hidden


def judges_of(config: Mapping[str, Any]) -> list[str]:
    """The judges on this server that a grader of ours asks, by the operator's names for them, each once."""
    return sorted({part["model"].removeprefix(JUDGE) for _, part in parts(config) if _is_ours(part)})


def models_of(config: Mapping[str, Any]) -> list[str]:
    """The names that a token must open for a grader of ours."""
    return [f"{JUDGE}{name}" for name in judges_of(config)]


def parts(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The single graders of a grader of ours, by the names under which they report."""
    if config["type"] == "multi":
        yield from config["graders"].items()
    else:
        yield config.get("name") or config["type"], config


def asked(given: object) -> dict[str, str]:
    """The names that a client calls its judges by, by the names of the graders that ask them."""
    if not isinstance(given, Mapping):
        return {}
    inner = given.get("graders") if given.get("type") == "multi" else given
    if isinstance(inner, Mapping) and not isinstance(inner.get("type"), str):
        named = dict(inner)
    else:
        listed = inner if isinstance(inner, list) else [inner]
        named = {part.get("name") or part.get("type"): part for part in listed if isinstance(part, Mapping)}
    return {name: part["model"] for name, part in named.items() if isinstance(part, Mapping) and "model" in part}


def _is_json(given: Mapping[str, Any], param: str) -> None:
    """Raises APIError for what Python's reader takes and nobody else does."""
    level: list[Any] = [given]
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in (value.values() if isinstance(value, Mapping) else value)]
        level = [inner for inner in level if isinstance(inner, Mapping | list)]
    if level:
        raise invalid(f"{param} is nested more than {DEEPEST} deep", param, CODE)
    try:
        json.dumps(given, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        why = "half a character (a lone surrogate)" if isinstance(error, UnicodeError) else "NaN or Infinity"
        raise invalid(f"{param} holds {why}, which no JSON has", param, CODE) from None


def _is_ours(part: Mapping[str, Any]) -> bool:
    return part.get("api_key_env") == tokens.VARIABLE


def _without_nulls(part: Mapping[str, Any]) -> dict[str, Any]:
    """Without what OpenAI's clients write for what was not given."""
    return {name: value for name, value in part.items() if value is not None}


def _map_parts(given: Any, settings: Settings, judge_url: str, param: str) -> Any:
    """The graders of a `multi`, in the shape that they came in; what is none of the three shapes is left as it is."""

    def one(part: Any, place: str) -> Any:
        if not isinstance(part, Mapping):
            return part
        plain = _without_nulls(part)
        if plain.get("type") == "multi":
            raise invalid(f"{place}: a `multi` has single graders only, no other `multi`", f"{place}.type")
        guard.check(plain, settings, place)
        return _part(plain, settings, judge_url, place)

    if isinstance(given, Mapping) and isinstance(given.get("type"), str):
        return one(given, param)
    if isinstance(given, Mapping | list) and len(given) > PARTS:
        raise invalid(f"{param}: at most {PARTS} graders (got {len(given)})", param)
    if isinstance(given, Mapping):
        return {name: one(part, f"{param}.{name}") for name, part in given.items()}
    if isinstance(given, list):
        return [one(part, f"{param}.{place}") for place, part in enumerate(given)]
    return given


def _part(part: dict[str, Any], settings: Settings, judge_url: str, param: str) -> dict[str, Any]:
    """A single grader with what the operator decides."""
    kind = part.get("type")
    ignored = guard.IGNORED.get(kind, frozenset()) if isinstance(kind, str) else frozenset()
    kept = {name: value for name, value in part.items() if name not in ignored}
    match kind:
        case "score_model" | "label_model":
            return {**kept, **_judge(part.get("model"), settings, judge_url, f"{param}.model")}
        case "endpoint" | "batch_endpoint":
            return {**kept, "allow_remote": True}
        case "text_similarity" if part.get("evaluation_metric") == "cosine":
            return {**kept, "embedding_model": _encoder(settings, f"{param}.evaluation_metric")}
    return kept


def _judge(name: object, settings: Settings, judge_url: str, param: str) -> dict[str, Any]:
    """Where a judge is, and with which key it is asked. Raises APIError where the operator maps none of that name."""
    if not isinstance(name, str) or name not in settings.judges:
        raise names.unmapped(settings, name, param)
    mapped_to = settings.judges[name]
    if isinstance(mapped_to, External):
        return {
            "model": mapped_to.model,
            "base_url": mapped_to.base_url,
            "api_key_env": mapped_to.api_key_env or NO_KEY,
            "allow_remote": True,
        }
    return {
        "model": f"{JUDGE}{name}",
        "base_url": judge_url,
        "api_key_env": tokens.VARIABLE,
        "allow_remote": not on_this_machine(urlsplit(judge_url).hostname or ""),
    }


def _encoder(settings: Settings, param: str) -> str:
    if settings.embeddings is None:
        raise invalid(
            f"{param}: `cosine` compares embeddings, and the operator names no encoder (`embeddings:`). "
            "fuzzy_match, bleu, gleu, meteor and rouge need none.",
            param,
            "unmapped_embedding_model",
        )
    return settings.embeddings


def _told(error: ValidationError, param: str) -> APIError:
    """All faults in one message, and the place of the first."""
    first = error.errors(include_url=False)[0]
    line: InitErrorDetails = {
        "type": first["type"],
        "loc": first["loc"],
        "input": first["input"],
        "ctx": first.get("ctx", {}),
    }
    alone = explain(ValidationError.from_exception_data(error.title, [line]), _Given)
    message = str(explain(error, _Given))
    place = alone.path.removeprefix(ROOT)
    return invalid(param + message.removeprefix(ROOT) if message.startswith(ROOT) else message, param + place, CODE)
