"""Every field of the graders that ask a server does something: where it differs, so does what comes of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from sharpen.client import http
from sharpen.config.graders import Endpoint, Grader, LabelModel, ScoreModel
from sharpen.config.graders.remote import Budget, JudgeMessage, Price, SamplingParams
from sharpen.graders.pool import GraderPool
from sharpen.runs.ledger import Ledger
from sharpen.types import Example, Sample
from tests.client.fake import Behaviour, Fake, by, late, reply, scores

MODELS = (ScoreModel, LabelModel, Endpoint, SamplingParams, JudgeMessage, Price, Budget)
GRADERS: TypeAdapter[Any] = TypeAdapter(Grader)

EXCLUDED = {
    **{f"{kind}.type": "chooses the class: test_the_type_chooses_the_grader" for kind in ("LabelModel", "Endpoint")},
    "ScoreModel.type": "chooses the class: test_the_type_chooses_the_grader",
    **{
        f"{kind}.{name}": f"a test of the time, which all three share: {test} in test_http.py"
        for kind in ("ScoreModel", "LabelModel", "Endpoint")
        for name, test in (
            ("rate_limit", "test_requests_keep_to_the_rate"),
            ("max_concurrent", "test_so_many_requests_are_under_way_at_once"),
        )
    },
}


def echo(request: Any) -> Behaviour:
    """A server whose answer shows all that it was asked."""
    return scores(0.5) if "messages" in request.body else reply('{"score": 0.5}')


@dataclass(frozen=True)
class Case:
    """Two values of a field, and a server that makes the difference seen."""

    before: Any
    after: Any
    around: dict[str, Any] = field(default_factory=dict)
    server: Behaviour = field(default_factory=lambda: by(echo))
    script: tuple[Behaviour, ...] = ()


ASKED = [{"role": "user", "content": "How good is {{ sample.output_text }}?"}]
DOWN = reply("{}", "503 Unavailable")
AWAY = "http://0.0.0.0:9/"

SHARED = {
    "name": Case("one", "two"),
    "max_retries": Case(0, 1, script=(DOWN,)),
}
JUDGES = {
    **SHARED,
    "time_limit": Case(0.4, 30.0, {"max_retries": 0}, script=(late(0.7, by(echo)),)),
    "allow_remote": Case(False, True, {"base_url": AWAY, "max_retries": 0}),
    "input": Case(ASKED, [{"role": "user", "content": "Rate {{ sample.output_text }}."}]),
    "model": Case("one", "two"),
    "sampling_params": Case({}, {"temperature": 0}),
    "base_url": Case("URL", "URL/v2"),
    "api_key_env": Case("ONE_KEY", "OTHER_KEY"),
    "price": Case({"input": 1, "output": 1}, {"input": 2, "output": 1}),
    "budget": Case({}, {"tokens": 1}),
}
CASES: dict[str, Case] = {
    **{f"ScoreModel.{name}": case for name, case in JUDGES.items()},
    "ScoreModel.range": Case([0, 1], [0, 0.25]),
    "ScoreModel.pass_threshold": Case(0.4, 0.6),
    **{
        f"LabelModel.{name}": Case(case.before, case.after, case.around, scores("a"), case.script)
        for name, case in JUDGES.items()
    },
    "LabelModel.labels": Case(["a", "b"], ["b", "c"], {"passing_labels": ["b"]}, scores("a")),
    "LabelModel.passing_labels": Case(["a"], ["b"], server=scores("a")),
    **{f"Endpoint.{name}": case for name, case in SHARED.items()},
    "Endpoint.time_limit": JUDGES["time_limit"],
    "Endpoint.allow_remote": Case(False, True, {"url": AWAY, "max_retries": 0}),
    "Endpoint.url": Case("URL", "URL/v2"),
    "Endpoint.headers": Case({"x-key": "${ONE_KEY}"}, {"x-key": "${OTHER_KEY}"}),
    "Endpoint.pass_threshold": Case(0.4, 0.6),
    "SamplingParams.temperature": Case(None, 0),
    "SamplingParams.top_p": Case(0.5, 1),
    "SamplingParams.seed": Case(None, 0),
    "SamplingParams.max_completions_tokens": Case(10, 20),
    "SamplingParams.reasoning_effort": Case("low", "high"),
    "JudgeMessage.role": Case("user", "assistant"),
    "JudgeMessage.content": Case("a", "b"),
    "Price.input": Case(1, 2),
    "Price.output": Case(1, 2),
    "Budget.tokens": Case(1, 10**6),
    "Budget.usd": Case(1e-9, 1),
}


def test_every_field_has_a_case_or_a_reason_to_have_none() -> None:
    fields = {f"{model.__name__}.{name}" for model in MODELS for name in model.model_fields}
    assert fields == CASES.keys() | EXCLUDED.keys()
    assert not CASES.keys() & EXCLUDED.keys()


def grader(place: str, value: Any, around: dict[str, Any], url: str) -> dict[str, Any]:
    """A grader in which the field at this place has this value."""
    model, _, name = place.partition(".")
    given: dict[str, Any] = {"type": "score_model", "input": ASKED, "model": "m", "base_url": url, "max_concurrent": 1}
    match model:
        case "LabelModel":
            given |= {"type": "label_model", "labels": ["a", "b"], "passing_labels": ["a"]}
        case "Endpoint":
            given = {"type": "endpoint", "url": url, "max_concurrent": 1}
        case "SamplingParams":
            return {**given, "sampling_params": {name: value}}
        case "JudgeMessage":
            return {**given, "input": [{**ASKED[0], name: value}]}
        case "Price":
            return {**given, "price": {"input": 1, "output": 1, name: value}}
        case "Budget":
            return {**given, "price": {"input": 1, "output": 1}, "budget": {name: value}}
    if isinstance(value, str):
        value = value.replace("URL", url)
    return {**given, **around, name: value}


def outcome(place: str, value: Any, case: Case) -> Any:
    """All that can be seen of grading two texts: what is said, sent, and spent."""
    with Fake(*case.script, otherwise=case.server) as server:
        try:
            config = GRADERS.validate_python(grader(place, value, case.around, server.url))
        except ValidationError as error:
            return str(error)
        ledger = Ledger()
        with GraderPool(config, ledger=ledger) as pool:
            pairs = [(Example("e", (), {}), Sample(text)) for text in ("a", "b")]
            grades = asyncio.run(pool.grade_many(pairs))
        sent = [
            (request.path, request.headers.get("authorization"), request.headers.get("x-key"), request.body)
            for request in server.requests
        ]
        said = [(grade.score, grade.metrics, grade.fault and grade.fault.kind) for grade in grades]
        return pool.name, said, sorted(map(repr, sent)), [spent.usd for spent in ledger.spent.values()]


@pytest.mark.parametrize("place", CASES)
def test_a_field_that_differs_makes_a_difference(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT", 0.005)
    for name in ("ONE_KEY", "OTHER_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, f"the value of {name}")
    case = CASES[place]
    before = outcome(place, case.before, case)
    assert before == outcome(place, case.before, case), "and nothing else does"
    assert before != outcome(place, case.after, case)


def test_the_type_chooses_the_grader() -> None:
    given = {"input": ASKED, "model": "m", "base_url": "http://localhost/", "labels": ["a", "b"]}
    label = {**given, "type": "label_model", "passing_labels": ["a"]}
    assert isinstance(GRADERS.validate_python(label), LabelModel)
    del given["labels"]
    assert isinstance(GRADERS.validate_python({**given, "type": "score_model"}), ScoreModel)
    assert isinstance(GRADERS.validate_python({"type": "endpoint", "url": "http://localhost/"}), Endpoint)
