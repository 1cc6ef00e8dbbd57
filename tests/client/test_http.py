"""Waits, rates and limits of asking a server; and that nothing goes to another place, or is said that is secret."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.client import http
from sharpen.client.http import Service, ServiceError, asked_wait, parse, with_secrets
from sharpen.errors import ConfigError
from tests.client.fake import Fake, by, reply, reset, together

ANSWER = reply('{"score": 1}')


def post(service: Service, count: int = 1) -> list[Any]:
    return asyncio.run(service.post_all([{"number": number} for number in range(count)]))


@pytest.mark.parametrize("attempt", range(12))
def test_a_wait_is_doubled_each_time_and_half_of_it_is_chance(attempt: int) -> None:
    whole = min(60.0, 0.5 * 2**attempt)
    waits = [http._wait(attempt) for _ in range(300)]
    assert all(whole / 2 <= wait <= whole for wait in waits)
    assert max(waits) - min(waits) > whole / 4, "they differ, so that many do not come back at the same moment"


def test_the_thousandth_wait_is_as_long_as_the_longest() -> None:
    assert 30 <= http._wait(5000) <= 60


def test_what_is_waited_for_is_what_the_server_asks_for_and_the_wait_of_the_attempt() -> None:
    assert asked_wait({"retry-after": "7"}) == 7
    assert asked_wait({"retry-after": "0.25"}) == 0.25
    assert asked_wait({"retry-after": "86400"}) == 60
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < asked_wait({"retry-after": date}) <= 30
    for nothing in ("", "-3", "0", "nan", "soon", format_datetime(datetime(2001, 1, 1, tzinfo=UTC), usegmt=True)):
        assert asked_wait({"retry-after": nothing}) == 0
    assert asked_wait({}) == 0


DATES = st.from_regex(r"(Fri, )?\d{0,30} (Jan|Dec|Foo)? ?\d{0,30} \d{0,20}:\d{0,20}(:\d{0,20})? ?(GMT|[+-]\d{0,20})?")


@given(st.text() | DATES | st.floats().map(str) | st.integers().map(str))
def test_no_retry_after_is_so_strange_that_it_is_more_than_a_number_of_seconds(said: str) -> None:
    assert 0 <= asked_wait({"retry-after": said}) <= 60


def test_a_retry_is_made_as_often_as_allowed_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT", 0.001)
    for retries in (0, 1, 4):
        with Fake(otherwise=reset()) as server:
            (answer,) = post(Service(server.url, max_retries=retries))
        assert isinstance(answer, ServiceError) and answer.kind == "server"
        assert len(server.requests) == retries + 1


def test_requests_keep_to_the_rate_and_waiting_for_ones_turn_costs_no_time_of_the_limit() -> None:
    with Fake(otherwise=ANSWER) as server:
        service = Service(server.url, rate_limit=100, time_limit=1.6)
        began = time.monotonic()
        answers = post(service, 4) + post(service)
    assert answers == [{"score": 1}] * 5, "the last began 2.4 s after the first"
    arrived = [request.arrived - began for request in server.requests]
    assert all(when >= number * 0.6 for number, when in enumerate(arrived))


@pytest.mark.parametrize("most", [1, 4, 110])
def test_so_many_requests_are_under_way_at_once_and_no_more(most: int) -> None:
    with Fake(otherwise=together(most, ANSWER)) as server:
        assert post(Service(server.url, max_concurrent=most), 2 * most) == [{"score": 1}] * 2 * most
    assert server.most_at_once == most


def test_answers_stand_in_the_order_of_the_questions_and_are_told_as_they_arrive() -> None:
    slow_first = by(lambda request: reply(str(request.body["number"])))
    told: list[tuple[int, Any]] = []
    with Fake(reset(), otherwise=slow_first) as server:
        service = Service(server.url)
        bodies = [{"number": number} for number in range(5)]
        answers = asyncio.run(service.post_all(bodies, lambda place, answer: told.append((place, answer))))
    assert answers == [0, 1, 2, 3, 4]
    assert sorted(told) == [(number, number) for number in range(5)]
    assert len(server.requests) == 6


def test_questions_are_json_in_utf_8() -> None:
    with Fake(otherwise=ANSWER) as server:
        asyncio.run(Service(server.url).post_all([{"text": "naïve ∑ 雪 \ud800"}]))
    (request,) = server.requests
    assert request.headers["content-type"] == "application/json"
    assert request.body == {"text": "naïve ∑ 雪 ?"}


def test_the_environments_proxies_are_not_told_what_is_asked_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with Fake(otherwise=ANSWER) as proxy, Fake(otherwise=ANSWER) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert post(Service(server.url)) == [{"score": 1}]
        assert (len(proxy.requests), len(server.requests)) == (0, 1)
        assert post(Service("http://judge.example/v1", remote=True)) == [{"score": 1}]
        assert [request.path for request in proxy.requests] == ["http://judge.example/v1"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "http://[1:2]/",
        "http://a b/",
        "http://127.0.0.1\n.evil.example/",
        "http://⑯⑧.evil.example/",
    ],
)
def test_what_is_no_address_or_can_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        Service(url)


def test_a_host_whose_name_none_can_have_is_a_fault_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT", 0.001)
    for host in ("a..b", "x" * 70 + ".example", "nowhere.invalid"):
        (answer,) = post(Service(f"http://{host}/v1", max_retries=1))
        assert isinstance(answer, ServiceError) and answer.kind == "server"


SECRET = "sk-0123456789/abcdef"


def test_a_server_that_repeats_the_key_does_not_get_it_into_the_fault_or_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "FIRST_WAIT", 0.001)
    headers = {"authorization": f"Bearer {SECRET}", "x-team": "a"}
    echo = f'{{"error": "wrong key {SECRET}", "a": "{SECRET.replace("/", chr(92) + "/")}"}}'
    for status in ("401 Unauthorized", "503 Unavailable"):
        with Fake(otherwise=reply(echo, status)) as server:
            (answer,) = post(Service(server.url, headers=headers, max_retries=1))
        assert isinstance(answer, ServiceError)
        assert SECRET not in answer.detail and "abcdef" not in answer.detail and "[hidden]" in answer.detail
        assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    with Fake(otherwise=reply(echo)) as server:
        assert post(Service(server.url, headers=headers)) == [{"error": "wrong key [hidden]", "a": "[hidden]"}]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"authorization": "Bearer sk-secret\nx: y"}, "authorization holds a character"),
        ({"authorization": "Bearer sk-sécret"}, "authorization holds a character"),
        ({"a b": "sk-secret"}, "not the name of a header"),
        ({"": "sk-secret"}, "not the name of a header"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused_without_their_value(headers: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Service("http://127.0.0.1/", headers=headers)
    assert "cret" not in str(caught.value)


def test_white_space_around_a_secret_is_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "sk-secret\n")
    with Fake(otherwise=ANSWER) as server:
        assert post(Service(server.url, headers=with_secrets({"X-Key": "${TOKEN}", "Content-Type": "text/json"})))
    assert server.requests[0].headers["x-key"] == "sk-secret"
    assert server.requests[0].headers["content-type"] == "text/json"


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=r"export NO_SUCH_TOKEN="):
        with_secrets({"authorization": "Bearer ${NO_SUCH_TOKEN}"})
    assert with_secrets({"a": "$PATH {PATH} plain"}) == {"a": "$PATH {PATH} plain"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    import json

    assert parse(json.dumps(value)) == value


@pytest.mark.parametrize("depth", [99, 100, 101, 5000, 200_000])
def test_json_may_be_nested_a_hundred_times(depth: int) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        text = opening * depth + "1" + closing * depth
        if depth <= 100:
            assert parse(text)
        else:
            with pytest.raises(ValueError, match="nested too deep"):
                parse(text)
