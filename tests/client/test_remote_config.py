"""Where rows may go: what a recipe must allow, what no recipe can, and OpenAI's own graders read as they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from sharpen.config.graders import Endpoint, LabelModel, Multi, ScoreModel
from sharpen.config.graders.remote import Remote
from sharpen.config.load import dump, parse
from sharpen.errors import ConfigError

ASKED = [{"role": "user", "content": "Is {{ sample.output_text }} right? It should be {{item.answer}}."}]


def judge(base_url: str, **more: Any) -> ScoreModel:
    return ScoreModel.model_validate({"input": ASKED, "model": "m", "base_url": base_url, **more})


def refused(base_url: str, **more: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        judge(base_url, **more)
    with pytest.raises(ValidationError):
        Endpoint(url=base_url, **more)
    return str(caught.value.errors()[0]["ctx"]["error"])


@pytest.mark.parametrize(
    "address",
    [
        *("http://127.0.0.1:8000/v1", "http://localhost/v1", "https://LOCALHOST:1/v1", "http://[::1]:8000/v1"),
        *("http://127.9.9.9/", "http://[0:0:0:0:0:0:0:1]/"),
    ],
)
def test_a_server_on_this_machine_needs_no_leave(address: str) -> None:
    assert not judge(address).leaves
    assert not Endpoint(url=address).leaves


AWAY = {
    "https://api.openai.com/v1": "api.openai.com",
    "http://10.0.0.1/v1": "10.0.0.1",
    "http://0.0.0.0/": "0.0.0.0",
    "http://127.0.0.1.evil.com/v1": "127.0.0.1.evil.com",
    "http://localhost.evil.com/": "localhost.evil.com",
    "http://evil.com/127.0.0.1": "evil.com",
    "http://evil.com#localhost": "evil.com",
    "http://evil.com?@localhost": "evil.com",
    "http://2130706433/": "2130706433",
    "http://0x7f000001/": "0x7f000001",
    "http://0177.0.0.1/": "0177.0.0.1",
    "http://127.1/": "127.1",
    "http://[::ffff:10.0.0.1]/": "::ffff:10.0.0.1",
    "http://[::ffff:127.0.0.1]/": "::ffff:127.0.0.1",
    "http://[::]/": "::",
    "http://localhost./": "localhost.",
    "http://ⓛocalhost/": "ⓛocalhost",
}


@pytest.mark.parametrize("address", AWAY)
def test_any_other_server_needs_leave_and_is_named_with_what_it_would_be_sent(address: str) -> None:
    said = refused(address)
    assert f"sent to {AWAY[address]}, which is not this machine" in said
    assert "sample.output_text, item.answer of every row" in said and "`allow_remote: true`" in said
    assert judge(address, allow_remote=True).leaves


@pytest.mark.parametrize(
    "address",
    [
        *("http://localhost@evil.com/", "http://user:sesame@127.0.0.1/", "https://sesame@api.openai.com/v1"),
        *("http://evil.com\\@localhost/", "ftp://sesame@localhost/", "//sesame@localhost/"),
    ],
)
def test_an_address_with_a_user_or_a_password_is_refused_and_not_repeated(address: str) -> None:
    said = refused(address, allow_remote=True)
    assert "no user and no password" in said and "sesame" not in said


@pytest.mark.parametrize(
    "address",
    [
        *("ftp://localhost/", "file:///etc/passwd", "localhost:8000", "localhost", "", "http://", "http:///v1"),
        *("http://localhost:99999/", "http://[::1/", "unix:///run/judge.sock", "javascript:1"),
    ],
)
def test_what_is_no_address_of_a_server_is_refused(address: str) -> None:
    refused(address, allow_remote=True)


@pytest.mark.parametrize(
    "host",
    [
        *("169.254.169.254", "169.254.0.1", "[fe80::1]", "[fe80::1%25eth0]", "[::ffff:169.254.169.254]"),
        *("2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "0251.0376.0251.0376", "169.254.43518"),
        *("metadata.google.internal", "METADATA.google.internal.", "metadata", "[fd00:ec2::254]", "[FD00:EC2:0::254]"),
        *("100.100.100.200", "168.63.129.16", "1684301000"),
    ],
)
def test_where_a_cloud_gives_out_keys_is_never_asked(host: str) -> None:
    assert "it is never asked" in refused(f"http://{host}/latest/meta-data", allow_remote=True)


def test_the_place_in_the_recipe_is_named() -> None:
    multi = {"type": "multi", "graders": {"own": {"type": "score_model", "input": ASKED, "model": "m"}}}
    grader = {**multi, "calculate_output": "own"}
    with pytest.raises(ConfigError, match=r"stages\.0\.grader\.graders\.own: .*api\.openai\.com"):
        parse({"model": "m", "stages": [{"type": "rft", "data": {"path": "a"}, "grader": grader}]})


def test_the_environments_server_is_the_judges_where_the_recipe_names_none_and_a_runs_recipe_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grader = {"type": "score_model", "input": ASKED, "model": "m"}
    values = {"model": "m", "stages": [{"type": "rft", "data": {"path": "a"}, "grader": grader}]}
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:4000/v1")
    read = parse(values)
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert "base_url: http://localhost:4000/v1" in dump(read)
    with pytest.raises(ConfigError, match=r"api\.openai\.com"):
        parse(values)


def test_a_judge_that_reads_nothing_of_the_rows_says_so() -> None:
    said = [{"role": "user", "content": "Give a number."}]
    assert judge("http://localhost/", input=said).fields() == ["nothing"]
    twice = [{"role": "user", "content": "{{ item.a }} {{item.a}} {{\n sample.output_text }}"}]
    assert judge("http://localhost/", input=twice).fields() == ["item.a", "sample.output_text"]
    assert Endpoint(url="http://localhost/").fields() == ["item", "sample"]


# OpenAI's graders, in the forms that https://platform.openai.com/docs/guides/graders shows (score model graders, label
# model graders) and that the types of its Python client allow (openai/types/graders/score_model_grader.py and
# openai/types/shared/eval_item.py: content as text, as a part, and as a list of both).

SCORE = {
    "type": "score_model",
    "name": "likeness",
    "input": [
        {"role": "system", "content": "Grade how near the answer is to the reference: 1, 0.5 or 0."},
        {"role": "user", "content": "Reference: {{ item.reference_answer }}. Answer: {{ sample.output_text }}"},
    ],
    "pass_threshold": 0.5,
    "model": "o4-mini-2025-04-16",
    "range": [0, 1],
    "sampling_params": {"max_completions_tokens": 32768, "top_p": 1, "reasoning_effort": "medium"},
}
LABEL = {
    "type": "label_model",
    "name": "good_or_bad",
    "input": [
        {"role": "system", "content": "You grade."},
        {"role": "user", "content": "Is this good or bad? {{ sample.output_text }}"},
    ],
    "passing_labels": ["good"],
    "labels": ["good", "bad"],
    "model": "o3-mini-2024-01-31",
    "sampling_params": {"max_tokens": 32768, "top_p": 1, "seed": 42, "reasoning_effort": "medium"},
}


@pytest.mark.parametrize("given", [SCORE, LABEL])
def test_openais_examples_are_read_as_they_are_but_for_the_leave_to_ask_openai(given: dict[str, Any]) -> None:
    kind = ScoreModel if given["type"] == "score_model" else LabelModel
    config: Remote = kind.model_validate({**given, "allow_remote": True})
    assert (config.host(), config.name) == ("api.openai.com", given["name"])
    sampling = config.model_dump(exclude_none=True)["sampling_params"]
    expected = {
        "max_completions_tokens" if name == "max_tokens" else name: value
        for name, value in given["sampling_params"].items()
    }
    assert sampling == expected


@pytest.mark.parametrize(
    "content",
    [
        "Is {{ sample.output_text }} right?",
        {"type": "input_text", "text": "Is {{ sample.output_text }} right?"},
        [{"type": "input_text", "text": "Is {{ sample.output_text }} right?"}],
        [{"type": "input_text", "text": "Is "}, "{{ sample.output_text }}", {"type": "output_text", "text": " right?"}],
    ],
)
def test_a_messages_content_may_come_in_parts(content: Any) -> None:
    asked = [{"type": "message", "role": "user", "content": content}]
    (message,) = judge("http://localhost/", input=asked).input
    assert message.content == "Is {{ sample.output_text }} right?"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_image", "image_url": "https://example.com/a.png"},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        3,
    ],
)
def test_a_judge_reads_text_only(part: Any) -> None:
    with pytest.raises(ValidationError, match="reads text only"):
        judge("http://localhost/", input=[{"role": "user", "content": [part]}])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"range": [1, 1]}, "from a number to a higher one"),
        ({"budget": {"usd": 3}}, "needs `price`"),
        ({"input": []}, "at least 1"),
        ({"input": [{"role": "user", "type": "message", "content": "a", "name": "x"}]}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        judge("http://localhost/", **more)


def test_a_passing_label_is_one_of_the_labels() -> None:
    with pytest.raises(ValidationError, match="'great' is none of the labels"):
        LabelModel.model_validate({**LABEL, "passing_labels": ["great"], "allow_remote": True})


def test_the_examples_in_the_docs_are_recipes() -> None:
    text = (Path(__file__).parents[2] / "docs/judges.md").read_text("utf-8")
    multi, endpoint = (yaml.safe_load(block)["grader"] for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    own = Multi.model_validate(multi).graders["likeness"]
    assert isinstance(own, ScoreModel) and not own.leaves
    assert own.fields() == ["item.answer", "sample.output_text"]
    assert Endpoint.model_validate(endpoint).host() == "grading.example.com"
