"""Chat completions as the stock SDK sees them: a tiny random model in a real worker, over real HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from openai import OpenAI

from sharpen.server.app import create
from sharpen.server.settings import Settings
from tests.tiny import tiny_model, tiny_tokenizer

SAY = [{"role": "user", "content": "Say something."}]


@contextmanager
def live(settings: Settings) -> Iterator[tuple[str, Any]]:
    app = create(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", http="httptools", loop="asyncio"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1", app.state.server
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """The map's `far` is this very server, under another name."""
    folder = tmp_path_factory.mktemp("serve")
    model = str(tiny_model(folder / "model", vocab_size=101, initializer_range=0.2))
    with (
        pytest.MonkeyPatch.context() as patch,
        live(Settings.model_validate({"data_dir": folder / "near", "auth": False, "models": {"tiny": model}})) as (
            url,
            server,
        ),
    ):
        patch.setenv("THEIR_KEY", "sk-operators-secret")
        far = {"base_url": url, "model": "tiny", "api_key_env": "THEIR_KEY"}
        none = {"base_url": "http://127.0.0.1:9/v1", "model": "tiny"}
        lost = {"base_url": url, "model": "not-there", "api_key_env": "THEIR_KEY"}
        settings = {"data_dir": folder / "far", "auth": False, "models": {"far": far, "none": none, "lost": lost}}
        with live(Settings.model_validate(settings)) as (other, _):
            server.other = other
            yield url, server


@pytest.fixture(scope="module")
def client(running: tuple[str, Any]) -> OpenAI:
    return OpenAI(base_url=running[0], api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def remote(running: tuple[str, Any]) -> OpenAI:
    return OpenAI(base_url=running[1].other, api_key="none", max_retries=0)


def make(client: OpenAI, model: str = "tiny", **params: Any) -> Any:
    given = {"messages": SAY, "max_tokens": 12, "seed": 3} | params
    create: Any = client.chat.completions.create
    return create(model=model, **given)


def test_a_seed_gives_the_same_text_again_and_another_one_another(client: OpenAI) -> None:
    first, again, other = (make(client, seed=seed) for seed in (3, 3, 4))
    assert first.choices[0].message.content == again.choices[0].message.content
    assert first.choices[0].message.content != other.choices[0].message.content
    assert first.object == "chat.completion" and first.id.startswith("chatcmpl-") and first.model == "tiny"
    assert first.choices[0].message.role == "assistant" and first.choices[0].finish_reason in ("stop", "length")
    usage = first.usage
    prompt = tiny_tokenizer().apply_chat_template(SAY, add_generation_prompt=True)["input_ids"]
    assert usage.prompt_tokens == len(prompt) and usage.completion_tokens <= 12
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_stream_says_what_the_whole_answer_says(client: OpenAI) -> None:
    whole = make(client, n=3, logprobs=True, top_logprobs=2)
    stream = make(client, n=3, logprobs=True, top_logprobs=2, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    for place, choice in enumerate(whole.choices):
        own = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == place]
        assert own[0].delta.role == "assistant" and own[0].delta.content == ""
        assert "".join(each.delta.content or "" for each in own) == choice.message.content
        assert [each.finish_reason for each in own if each.finish_reason] == [choice.finish_reason]
        assert not own[-1].delta.content, "the end is a chunk of its own"
        entries = [entry for each in own if each.logprobs for entry in each.logprobs.content]
        assert entries == choice.logprobs.content
        assert "".join(entry.token for entry in entries) == choice.message.content
        assert bytes(byte for entry in entries for byte in entry.bytes).decode() == choice.message.content
        assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in entries)
    assert len({choice.message.content for choice in whole.choices}) == 3, "each choice draws on its own"
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_frames_of_a_stream_are_openais(running: tuple[str, Any]) -> None:
    body = {"model": "tiny", "messages": SAY, "max_tokens": 3, "temperature": 0, "stream": True}
    response = httpx.post(f"{running[0]}/chat/completions", json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    frames = response.text.split("\n\n")
    assert all(frame.startswith("data: ") for frame in frames[:-1]) and frames[-2:] == ["data: [DONE]", ""]
    first = json.loads(frames[0].removeprefix("data: "))
    assert first["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "", "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    last = json.loads(frames[-3].removeprefix("data: "))
    assert last["choices"][0]["delta"] == {} and last["choices"][0]["finish_reason"] == "length"
    assert "usage" not in first


def test_stop_strings_end_a_text_and_are_not_shown(client: OpenAI) -> None:
    text = make(client, temperature=0, max_tokens=30).choices[0].message.content
    stop = text[5:8]
    cut = text[: text.find(stop)]
    found = make(client, temperature=0, max_tokens=30, stop=["not there", stop]).choices[0]
    assert (found.message.content, found.finish_reason) == (cut, "stop")
    streamed = make(client, temperature=0, max_tokens=30, stop=stop, stream=True, logprobs=True)
    choices = [chunk.choices[0] for chunk in streamed]
    assert "".join(choice.delta.content or "" for choice in choices) == cut
    assert sum(len(choice.logprobs.content) for choice in choices if choice.logprobs) == len(cut)


def test_temperature_0_is_greedy_and_tiny_top_p_too(client: OpenAI) -> None:
    greedy = {make(client, temperature=0, seed=seed).choices[0].message.content for seed in (1, 2)}
    assert greedy == {make(client, top_p=0.0).choices[0].message.content} and len(greedy) == 1


def test_json_is_json(client: OpenAI) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema["additionalProperties"] = False
    form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema, "strict": True}}
    for seed in range(3):
        found = make(client, response_format=form, max_tokens=40, seed=seed).choices[0]
        assert found.finish_reason == "stop" and isinstance(json.loads(found.message.content)["ok"], bool)


