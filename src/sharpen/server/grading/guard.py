"""What a client's grader may say: every field of every grader is the client's, or it is the operator's.

A field that stands in neither table is refused, so that one which is new to our graders must be thought about first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args
from urllib.parse import urlsplit

from sharpen.config.base import Config
from sharpen.config.graders import Multi, Single
from sharpen.config.graders.remote import on_this_machine
from sharpen.server.errors import APIError, invalid
from sharpen.server.grading import packages
from sharpen.server.settings import Settings

Given = Mapping[str, Any]

MODELS: dict[str, type[Config]] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in (*get_args(Single), Multi)
}
"""Our graders, by their types."""

COMMON = frozenset({"type", "name", "time_limit"})
ASKED = frozenset({"max_retries", "rate_limit", "max_concurrent"})
JUDGED = ASKED | {"input", "model", "sampling_params", "price", "budget"}

CLIENTS: dict[str, frozenset[str]] = {
    "string_check": frozenset({"input", "reference", "operation"}),
    "text_similarity": frozenset({"input", "reference", "evaluation_metric", "pass_threshold"}),
    "math": frozenset({"reference"}),
    "numeric": frozenset({"reference", "take", "abs_tolerance", "rel_tolerance"}),
    "regex": frozenset({"pattern", "flags", "mode", "group", "reference"}),
    "json_schema": frozenset({"schema", "match", "credit", "reference"}),
    "reasoning_gym": frozenset({"pattern"}),
    "sql": frozenset({"schema", "reference", "ordered", "rel_tolerance"}),
    "length": frozenset({"unit", "min", "max", "falloff"}),
    "format": frozenset({"tags", "strict", "answer_tag", "reference"}),
    "language": frozenset({"language"}),
    "repetition": frozenset({"ngram_size", "unit", "max_share"}),
    "python": frozenset({"source", "persistent"}),
    "code_tests": frozenset({"tests", "function", "prefix", "packages", "partial_credit", "rel_tolerance"}),
    "score_model": JUDGED | {"range", "pass_threshold"},
    "label_model": JUDGED | {"labels", "passing_labels"},
    "endpoint": ASKED | {"url", "headers", "pass_threshold"},
    "batch_endpoint": ASKED | {"url", "headers", "max_batch"},
    "plugin": frozenset({"use"}),
    "trl": frozenset({"use", "conversational", "max_batch"}),
    "rubric": frozenset({"functions", "parser"}),
    "multi": frozenset({"graders", "calculate_output"}),
}
"""By type, what a client may give beside COMMON: texts, numbers, programs for the sandbox, and names that are looked
up in what the operator allows."""

SERVERS = frozenset({"base_url", "api_key_env", "allow_remote"})
OPERATORS: dict[str, frozenset[str]] = {
    "score_model": SERVERS,
    "label_model": SERVERS,
    "endpoint": frozenset({"allow_remote"}),
    "batch_endpoint": frozenset({"allow_remote", "file", "handler"}),
    "text_similarity": frozenset({"embedding_model"}),
    "reward_model": frozenset(
        {"model", "input", "text", "pair", "label", "transform", "batch_size", "max_length", "truncation"}
    ),
}
"""By type, what only the operator decides: addresses, keys, files, folders and models of this machine."""

IGNORED = {"python": frozenset({"image_tag"})}
"""Fields of OpenAI's that mean nothing here: there is one image, this machine's packages."""

MOST: dict[str, float] = {"time_limit": 600.0, "max_retries": 10, "max_concurrent": 32, "max_batch": 4_096}
"""The highest of what takes the server's time."""
LONGEST = {"pattern": 2_000, "name": 200, "schema": 65_536, "calculate_output": 1_000}
"""Characters of what is compiled here, as JSON where it is no text."""

HOP = frozenset(
    "host connection content-length content-type transfer-encoding te trailer upgrade accept-encoding "
    "keep-alive proxy-authorization proxy-authenticate proxy-connection expect forwarded".split()
)
"""Headers that say how a request travels, and are the server's own."""


