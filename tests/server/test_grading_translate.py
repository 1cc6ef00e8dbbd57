"""A client's grader as one of ours: shapes, faults with their places, and what a client may not say."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from sharpen.config.base import Config
from sharpen.server.errors import APIError
from sharpen.server.grading import guard, translate
from sharpen.server.settings import Settings


def settings(**values: Any) -> Settings:
    return Settings.model_validate(values)


HERE = "http://127.0.0.1:8000/v1"
SETTINGS = settings(
    judges={
        "gpt-4o": "smollm2-135m-instruct",
        "far": {"base_url": "https://judge.example/v1", "model": "big", "api_key_env": "FAR_KEY"},
        "open": {"base_url": "http://127.0.0.1:9/v1", "model": "small"},
    },
    endpoint_hosts=("grader.example", "grader.example:8443", "127.0.0.1:9000", "localhost", "[::1]:9000"),
    plugins=("my_lab.rewards:exact", "my_lab.rewards:parser"),
)
CHECK = {"type": "string_check", "name": "right", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}"}
JUDGE = {"type": "score_model", "name": "judge", "model": "gpt-4o", "input": [{"role": "user", "content": "Rate."}]}


def made(given: object, own: Settings = SETTINGS) -> dict[str, Any]:
    return translate.grader(given, own, judge_url=HERE, param="grader")


def fault(given: object, own: Settings = SETTINGS) -> dict[str, Any]:
    with pytest.raises(APIError) as caught:
        made(given, own)
    assert caught.value.status == 400
    return caught.value.body


def endpoint(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "endpoint", "url": url, **more}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a name was looked up, or a connection made")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


def test_the_three_shapes_of_multi_are_the_same_grader() -> None:
    formula = {"type": "multi", "calculate_output": "right"}
    shapes: list[Any] = [{"right": CHECK}, [CHECK], CHECK]
    configs = [made({**formula, "graders": shape}) for shape in shapes]
    assert configs[0] == configs[1] == configs[2]
    assert configs[0]["graders"]["right"]["type"] == "string_check"


def test_nulls_and_an_image_tag_are_what_was_not_given() -> None:
    program = {"type": "python", "source": "def grade(sample, item): return 1.0"}
    assert made({**program, "name": None, "image_tag": "2025-05-08"}) == program


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (3, "grader"),
        ({}, "grader"),
        ({"type": "nonsense"}, "grader.type"),
        ({**CHECK, "operation": "about"}, "grader.operation"),
        ({**CHECK, "colour": "red"}, "grader.colour"),
        ({"type": "multi", "graders": {"right": {**CHECK, "operation": 3}}, "calculate_output": "1"},
         "grader.graders.right.operation"),
        ({"type": "multi", "graders": {"right": CHECK}, "calculate_output": "right +"}, "grader"),
        ({"type": "multi", "graders": {"m": {"type": "multi"}}, "calculate_output": "m"}, "grader.graders.m.type"),
        ({"type": "multi", "graders": [CHECK] * 33, "calculate_output": "right"}, "grader.graders"),
        ({"type": "regex", "pattern": "(" * 3_000}, "grader.pattern"),
        ({"type": "json_schema", "schema": {"const": float("nan")}}, "grader"),
        ({**CHECK, "reference": "\udc80"}, "grader"),
        ({**CHECK, "time_limit": 1e9}, "grader.time_limit"),
    ],
)  # fmt: skip
def test_every_fault_is_told_with_its_place(given: object, param: str) -> None:
    assert fault(given)["param"] == param


@pytest.mark.parametrize("depth", [100, 300, 900, 100_000])
def test_nesting_without_end_is_a_fault_like_any_other(depth: int) -> None:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"not": schema}
    assert fault({"type": "json_schema", "schema": schema})["param"] == "grader"


# Judges


def test_a_judge_of_this_server_is_asked_here_with_a_token() -> None:
    config = made(JUDGE)
    assert config["base_url"] == HERE
    assert (config["model"], config["api_key_env"]) == ("judge:gpt-4o", "SHARPEN_JUDGE_TOKEN")
    assert translate.judges_of(config) == ["gpt-4o"]
    assert translate.models_of(config) == ["judge:gpt-4o"]


def test_a_judge_elsewhere_is_asked_as_the_operator_says() -> None:
    config = made({**JUDGE, "model": "far"})
    assert (config["base_url"], config["model"]) == ("https://judge.example/v1", "big")
    assert config["api_key_env"] == "FAR_KEY"
    assert translate.judges_of(config) == []


def test_a_judge_that_needs_no_key_is_sent_none_of_the_servers() -> None:
    assert made({**JUDGE, "model": "open"})["api_key_env"] == "SHARPEN_NO_KEY"


@pytest.mark.parametrize("model", ["gpt-5", "smollm2-135m-instruct", "judge:gpt-4o", "", 3, None])
def test_an_unmapped_judge_is_refused_and_nothing_takes_its_place(model: object) -> None:
    told = fault({"type": "multi", "graders": {"judge": {**JUDGE, "model": model}}, "calculate_output": "judge"})
    assert (told["code"], told["param"]) == ("unmapped_judge", "grader.graders.judge.model")
    assert "far, gpt-4o, open" in told["message"]


def test_a_model_that_is_served_is_no_judge() -> None:
    assert fault(JUDGE, settings(models={"gpt-4o": "smollm2-135m-instruct"}))["code"] == "unmapped_judge"


# What only the operator says


def nested(model: Any) -> Iterator[type[Config]]:
    """The configs within the annotations of a config's fields."""
    for inner in get_args(model):
        yield from nested(inner)
    if isinstance(model, type) and issubclass(model, Config):
        yield model
        for field in model.model_fields.values():
            yield from nested(field.annotation)


