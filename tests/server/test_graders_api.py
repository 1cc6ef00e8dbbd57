"""`graders/run` and `graders/validate`, asked with the stock SDK of a server on a port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from fastapi import FastAPI

from sharpen.server.app import create
from sharpen.server.errors import APIError
from sharpen.server.grading import clerk, flags
from sharpen.server.keys import Scope, create_key
from sharpen.server.settings import Settings
from tests.server.fake_judge import Judge

CHECK = {"type": "string_check", "name": "right", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}"}
JUDGE = {
    "type": "score_model",
    "name": "judge",
    "model": "gpt-4o",
    "input": [{"role": "user", "content": "Rate {{ sample.output_text }}."}],
}


ITEM = {"answer": "4", "tests": [{"args": [], "expected": 1}]}


class Site:
    """A server on a port, and its clients."""

    def __init__(self, app: FastAPI, port: int) -> None:
        self.app = app
        self.clerk = app.state.server.clerk
        self.url = f"http://127.0.0.1:{port}/v1"
        self.client = self.of(("read", "write", "chat"))

    def of(self, scopes: tuple[Scope, ...], project: str = "default") -> openai.OpenAI:
        secret = self.app.state.server.db.change(lambda connection: create_key(connection, project, "k", scopes, None))
        return openai.OpenAI(base_url=self.url, api_key=secret, max_retries=0)

    def run(self, grader: dict[str, Any], sample: str = "4", item: Any = None) -> dict[str, Any]:
        """What `run` answers, without what the SDK makes of it."""
        graders = self.client.fine_tuning.alpha.graders
        answer = graders.run(grader=grader, model_sample=sample, item=item or ITEM)  # type: ignore[arg-type]
        found: dict[str, Any] = answer.to_dict(mode="json")
        return found


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    server = Judge()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, judge: Judge) -> Iterator[Site]:
    home = f"127.0.0.1:{judge.server_port}"
    kinds = {"gpt-4o": "fine", "fails": "fails", "forbids": "forbids", "refuses": "refuses", "garbage": "garbage"}
    judges = {name: {"base_url": f"http://{home}/{kind}/v1", "model": "far"} for name, kind in kinds.items()}
    judges["moves"] = {"base_url": f"http://{home}/moves/v1", "model": "far"}
    app = create(
        Settings.model_validate(
            {
                "data_dir": tmp_path_factory.mktemp("data"),
                "judges": {**judges, "here": "no-such-model"},
                "endpoint_hosts": [home],
            }
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield Site(app, listening.getsockname()[1])
        server.should_exit = True
        thread.join()


def python(body: str) -> dict[str, Any]:
    return {"type": "python", "name": "program", "source": f"def grade(sample, item):\n    {body}\n"}


def set_flags(answer: dict[str, Any]) -> set[str]:
    return {name for name, value in answer["metadata"]["errors"].items() if value is True}


def code(error: openai.APIStatusError) -> Any:
    body = error.body
    assert isinstance(body, dict)
    return body["code"]


def test_a_right_answer_and_the_whole_form_of_the_response(site: Site) -> None:
    answer = site.run(CHECK)
    assert answer["reward"] == 1.0
    assert answer["sub_rewards"] == {}
    assert answer["model_grader_token_usage_per_model"] == {}
    metadata = answer["metadata"]
    assert (metadata["name"], metadata["type"]) == ("right", "string_check")
    assert metadata["execution_time"] > 0
    assert metadata["isolation"] in ("full", "reduced")
    nothing = {*flags.FLAGS, *flags.DETAILS.values()}
    assert set(metadata["errors"]) == nothing
    assert not any(metadata["errors"].values())
    assert metadata["token_usage"] is None
    assert metadata["sampled_model_name"] is None


def test_multi_of_three_kinds_has_the_formulas_reward_and_each_graders(site: Site) -> None:
    parts = {"right": CHECK, "program": python("return len(sample['output_text']) / 2"), "judge": JUDGE}
    answer = site.run({"type": "multi", "name": "all", "graders": parts, "calculate_output": "right + program + judge"})
    assert answer["sub_rewards"] == {"right": 1.0, "program": 0.5, "judge": 0.75}
    assert answer["reward"] == 2.25
    assert answer["metadata"]["scores"] == answer["sub_rewards"]
    assert answer["model_grader_token_usage_per_model"] == {"gpt-4o": {"total_tokens": 16}}
    assert answer["metadata"]["token_usage"] == 16
    assert answer["metadata"]["sampled_model_name"] == "gpt-4o"
    assert set_flags(answer) == set()


def test_a_sample_of_json_has_fields_and_tools_their_arguments(site: Site) -> None:
    field = {**CHECK, "input": "{{ sample.output_json.k[0] }}"}
    assert site.run(field, '{"k": ["4"]}')["reward"] == 1.0
    call = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'
    tools = {**CHECK, "input": "{{ sample.output_tools[0].function.name }}"}
    assert site.run(tools, call, {"answer": "f"})["reward"] == 1.0


@pytest.mark.parametrize(
    ("grader", "sample", "wanted", "details"),
    [
        ({"type": "multi", "graders": {"right": CHECK}, "calculate_output": "1 / (right - 1)"}, "4",
         {"formula_parse_error"}, {}),
        ({**CHECK, "input": "{{ sample.output_json.k }}"}, "no JSON", {"sample_parse_error"}, {}),
        ({**CHECK, "reference": "{{ item.nothing }}"}, "4", {"invalid_variable_error"}, {}),
        ({"type": "code_tests", "tests": "{{ item.tests }}", "function": "f"}, "def f():\n    return 1 / 0",
         {"other_error"}, {}),
        (python("raise ValueError('broken ' + 'here')"), "4", {"python_grader_runtime_error"},
         {"python_grader_runtime_error_details": "broken here"}),
        (python("return float('nan')"), "4", {"python_grader_runtime_error"}, {}),
        (python("print('x' * (2 << 20))"), "4", {"python_grader_runtime_error", "truncated_observation_error"}, {}),
        ({**python("while True: pass"), "time_limit": 0.3}, "4",
         {"python_grader_runtime_error", "unresponsive_reward_error"}, {}),
        ({"type": "regex", "pattern": r"(a+)+\Z", "time_limit": 0.3}, "a" * 40 + "b",
         {"unresponsive_reward_error"}, {}),
        ({**JUDGE, "model": "fails", "max_retries": 0}, "4", {"model_grader_server_error"},
         {"model_grader_server_error_details": "status 500"}),
        ({**JUDGE, "model": "forbids"}, "4", {"model_grader_server_error"},
         {"model_grader_server_error_details": "status 403"}),
        ({**JUDGE, "model": "moves"}, "4", {"model_grader_server_error"},
         {"model_grader_server_error_details": "status 302"}),
        ({**JUDGE, "model": "refuses"}, "4", {"model_grader_refusal_error"}, {}),
        ({**JUDGE, "model": "garbage"}, "4", {"model_grader_parse_error"}, {}),
    ],
)  # fmt: skip
def test_every_flag_is_set_by_what_it_names(
    site: Site, grader: dict[str, Any], sample: str, wanted: set[str], details: dict[str, str]
) -> None:
    answer = site.run(grader, sample)
    assert set_flags(answer) == wanted, answer
    assert answer["reward"] == 0.0
    for name, said in details.items():
        assert said in answer["metadata"]["errors"][name]


def test_an_endpoint_that_fails_is_an_other_error_and_one_that_answers_has_a_score(site: Site, judge: Judge) -> None:
    url = f"http://127.0.0.1:{judge.server_port}"
    assert site.run({"type": "endpoint", "url": f"{url}/endpoint/"})["reward"] == 0.5
    assert set_flags(site.run({"type": "endpoint", "url": f"{url}/forbids/"})) == {"other_error"}


def test_a_process_that_dies_while_it_grades_is_a_server_error_and_the_next_one_grades(site: Site) -> None:
    def kill() -> None:
        while site.clerk.pid is None:
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(site.clerk.pid, signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    answer = site.run({**python("import time; time.sleep(20)")})
    killing.join()
    assert set_flags(answer) == {"python_grader_server_error"}
    assert answer["metadata"]["errors"]["python_grader_server_error_type"] == "crashed"
    assert site.run(CHECK)["reward"] == 1.0


def test_a_grader_that_is_never_done_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.clerk, "_seconds", 0.5)
    answer = site.run(python("import time; time.sleep(20)"))
    assert set_flags(answer) == {"python_grader_server_error", "unresponsive_reward_error"}
    assert answer["metadata"]["errors"]["python_grader_server_error_type"] == "timeout"


def test_one_part_at_fault_does_not_hide_what_the_others_say(site: Site) -> None:
    parts = {"right": CHECK, "program": python("return 1 / 0"), "judge": {**JUDGE, "model": "refuses"}}
    answer = site.run({"type": "multi", "graders": parts, "calculate_output": "right + program + judge"})
    assert set_flags(answer) == {"python_grader_runtime_error", "model_grader_refusal_error"}
    assert answer["sub_rewards"] == {"right": 1.0, "program": None, "judge": None}
    assert answer["metadata"]["scored"] is False


def test_a_program_finds_no_secret_of_the_server(site: Site, judge: Judge) -> None:
    secret = site.app.state.server.settings.data_dir / "secret"
    reads = f"return float(open({str(secret)!r}).read() == '')"
    assert "program" not in site.run(python(reads))["metadata"]["scores"]
    leaks = "import os; return float(any('TOKEN' in name or 'KEY' in name for name in os.environ))"
    assert site.run(python(leaks))["reward"] == 0.0
    reaches = f"import socket; socket.create_connection(('127.0.0.1', {judge.server_port})); return 1.0"
    assert set_flags(site.run(python(reaches))) == {"python_grader_runtime_error"}


def test_a_judge_here_is_asked_over_this_servers_own_port_with_a_token(site: Site) -> None:
    """Its model is none of this machine's, and the server says so to the grader: the token was good."""
    answer = site.run({**JUDGE, "model": "here", "max_retries": 0})
    assert set_flags(answer) == {"model_grader_server_error"}
    details = answer["metadata"]["errors"]["model_grader_server_error_details"]
    assert "no-such-model" in details
    assert "401" not in details
    assert "skj-" not in details