def check(part: Given, settings: Settings, param: str) -> None:
    """Raises APIError where a grader says what a client may not. What is merely wrong is left to our own models."""
    kind = part.get("type")
    if kind == "reward_model":
        raise refused("reward_model names a model's folder on this machine", f"{param}.type")
    if not isinstance(kind, str) or kind not in CLIENTS:
        return
    for name in part:
        if name not in known(kind) and name in MODELS[kind].model_fields:
            raise refused(f"`{name}` is the operator's to say", f"{param}.{name}")
    for name, most in MOST.items():
        value = part.get(name)
        if isinstance(value, int | float) and value > most:
            raise invalid(f"{name} is at most {most:g} (got {value!r:.40})", f"{param}.{name}")
    for name, characters in LONGEST.items():
        _short(part.get(name), characters, f"{param}.{name}")
    if kind == "python" and isinstance(source := part.get("source"), str):
        packages.check_program(source, settings.packages, f"{param}.source")
    if kind == "code_tests" and isinstance(wanted := part.get("packages"), list):
        packages.check(map(str, wanted), settings.packages, f"{param}.packages")
    if kind in ("plugin", "trl", "rubric"):
        _listed(part, settings, param)
    if kind in ("endpoint", "batch_endpoint"):
        _address(part, settings, param)


def known(kind: str) -> frozenset[str]:
    """The fields of a type that a client may give."""
    return COMMON | CLIENTS[kind] | IGNORED.get(kind, frozenset())


def refused(fact: str, param: str, remedy: str = "A client cannot set it") -> APIError:
    """400: what is the operator's."""
    return invalid(f"{param}: {fact}. {remedy}.", param, "not_permitted")


def _short(value: object, longest: int, param: str) -> None:
    size = len(value) if isinstance(value, str) else len(json.dumps(value)) if value is not None else 0
    if size > longest:
        raise invalid(f"{param} has at most {longest:,} characters (got {size:,})", param)


def _listed(part: Given, settings: Settings, param: str) -> None:
    """Code of the operator's, which must be on the operator's list."""
    functions = part.get("functions")
    named = {"use": part.get("use"), "parser": part.get("parser") or None}
    if isinstance(functions, list):
        for index, function in enumerate(functions):
            named[f"functions.{index}.use"] = function.get("use") if isinstance(function, Mapping) else None
    for place, name in named.items():
        if isinstance(name, str) and name not in settings.plugins:
            allowed = ", ".join(settings.plugins) or "none"
            raise refused(
                f"code of this machine runs only where the operator lists it (got {name!r:.120})",
                f"{param}.{place}",
                f"Listed are: {allowed}; the operator adds to `plugins:`",
            )


def _address(part: Given, settings: Settings, param: str) -> None:
    """An endpoint's address, which must be a host of the operator's list, and its headers."""
    url = part.get("url")
    if not isinstance(url, str):
        raise invalid(f"{param}.url is missing: the address that samples are sent to", f"{param}.url")
    if fault := unfit(url, settings.endpoint_hosts):
        hosts = ", ".join(settings.endpoint_hosts) or "none"
        raise refused(
            f"{fault} (got {url!r:.200})", f"{param}.url", f"Hosts that may be asked: {hosts}; see `endpoint_hosts:`"
        )
    headers = part.get("headers") or {}
    for name, value in headers.items() if isinstance(headers, Mapping) else ():
        if isinstance(value, str) and "${" in value:
            raise refused("a header holds `${`, which reads the server's environment", f"{param}.headers.{name}")
        if not isinstance(name, str) or name.strip().lower() in HOP:
            raise refused("this header is the server's own", f"{param}.headers.{name}")


def unfit(url: str, hosts: tuple[str, ...]) -> str:
    """Why an address is not asked; empty: it is. Nothing is looked up: a host is what it is called.

    A host of the list is asked at https' own port, and where it is this machine also at http's; `host:port` of the
    list at that port, in either way if it is this machine.
    """
    try:
        address = urlsplit(url)
        host, port = address.hostname or "", address.port
    except ValueError:
        return "no address"
    plain = url.isascii() and url.isprintable() and not any(letter in url for letter in " \\")
    if not plain or not host or address.scheme not in ("http", "https"):
        return "no address such as https://host/path"
    if "@" in address.netloc:
        return "an address has no user and no password here"
    if address.scheme == "http" and not on_this_machine(host):
        return "other machines are asked by https only"
    usual = {"http": 80, "https": 443}[address.scheme]
    shown = f"[{host}]" if ":" in host else host
    wanted = {f"{shown}:{port or usual}"} | ({shown} if port in (None, usual) else set())
    if wanted.isdisjoint(listed.lower() for listed in hosts):
        return "this host is not one that the operator allows"
    return ""
