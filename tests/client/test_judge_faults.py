"""What a judge or an endpoint may do wrong: each gives a score that it said, or a fault of its kind, and no score."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.client import http
from sharpen.config.graders import Endpoint, LabelModel, ScoreModel
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Grade, Sample
from tests.client.fake import (
    USAGE,
    Behaviour,
    Fake,
    completion,
    drip,
    endless,
    hang,
    raw,
    reply,
    reset,
    says,
    scores,
    verdict,
)

SERVER, GARBAGE, REFUSAL = (f"model_grader_{kind}_error" for kind in ("server", "parse", "refusal"))
GOOD = scores(0.5)
DEEP = "[" * 500 + "]" * 500
HUGE = "1" + "0" * 400
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
COMPLETION = completion(verdict(0.5)).encode()


@dataclass(frozen=True)
class Script:
    """What the server does, one request after the other, and what the grader must say of it after how many requests."""

    behaviours: list[Behaviour]
    score: float | None = None
    kind: str = ""
    words: str = ""
    requests: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    again: bool = False
    """The last behaviour is also that of all further requests."""


def good(*behaviours: Behaviour, **settings: Any) -> Script:
    """Asked until there is an answer."""
    return Script([*behaviours, GOOD], 0.5, requests=len(behaviours) + 1, settings=settings)


def garbage(behaviour: Behaviour, words: str) -> Script:
    """Asked once: an answer that is none stays so."""
    return Script([behaviour], None, GARBAGE, words)


def refused(status: str) -> Script:
    """Asked once: the same request will not be welcome later."""
    return Script([reply('{"error": {"message": "no"}}', status)], None, SERVER, f"status {status[:3]}")


def down(behaviour: Behaviour, words: str, **settings: Any) -> Script:
    """Asked as often as may be."""
    return Script(
        [behaviour],
        None,
        SERVER,
        words,
        1 + settings.get("max_retries", 3),
        {"max_retries": 3, **settings},
        again=True,
    )


def later(asked: str) -> Behaviour:
    """429 with a time to wait."""
    return reply("{}", "429 Too Many Requests", retry_after=asked)


def in_a_second() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)


SCRIPTS: dict[str, Script] = {
    # What may be over when it is asked again.
    "too many requests, in seconds": good(later("0.1")),
    "too many requests, until a date": good(lambda connection, request: later(in_a_second())(connection, request)),
    "too many requests, for three years": good(later("99999999")),
    "too many requests, for ever": good(later("inf")),
    "too many requests, until yesterday": good(later("-5")),
    "too many requests, until a word": good(later("soon")),
    "too many requests, until no number": good(later("nan")),
    "too many requests, until no date": good(later("Fri, 31 Dec 99999999999999999999 23:59:59 GMT")),
    "too many requests, twice": good(reply("{}", "429 Too Many Requests"), reply("{}", "429 Too Many Requests")),
    "an error of the server's": good(reply("oh", "500 Internal Server Error")),
    "a bad gateway": good(reply("<html>", "502 Bad Gateway")),
    "overloaded": good(reply("{}", "529 Overloaded")),
    "a status that nobody knows": good(reply("{}", "999 What")),
    "a connection broken before the answer": good(reset()),
    "a connection broken in the middle": good(reset(HEAD + b"content-length: 500\r\n\r\n{")),
    "a connection closed without a word": good(raw()),
    "an answer that does not come, and then does": good(hang(), time_limit=2.0),
    "no HTTP": good(raw(b"SSH-2.0-OpenSSH_9.6\r\n")),
    "a header without an end": good(raw(HEAD + b"x: " + b"y" * 200_000 + b"\r\n\r\n")),
    "a chunk without a length": good(raw(HEAD + b"transfer-encoding: chunked\r\n\r\nwhat\r\n{}\r\n0\r\n\r\n")),
    "a chunk that ends early": good(raw(HEAD + b"transfer-encoding: chunked\r\n\r\nff\r\n{}")),
    "shorter than its length": good(raw(HEAD + b"content-length: 90000\r\n\r\n" + COMPLETION)),
    # What is not over.
    "unavailable for ever": down(reply("{}", "503 Service Unavailable"), "status 503: '{}', 4 times"),
    "unavailable, asked once": down(reply("{}", "503 Service Unavailable"), "status 503: '{}'", max_retries=0),
    "broken off again and again": down(reset(), "4 times"),
    "headers that do not come": down(hang(), "no answer within 0.8 s", time_limit=0.8, max_retries=1),
    "a body that drips": down(drip(0.02), "no answer within 0.8 s", time_limit=0.8, max_retries=1),
    # What is refused.
    "a bad request": refused("400 Bad Request"),
    "a wrong key": refused("401 Unauthorized"),
    "forbidden": refused("403 Forbidden"),
    "no such model": refused("404 Not Found"),
    "too long": refused("413 Payload Too Large"),
    "not to be processed": refused("422 Unprocessable Entity"),
    # What is no answer.
    "a body without an end": garbage(endless(), "more than 0 MB"),
    "nothing": garbage(reply(""), "not JSON"),
    "no content": garbage(raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "not JSON"),
    "a page": garbage(reply("<!doctype html><p>Welcome", content_type="text/html"), "not JSON"),
    "half of it": garbage(reply(COMPLETION[:90]), "not JSON"),
    "longer than its length": garbage(reply(COMPLETION, content_length="90"), "not JSON"),
    "a list": garbage(reply("[1, 2]"), "no chat completion"),
    "null": garbage(reply("null"), "no chat completion"),
    "an error that says OK": garbage(reply('{"error": {"message": "quota"}}'), "quota"),
    "no choices": garbage(reply('{"object": "chat.completion"}'), "no chat completion"),
    "choices, but none": garbage(reply('{"choices": []}'), "no chat completion"),
    "choices of words": garbage(reply('{"choices": ["a"]}'), "no chat completion"),
    "choices by name": garbage(reply('{"choices": {"0": {"message": {"content": "1"}}}}'), "no chat completion"),
    "a message that is none": garbage(reply('{"choices": [{"message": null}]}'), "no chat completion"),
    "nested without an end": garbage(reply('{"choices": ' + DEEP + "}"), "nested too deep"),
    "NaN in it": garbage(reply('{"choices": [NaN]}'), "NaN is not JSON"),
    "a number of 5,000 digits": garbage(reply('{"choices": ' + "1" * 5000 + "}"), "not JSON"),
    "choices twice": garbage(reply('{"choices": [], "choices": [1]}'), "'choices' stands twice"),
    "compressed, unasked": garbage(reply(gzip.compress(COMPLETION), content_encoding="gzip"), "compressed"),
    "not compressed, but said to be": garbage(reply(COMPLETION, content_encoding="gzip"), "compressed"),
    # What is no verdict.
    "no text": garbage(says(None), "has no text"),
    "a call of a tool": garbage(says(None, tool_calls=[{"id": "a", "type": "function"}]), "has no text"),
    "text in parts": garbage(says([{"type": "text", "text": verdict(1)}]), "has no text"),
    "prose": garbage(says("I would give it a 9 out of 10."), "not JSON"),
    "a number alone": garbage(says("1"), "no object"),
    "a list of verdicts": garbage(says(f"[{verdict(1)}]"), "no object"),
    "another schema": garbage(says('{"score": 1}'), "not of the schema"),
    "a field too many": garbage(says('{"steps": [], "result": 1, "confidence": 1}'), "not of the schema"),
    "no result": garbage(says('{"steps": []}'), "not of the schema"),
    "no steps": garbage(says('{"result": 1}'), "not of the schema"),
    "steps of words": garbage(says('{"steps": ["well"], "result": 1}'), "not of the schema"),
    "a result in words": garbage(scores("0.9"), "not of the schema"),
    "a result that is true": garbage(scores(True), "not of the schema"),
    "a result that is null": garbage(scores(None), "not of the schema"),
    "a result in a list": garbage(scores([1]), "not of the schema"),
    "a result of objects": garbage(scores({"value": 1}), "not of the schema"),
    "a result that is NaN": garbage(says('{"steps": [], "result": NaN}'), "NaN is not JSON"),
    "an infinite result": garbage(says('{"steps": [], "result": -Infinity}'), "-Infinity is not JSON"),
    "a result past all floats": garbage(says('{"steps": [], "result": 1e999}'), "not a finite number"),
    "a whole number past all floats": garbage(says('{"steps": [], "result": ' + HUGE + "}"), "not a finite number"),
    "a result without an end": garbage(says('{"steps": [], "result": ' + DEEP + "}"), "nested too deep"),
    "two results": garbage(says('{"steps": [], "result": 0, "result": 1}'), "'result' stands twice"),
    "two verdicts": garbage(says(f"```json\n{verdict(0)}\n```\nor\n```json\n{verdict(1)}\n```"), "not JSON"),
    "cut off": garbage(says('{"steps": [], "result": 1', finish="length"), "limit of tokens"),
    "whole, but said to be cut off": garbage(says(verdict(1), finish="length"), "limit of tokens"),
    "filtered": Script([says(None, finish="content_filter")], None, REFUSAL, "content filter"),
    "a refusal": Script([says(None, refusal="I can't help with that.")], None, REFUSAL, "I can't help with that."),
    "a refusal beside a verdict": Script([says(verdict(1), refusal="No.")], None, REFUSAL, "No."),
    # What is one.
    "above the range": Script([scores(7)], 1.0),
    "below the range": Script([scores(-3.5)], 0.0),
    "a whole number": Script([scores(1)], 1.0),
    "no reasons": Script([says(verdict(0.5))], 0.5),
    "in a block": Script([says(f"```json\n{verdict(0.25)}\n```")], 0.25),
    "in a block among words": Script([says(f"I looked.\n```\n{verdict(0.25)}\n```\nSo it is.")], 0.25),
    "a block within its reasons": Script([says(verdict(0.25, "it says ```json\n1\n```"))], 0.25),
    "in chunks": Script(
        [
            raw(
                HEAD + b"transfer-encoding: chunked\r\n\r\n",
                b"%x\r\n%s\r\n" % (len(COMPLETION), COMPLETION),
                b"0\r\n\r\n",
                pause=0.01,
            )
        ],
        0.5,
    ),
    "over HTTP/1.0": Script([raw(b"HTTP/1.0 200 OK\r\n\r\n" + COMPLETION)], 0.5),
    "after news that it goes on": Script([raw(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"\r\n" + COMPLETION)], 0.5),
    "with a mark of byte order": Script([reply(b"\xef\xbb\xbf" + COMPLETION)], 0.5),
    "bytes that are no text among the reasons": Script(
        [reply(completion(verdict(0.5, "XX")).encode().replace(b"XX", b"\xff\xfe"))], 0.5
    ),
    "half a character among the reasons": Script([reply(completion(verdict(0.5, "\ud800")))], 0.5),
    "no usage": Script([says(verdict(0.5), usage=None)], 0.5),
    "usage of nonsense": Script([says(verdict(0.5), usage={"prompt_tokens": "many", "completion_tokens": -1})], 0.5),
    "usage past all floats": Script(
        [reply(COMPLETION.replace(json.dumps(USAGE).encode(), b'{"prompt_tokens": %s}' % HUGE.encode()))], 0.5
    ),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits, and small answers."""
    monkeypatch.setattr(http, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(http, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(http, "LARGEST", 1 << 19)
    yield


def asked(config: ScoreModel | LabelModel | Endpoint, *texts: str) -> list[Grade]:
    with GraderPool(config) as pool:
        return asyncio.run(pool.grade_many([(Example("e", (), {"answer": 7}), Sample(text)) for text in texts]))


def judge(server: Fake, **settings: Any) -> ScoreModel:
    message = {"role": "user", "content": "How good is {{ sample.output_text }}?"}
    return ScoreModel.model_validate({"input": [message], "model": "judge", "base_url": server.url, **settings})


def run(script: Script) -> tuple[Grade, Fake]:
    last = script.behaviours[-1] if script.again else GOOD
    with Fake(*script.behaviours, otherwise=last) as server:
        (grade,) = asked(judge(server, **script.settings), "text")
    return grade, server


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_judge_gives_the_score_that_was_said_or_a_fault(name: str) -> None:
    script = SCRIPTS[name]
    grade, server = run(script)
    assert (grade.score, grade.fault.kind if grade.fault else "") == (script.score, script.kind)
    assert script.words in grade.explanation
    assert len(server.requests) == script.requests


def test_there_are_scripts_enough() -> None:
    assert len(SCRIPTS) >= 24
    assert {script.kind for script in SCRIPTS.values()} == {"", SERVER, GARBAGE, REFUSAL}


RESPONSE = HEAD + b"content-length: %d\r\n\r\n" % len(COMPLETION) + COMPLETION


@given(st.binary(max_size=40), st.integers(0, len(RESPONSE)), st.integers(0, len(RESPONSE)))
@settings(deadline=None, max_examples=150)
def test_whatever_bytes_come_the_score_is_the_one_that_was_meant_or_none(noise: bytes, start: int, end: int) -> None:
    """A part of a good answer replaced by noise; only a digit of the result itself may become another."""
    sent = RESPONSE[:start] + noise + RESPONSE[max(start, end) :]
    with Fake(otherwise=raw(sent)) as server:
        (grade,) = asked(judge(server, max_retries=0), "text")
    if grade.score is None:
        assert grade.fault and grade.fault.kind in (SERVER, GARBAGE, REFUSAL)
    else:
        assert f'"result\\": {grade.score:g}'.encode() in sent or not 0 < grade.score < 1


def test_a_refused_connection_is_the_servers_fault_and_the_next_answer_is_taken_as_soon_as_it_is_back() -> None:
    with Fake() as server:
        config = judge(server, max_retries=2)
        server.stop()
        (grade,) = asked(config, "text")
        assert (grade.score, grade.fault and grade.fault.kind) == (None, SERVER)
        assert "ConnectError" in grade.explanation and "3 times" in grade.explanation
        server.start()
        assert asked(config, "text")[0].score == 0.5


def test_a_redirect_is_not_followed() -> None:
    with Fake() as other, Fake(reply("", "307 Temporary Redirect", location=f"{other.url}/x")) as server:
        (grade,) = asked(judge(server), "text")
        assert (grade.score, grade.fault and grade.fault.kind) == (None, SERVER)
        assert "status 307" in grade.explanation
        assert (len(server.requests), len(other.requests)) == (1, 0)


def test_one_bad_answer_among_many_costs_only_its_own_score() -> None:
    with Fake(scores(0.25), says("prose"), scores(0.75)) as server:
        given = asked(judge(server, max_concurrent=1), "a", "b", "c")
    assert [grade.score for grade in given] == [0.25, None, 0.75]


def test_the_server_is_left_alone_for_as_long_as_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LONGEST_WAIT", 60.0)
    with Fake(later("0.7")) as server:
        began = time.monotonic()
        assert asked(judge(server), "text")[0].score == 0.5
    assert server.requests[1].arrived - began >= 0.7


def label(server: Fake) -> LabelModel:
    message = {"role": "user", "content": "{{ sample.output_text }}"}
    labels = {"labels": ["good", "bad", "fair"], "passing_labels": ["good", "fair"]}
    return LabelModel.model_validate({"input": [message], "model": "judge", "base_url": server.url, **labels})


@pytest.mark.parametrize(
    ("result", "score"),
    [
        *[("good", 1.0), ("fair", 1.0), ("bad", 0.0)],
        *[(wrong, None) for wrong in ("Good", "good ", "excellent", "", ["good", "bad"], ["good"], 1, True, None)],
    ],
)
def test_a_label_is_one_of_the_labels_or_a_fault(result: Any, score: float | None) -> None:
    with Fake(scores(result)) as server:
        (grade,) = asked(label(server), "text")
    assert grade.score == score
    assert (grade.fault.kind if grade.fault else "") == ("" if score is not None else GARBAGE)


ENDPOINT_SERVER, ENDPOINT_GARBAGE = (f"endpoint_grader_{kind}_error" for kind in ("server", "parse"))


@pytest.mark.parametrize(
    ("body", "score", "metrics"),
    [
        ('{"score": 0.25}', 0.25, {}),
        ('{"score": 7, "words": 3, "note": "long"}', 7.0, {"words": 3.0}),
        *[(f'{{"score": {wrong}}}', None, {}) for wrong in ('"1"', "true", "null", "NaN", "1e999", "[1]", HUGE, "{}")],
        *[(wrong, None, {}) for wrong in ('{"result": 1}', "[1]", "1", "", '{"score": 0, "score": 1}', DEEP)],
        ('{"score": 1, "words": 1e999}', None, {}),
        ("{" + ", ".join(f'"{number}": 1' for number in range(200)) + ', "score": 1}', None, {}),
    ],
)
def test_an_endpoints_score_is_a_number_or_a_fault(body: str, score: float | None, metrics: dict[str, float]) -> None:
    with Fake(reply(body)) as server:
        (grade,) = asked(Endpoint(url=server.url), "text")
    assert (grade.score, grade.metrics) == (score, metrics)
    assert (grade.fault.kind if grade.fault else "") == ("" if score is not None else ENDPOINT_GARBAGE)


def test_an_endpoint_is_asked_again_and_its_outage_is_the_servers_fault() -> None:
    with Fake(reply("{}", "503 Service Unavailable"), otherwise=reply('{"score": 1}')) as server:
        assert asked(Endpoint(url=server.url), "text")[0].score == 1.0
        server.otherwise = reply("{}", "503 Service Unavailable")
        (grade,) = asked(Endpoint(url=server.url, max_retries=1), "text")
    assert (grade.score, grade.fault and grade.fault.kind) == (None, ENDPOINT_SERVER)
    assert len(server.requests) == 4


@pytest.mark.parametrize("item", [{"answer": float("nan")}, {"answer": {1, 2}}, {"answer": datetime.now(UTC)}])
def test_an_item_that_is_no_json_is_not_sent_and_is_the_items_fault(item: dict[str, Any]) -> None:
    with Fake(otherwise=reply('{"score": 1}')) as server, GraderPool(Endpoint(url=server.url)) as pool:
        pairs = [(Example("e", (), given), Sample("text")) for given in (item, {"answer": 1})]
        wrong, right = asyncio.run(pool.grade_many(pairs))
    assert (wrong.score, wrong.fault and wrong.fault.kind, right.score) == (None, "invalid_variable_error", 1.0)
    assert len(server.requests) == 1


def test_a_variable_that_the_item_has_not_costs_no_question() -> None:
    with Fake() as server:
        message = {"role": "user", "content": "{{ item.missing }}"}
        given = asked(judge(server, input=[message]), "text")
        assert [grade.fault and grade.fault.kind for grade in given] == ["invalid_variable_error"]
        message = {"role": "user", "content": "{{ sample.output_json.a }}"}
        (given_zero,) = asked(judge(server, input=[message]), "no JSON")
        assert (given_zero.score, given_zero.fault and given_zero.fault.kind) == (0.0, "sample_parse_error")
    assert not server.requests