def test_a_judge_elsewhere_gets_no_key_that_is_not_its_own(site: Site, judge: Judge) -> None:
    judge.asked.clear()
    site.run(JUDGE)
    assert [headers.get("authorization", headers.get("Authorization")) for headers in judge.asked] == [None]


def test_validate_returns_the_grader_as_it_was_given(site: Site) -> None:
    multi = {
        "type": "multi",
        "name": "all",
        "graders": {"right": CHECK, "judge": JUDGE},
        "calculate_output": "right * judge",
    }
    answer = site.client.fine_tuning.alpha.graders.validate(grader=multi)  # type: ignore[arg-type]
    assert answer.to_dict(mode="json", warnings=False) == {"grader": multi}  # the SDK types `multi` as its first branch


@pytest.mark.parametrize("method", ["run", "validate"])
def test_a_grader_that_is_none_is_refused_with_its_place(site: Site, method: str) -> None:
    graders = site.client.fine_tuning.alpha.graders
    more = {"model_sample": "4"} if method == "run" else {}
    for grader, place, kind in [
        ({**CHECK, "operation": "about"}, "grader.operation", "invalid_grader"),
        ({**JUDGE, "model": "gpt-5"}, "grader.model", "unmapped_judge"),
        ({"type": "endpoint", "url": "https://169.254.169.254/"}, "grader.url", "not_permitted"),
    ]:
        with pytest.raises(openai.BadRequestError) as caught:
            getattr(graders, method)(grader=grader, **more)
        assert (caught.value.param, caught.value.code) == (place, kind)


