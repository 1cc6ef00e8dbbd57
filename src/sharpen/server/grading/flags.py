"""A grade in the words of OpenAI's `graders/run`: its flags of what went wrong, scores, times and tokens.

Our faults carry OpenAI's names where there is one. Beside the flag of a fault's own name two more say what it came of:
`unresponsive_reward_error`, where somebody was waited for in vain, and `truncated_observation_error`, where there was
more to see than is read. A fault without a name of OpenAI's is an `other_error`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sharpen.server.grading.translate import parts

FLAGS = (
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "other_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
)
DETAILS = {
    "python_grader_server_error": "python_grader_server_error_type",
    "python_grader_runtime_error": "python_grader_runtime_error_details",
    "model_grader_server_error": "model_grader_server_error_details",
}
"""Where what was said of a fault stands."""

TRUNCATED = ("output_limit",)
LATE = frozenset({"timeout", "no answer within"})
BEGINS = re.compile(r"(timeout|output_limit|no answer within)\b")
"""How the detail of a fault begins that is one of these."""

Fault = tuple[str, str]


def response(
    config: Mapping[str, Any], answer: Mapping[str, Any], asked: Mapping[str, str], seconds: float
) -> dict[str, Any]:
    """The response to a run. `asked` are the client's names of its judges, by part."""
    whole, told = answer["whole"], answer["parts"]
    several = config["type"] == "multi"
    usage = _usage(told, asked)
    faults = [(kind, detail) for kind, detail in (one["fault"] for one in told.values() if one["fault"])]
    if not faults and whole["fault"]:  # the formula's own; it repeats those of the parts
        faults = [(whole["fault"][0], whole["fault"][1])]
    models = list(usage)
    return {
        "reward": whole["score"] if whole["score"] is not None else 0.0,
        "sub_rewards": {name: one["score"] for name, one in told.items()} if several else {},
        "metadata": {
            "name": config.get("name") or config["type"],
            "type": config["type"],
            "errors": errors(faults),
            "execution_time": seconds,
            "scores": _scores(told) if several else dict(whole["metrics"]),
            "token_usage": sum(one["total_tokens"] for one in usage.values()) if usage else None,
            "sampled_model_name": models[0] if len(models) == 1 else None,
            "scored": whole["score"] is not None,
            "isolation": answer["isolation"],
            "faults": [{"kind": kind, "detail": _printable(detail)} for kind, detail in dict.fromkeys(faults)],
        },
        "model_grader_token_usage_per_model": usage,
    }


def errors(faults: Iterable[Fault]) -> dict[str, Any]:
    """All of OpenAI's flags, with those set that the faults are."""
    found: dict[str, Any] = dict.fromkeys(FLAGS, False) | dict.fromkeys(DETAILS.values())
    for kind, detail in faults:
        for flag in _flags(kind, detail):
            found[flag] = True
        if kind in DETAILS:
            found[DETAILS[kind]] = found[DETAILS[kind]] or _printable(detail)
    return found


def lost(config: Mapping[str, Any], kind: str, detail: str) -> dict[str, Any]:
    """The answer of a process that gave none: foreign programs ended it, or it was ended."""
    programs = [name for name, part in parts(config) if part["type"] in ("python", "code_tests")]
    fault = ["python_grader_server_error", kind] if programs else ["other_error", f"{kind}: {detail}"]
    none: dict[str, Any] = {"score": None, "metrics": {}, "fault": fault, "seconds": 0.0, "tokens": 0}
    return {"whole": none, "parts": {name: none for name, _ in parts(config)}, "isolation": None}


def _flags(kind: str, detail: str) -> list[str]:
    begins = BEGINS.match(detail)
    said = {kind, begins[1] if begins else ""}
    own = kind if kind in FLAGS else "other_error"
    more = []
    if said & LATE:
        more.append("unresponsive_reward_error")
    if said.intersection(TRUNCATED):
        more.append("truncated_observation_error")
    return more if more and kind in (*LATE, *TRUNCATED) else [own, *more]


def _scores(told: Mapping[str, Any]) -> dict[str, float]:
    """What has a score; further numbers of a part stand as `part.number`."""
    found = {}
    for name, one in told.items():
        if one["score"] is not None:
            found[name] = one["score"]
        found |= {f"{name}.{metric}": value for metric, value in one["metrics"].items()}
    return found


def _usage(told: Mapping[str, Any], asked: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """The tokens of questions and answers together, by the client's name of the judge."""
    found: dict[str, dict[str, int]] = {}
    for name, one in told.items():
        if name in asked:
            before = found.get(asked[name], {"total_tokens": 0})
            found[asked[name]] = {"total_tokens": before["total_tokens"] + one["tokens"]}
    return found


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