def test_every_field_of_every_grader_is_the_clients_or_the_operators() -> None:
    for kind, model in guard.MODELS.items():
        clients = guard.COMMON | guard.CLIENTS.get(kind, frozenset())
        operators = guard.OPERATORS.get(kind, frozenset())
        fields = set(model.model_fields) | ({"time_limit"} if kind == "multi" else set())
        assert clients | operators == fields, f"{kind}: who says {(clients | operators) ^ fields}?"
        assert not clients & operators, kind


def test_what_stands_within_fields_was_looked_at_too() -> None:
    parts = {model for kind in guard.MODELS.values() if kind is not guard.MODELS["multi"] for model in nested(kind)}
    found = {model.__name__: set(model.model_fields) for model in parts if model not in guard.MODELS.values()}
    assert found == {
        "JudgeMessage": {"role", "content"},
        "SamplingParams": {"temperature", "top_p", "seed", "max_completions_tokens", "reasoning_effort"},
        "Price": {"input", "output"},
        "Budget": {"tokens", "usd"},
        "RubricFunction": {"use", "weight"},  # `use` must be listed
    }


@pytest.mark.parametrize("kind", sorted(guard.OPERATORS))
def test_a_client_cannot_set_what_is_the_operators(kind: str) -> None:
    for name in guard.OPERATORS[kind]:
        assert fault({"type": kind, "url": "https://grader.example/", name: "x"})["code"] == "not_permitted"


@pytest.mark.parametrize(
    "given",
    [
        {"type": "plugin", "use": "os:system"},
        {"type": "plugin", "use": "/etc/passwd.py:x"},
        {"type": "plugin", "use": "my_lab.rewards:exact.__globals__"},
        {"type": "trl", "use": "os:system"},
        {"type": "rubric", "functions": [{"use": "my_lab.rewards:exact"}, {"use": "os:system"}]},
        {"type": "rubric", "functions": [{"use": "my_lab.rewards:exact"}], "parser": "os:environ"},
        {"type": "reward_model", "model": "/etc"},
        {"type": "batch_endpoint", "file": "/tmp/x.py"},
    ],
)
def test_code_and_folders_of_this_machine_are_named_only_from_the_operators_list(given: dict[str, Any]) -> None:
    assert fault(given)["code"] == "not_permitted"


def test_code_of_the_operators_list_may_be_named() -> None:
    assert made({"type": "plugin", "use": "my_lab.rewards:exact"})["use"] == "my_lab.rewards:exact"
    rubric = {"type": "rubric", "functions": [{"use": "my_lab.rewards:exact"}], "parser": "my_lab.rewards:parser"}
    assert made(rubric)["parser"] == "my_lab.rewards:parser"


def test_cosine_compares_with_the_operators_encoder() -> None:
    cosine = {"type": "text_similarity", "evaluation_metric": "cosine", "input": "a", "reference": "b"}
    assert fault(cosine)["code"] == "unmapped_embedding_model"
    assert made(cosine, Settings(embeddings="org/encoder"))["embedding_model"] == "org/encoder"