def test_run_and_validate_need_the_scope_write(site: Site) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        site.of(("read", "chat")).fine_tuning.alpha.graders.validate(grader=CHECK)  # type: ignore[arg-type]


def test_an_item_is_an_object_and_an_unknown_parameter_is_named(site: Site) -> None:
    for body in ({"item": [1]}, {"reference_answer": "4"}, {"model_sample": 4}):
        whole = {"grader": CHECK, "model_sample": "4", **body}
        with pytest.raises(openai.BadRequestError) as caught:
            site.client.post("/fine_tuning/alpha/graders/run", body=whole, cast_to=dict[str, Any])
        assert caught.value.param == next(iter(body))


def test_no_nesting_of_an_item_and_no_odd_text_breaks_the_server(site: Site) -> None:
    headers = {"authorization": f"Bearer {site.client.api_key}", "content-type": "application/json"}
    whole = '{"grader": {"type": "length", "min": 1}, "model_sample": "%s", "item": {"a": %s}}'
    for depth in (50, 400, 700, 800, 850, 900, 950, 1_000, 100_000):
        body = whole % ("x", "[" * depth + "]" * depth)
        answer = httpx.post(f"{site.url}/fine_tuning/alpha/graders/run", content=body, headers=headers)
        assert answer.status_code in (200, 400), (depth, answer.text)
    for text in ("\\ud800", "\\u0000", "NaN"):
        body = whole % (text, "NaN")
        answer = httpx.post(f"{site.url}/fine_tuning/alpha/graders/run", content=body, headers=headers)
        assert answer.status_code in (200, 400), answer.text
    assert site.run(CHECK)["reward"] == 1.0


def test_beyond_the_queue_clients_are_told_when_to_come_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clerk, "SHARE", 1)

    def ask(_: int) -> int:
        try:
            site.run(python("import time; time.sleep(0.5); return 1.0"))
        except openai.RateLimitError as error:
            assert error.response.headers["retry-after"] == "5"
            return 429
        return 200

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(ask, range(4))) == [200, 429, 429, 429]


def test_without_a_sandbox_nothing_is_graded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without one, as the process would tell it."""
    told = "no sandbox works here. See docs/security.md"

    async def without(self: Any, line: bytes) -> dict[str, Any]:
        return {"unavailable": told}

    monkeypatch.setattr(clerk.Clerk, "_ask", without)
    with pytest.raises(APIError, match="no sandbox") as caught:
        asyncio.run(clerk.Clerk(Settings(data_dir=tmp_path)).grade({}, "a"))
    assert (caught.value.status, caught.value.body["code"]) == (503, "sandbox_unavailable")


def test_an_idle_process_ends(tmp_path: Path) -> None:
    async def ended() -> bool:
        idle = clerk.Clerk(Settings(data_dir=tmp_path, idle_seconds=0.1))
        config = {"type": "length", "min": 1}
        await idle.grade({"grader": config, "item": {}, "sample": "x", "token": ""}, "a")
        pid = idle.pid
        assert pid is not None
        for _ in range(500):
            if not Path(f"/proc/{pid}").exists():
                return True
            await asyncio.sleep(0.02)
        await idle.stop()
        return False

    assert asyncio.run(ended())