def test_tools_are_taken_and_their_calls_are_not_forced(client: OpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    chat = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        *SAY,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "2"},
    ]
    assert make(client, messages=chat, tools=tools, tool_choice="auto").choices[0].message.tool_calls is None
    with pytest.raises(openai.BadRequestError) as caught:
        make(client, tools=tools, tool_choice="required")
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"max_tokens": 5000}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
        ),
        ({"temperature": 3}, "temperature"),
        ({"n": 0}, "n"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "x", "format": "wav"}}, "audio"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nope"}}}},
            "response_format",
        ),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"extra_body": {"best_of": 2}}, "best_of"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    ],
)
def test_what_cannot_be_is_a_400_that_names_it(client: OpenAI, params: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        make(client, **params)
    assert caught.value.param == param
    if param == "messages" and "max_tokens" in params:
        assert caught.value.code == "context_length_exceeded"


def test_parameters_that_change_nothing_are_taken(client: OpenAI) -> None:
    make(
        client,
        user="u",
        metadata={"a": "b"},
        store=True,
        parallel_tool_calls=False,
        service_tier="auto",
        presence_penalty=0,
        frequency_penalty=0.0,
        reasoning_effort="low",
        verbosity="low",
        modalities=["text"],
        safety_identifier="s",
        prompt_cache_key="p",
        response_format={"type": "text"},
    )


def test_control_tokens_in_a_message_stay_text(client: OpenAI) -> None:
    plain = make(client, messages=[{"role": "user", "content": "<|im_end|>"}]).usage.prompt_tokens
    empty = make(client, messages=[{"role": "user", "content": "x"}]).usage.prompt_tokens
    assert plain == empty - 1 + len("<|im_end|>")


def test_who_goes_away_is_cancelled(running: tuple[str, Any], client: OpenAI) -> None:
    workers = running[1].workers
    stream = make(client, max_tokens=1900, stream=True, n=4, temperature=2, extra_body={})
    next(iter(stream))
    stream.close()
    with pytest.raises(httpx.ReadTimeout):
        body = {"model": "tiny", "messages": SAY, "max_tokens": 1900, "n": 16, "temperature": 2}
        httpx.post(f"{running[0]}/chat/completions", json=body, timeout=0.2)
    for _ in range(100):
        if workers.loaded() == {"tiny": 0}:
            break
        time.sleep(0.05)
    assert workers.loaded() == {"tiny": 0}
    assert make(client).choices


def test_unknown_models_are_404_and_known_ones_are_listed(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        make(client, model="gpt-4o")
    assert caught.value.code == "model_not_found"
    listed = {model.id: model for model in client.models.list()}
    assert listed["tiny"].object == "model" and client.models.retrieve("tiny") == listed["tiny"]
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete("tiny")
    for attempt in (client.models.retrieve, client.models.delete):
        with pytest.raises(openai.NotFoundError):
            attempt("ft:tiny:org::none")


def test_another_server_answers_under_our_name_for_it(remote: OpenAI, client: OpenAI) -> None:
    there, here = make(remote, model="far"), make(client)
    assert there.model == "far" and there.choices[0].message == here.choices[0].message
    streamed = list(make(remote, model="far", stream=True))
    assert {chunk.model for chunk in streamed} == {"far"}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == here.choices[0].message.content
    with pytest.raises(openai.BadRequestError) as told:
        make(remote, model="far", max_tokens=5000)
    assert told.value.code == "context_length_exceeded"


@pytest.mark.parametrize("model", ["none", "lost"])
def test_another_servers_faults_are_503_and_say_nothing_of_keys(remote: OpenAI, model: str) -> None:
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as caught:
            make(remote, model=model, stream=stream)
        assert caught.value.status_code == 503 and "retry-after" in caught.value.response.headers
        assert "secret" not in caught.value.response.text


def test_a_worker_that_is_killed_breaks_the_stream_with_an_error(running: tuple[str, Any], client: OpenAI) -> None:
    """The last test of this file: the next one would wait for the model."""
    stream = make(client, max_tokens=1900, stream=True, temperature=2)
    next(iter(stream))
    (place,) = running[1].workers._places.values()
    place.link.process.kill()
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "model_crashed"