@pytest.mark.parametrize(
    "url",
    [
        "https://grader.example/grade",
        "https://GRADER.example:443/grade",
        "https://grader.example:8443/",
        "http://127.0.0.1:9000/",
        "https://127.0.0.1:9000/",
        "http://localhost/",
        "http://[::1]:9000/",
    ],
)
def test_a_host_of_the_operators_list_may_be_asked(url: str) -> None:
    config = made(endpoint(url, headers={"Authorization": "Bearer mine"}))
    assert config["url"] == url
    assert config["allow_remote"] is True


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", ["endpoint", "batch_endpoint"])
@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1/",
        "https://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/",
        "https://2852039166/",
        "https://0xa9fea9fe/",
        "https://0251.0376.0251.0376/",
        "https://[::ffff:169.254.169.254]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[fd00:ec2::254]/",
        "https://metadata.google.internal/",
        "https://127.0.0.1.nip.io/",
        "https://grader.example.evil.example/",
        "https://evilgrader.example/",
        "https://grader.example./",
        "https://grader.example@evil.example/",
        "https://user:secret@grader.example/",
        "https://evil.example#@grader.example/",
        "https://evil.example\\@grader.example/",
        "https://grader.example%2eevil.example/",
        "https://grader.example%00.evil.example/",
        "https://ｇrader.example/",
        "https://grader.example:9443/",
        "https://grader.example:0/",
        "https://grader.example:99999/",
        "http://grader.example/",
        "http://grader.example:8443/",
        "http://127.0.0.1:8000/",
        "http://127.0.0.1/",
        "http://127.1:9000/",
        "http://0.0.0.0:9000/",
        "http://2130706433:9000/",
        "https://localhost:9000/",
        "ftp://grader.example/",
        "file:///etc/passwd",
        "gopher://grader.example/",
        "//grader.example/",
        "https:///grader.example/",
        "https://grader.example\n.evil.example/",
        " https://grader.example/",
        "",
    ],
)
def test_no_other_address_is_asked_however_it_is_written(url: str, kind: str) -> None:
    told = fault({"type": kind, "url": url})
    assert told["param"] == "grader.url"
    assert told["code"] == "not_permitted"


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "headers", [{"X": "${HOME}"}, {"X": "a ${FAR_KEY} b"}, {"Host": "inner"}, {"content-length": "1"}]
)
def test_headers_neither_read_the_environment_nor_steer_the_request(headers: dict[str, str]) -> None:
    assert fault(endpoint("https://grader.example/", headers=headers))["code"] == "not_permitted"


def test_what_headers_hold_stands_in_no_recipe() -> None:
    sent = {"Authorization": "Bearer mine", "X-Team": "b"}
    parts = {"a": endpoint("https://grader.example/", headers=sent), "right": CHECK}
    whole = made({"type": "multi", "graders": parts, "calculate_output": "a + right"})
    config, environment = translate.veiled(whole)
    assert config["graders"]["a"]["headers"] == {
        "Authorization": "${SHARPEN_HEADER_SECRET_0}",
        "X-Team": "${SHARPEN_HEADER_SECRET_1}",
    }
    assert list(environment.values()) == ["Bearer mine", "b"]
    assert config["graders"]["right"] == whole["graders"]["right"]
    assert translate.veiled(made(CHECK)) == (made(CHECK), {})


# Packages


def program(imports: str) -> dict[str, Any]:
    return {"type": "python", "source": f"{imports}\n\ndef grade(sample, item):\n    return 1.0\n"}


@pytest.mark.parametrize(
    "imports", ["import numpy as np, json", "from sklearn.metrics import f1_score", "import joblib"]
)
def test_programs_import_the_packages_of_the_image_and_what_these_need(imports: str) -> None:
    assert made(program(imports))["source"].startswith(imports)


@pytest.mark.parametrize(
    "imports", ["import sharpen", "def f():\n    from uvicorn import run", "import sqlalchemy.orm"]
)
def test_programs_read_no_other_package_of_this_machine(imports: str) -> None:
    told = fault(program(imports))
    assert (told["code"], told["param"]) == ("not_permitted", "grader.source")


def test_programs_import_what_the_operator_lists() -> None:
    assert made(program("import uvicorn"), settings(packages=["uvicorn"]))


def test_an_import_of_nothing_is_told_before_any_run() -> None:
    assert "not installed" in fault(program("import no_such_package"))["message"]


def test_tested_programs_have_the_same_packages() -> None:
    assert made({"type": "code_tests", "packages": ["NumPy"]})["packages"] == ["NumPy"]
    assert fault({"type": "code_tests", "packages": ["sharpen"]})["param"] == "grader.packages"


def test_nesting_of_ninety_is_taken() -> None:
    schema: dict[str, Any] = {}
    for _ in range(90):
        schema = {"not": schema}
    assert made({"type": "json_schema", "schema": schema})["schema"] == schema
