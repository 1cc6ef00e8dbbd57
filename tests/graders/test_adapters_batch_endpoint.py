"""`batch_endpoint`: Amazon Bedrock's reward function, from its file and on a server; results are matched by id."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from sharpen.config.graders import BatchEndpoint
from sharpen.config.load import load
from sharpen.errors import GraderError
from sharpen.graders.pool import GraderPool
from sharpen.stages import pipeline
from sharpen.types import Example, Grade, Message, Sample
from tests.runs.lab import World

FAULT = "python_grader_runtime_error"
ASK: tuple[Message, ...] = ({"role": "user", "content": "2+3?"},)

HANDLER = """
from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass

import beside


@dataclass
class Output:
    id: str
    aggregate_reward_score: float


def lambda_handler(event, context):
    with open(beside.SEEN, "a") as file:
        file.write(json.dumps(event) + "\\n")
    return [asdict(Output(each["id"], length(each))) for each in event]


def length(sample):
    last = sample["messages"][-1]
    assert last["role"] == "assistant"
    return float(len(last["content"]))


def strange(event, context):
    order = event[0]["messages"][-1]["content"]
    results = lambda_handler(event, context)
    match order:
        case "raise":
            raise ValueError("no")
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(60)
        case "object":
            return {"results": results}
        case "short":
            return results[1:]
        case "twice":
            return results + results[:1]
        case "another":
            results[0]["id"] = "another"
        case "no score":
            del results[0]["aggregate_reward_score"]
        case "nan":
            results[0]["aggregate_reward_score"] = float("nan")
        case "word":
            results[0]["aggregate_reward_score"] = "1.0"
        case "metrics":
            results[0]["metrics_list"] = {"name": "a", "value": 1.0}
        case "metric":
            results[0]["metrics_list"] = [{"name": "a", "value": "high"}]
        case "endless":
            results[0]["metrics_list"] = [{"name": "a", "value": float("inf")}]
        case "no object":
            results[0] = 1.0
        case "shuffled":
            results.reverse()
    return results


def told(event, context):
    left = context.get_remaining_time_in_millis()
    return [{"id": each["id"], "aggregate_reward_score": left, "metrics_list": [
        {"name": "named", "value": float(context.function_name == "reward"), "type": "Reward"},
        {"name": "numbered", "value": float(len(context.aws_request_id)), "type": "Metric"},
    ]} for each in event]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "reward.py").write_text(HANDLER)
    (tmp_path / "beside.py").write_text(f"SEEN = {str(tmp_path / 'seen.jsonl')!r}\n")
    return tmp_path


def pair(text: str, **item: Any) -> tuple[Example, Sample]:
    return Example("row", ASK, item), Sample(text)


def graded(config: BatchEndpoint, *pairs: tuple[Example, Sample]) -> list[Grade]:
    with GraderPool(config) as pool:
        return asyncio.run(pool.grade_many(pairs))


def of_file(folder: Path, *texts: str, **settings: Any) -> list[Grade]:
    return graded(BatchEndpoint(file=str(folder / "reward.py"), **settings), *map(pair, texts))


def scores(given: list[Grade]) -> list[float | None]:
    return [grade.score for grade in given]


def kinds(given: list[Grade]) -> list[str]:
    return [grade.fault.kind if grade.fault else "" for grade in given]


def events(folder: Path) -> list[list[dict[str, Any]]]:
    return [json.loads(line) for line in (folder / "seen.jsonl").read_text().splitlines()]


def test_a_handler_is_handed_conversations_with_the_rows_fields_as_bedrock_and_sagemaker_have_them(
    folder: Path,
) -> None:
    config = BatchEndpoint(file=str(folder / "reward.py"))
    turns = tuple({"role": role, "content": role} for role in ("assistant", "tool", "assistant"))
    rows = [
        pair("It is 5", reference_answer={"value": 5}, my_key="sample-001"),
        pair("5", answer=5, metadata={"level": 2}, id="own"),
        (Example("row", ASK, {}), Sample("assistant", messages=turns)),
    ]
    assert scores(graded(config, *rows)) == [7.0, 1.0, 9.0]
    first, second, third = events(folder)[0]
    reference = {"reference_answer": {"value": 5}, "my_key": "sample-001"}
    spoken = [*ASK, {"role": "assistant", "content": "It is 5"}]
    assert first == {"id": "row/0", "messages": spoken, "metadata": reference, **reference}
    assert second["metadata"].items() >= {"level": 2, "answer": 5, "reference_answer": 5, "id": "own"}.items()
    assert (second["id"], second["reference_answer"]) == ("row/1", 5)
    assert third["messages"] == [*ASK, *turns]


def test_calls_are_as_large_as_the_recipe_says(folder: Path) -> None:
    assert scores(of_file(folder, "a", "bb", "ccc", "a", "bb", max_batch=2)) == [1.0, 2.0, 3.0, 1.0, 2.0]
    assert sorted(map(len, events(folder))) == [1, 2, 2]
    assert scores(of_file(folder, "a", "bb", "ccc")) == [1.0, 2.0, 3.0]
    assert len(events(folder)[-1]) == 3
    assert of_file(folder) == []


def test_results_are_matched_by_id_and_not_by_order(folder: Path) -> None:
    assert scores(of_file(folder, "shuffled", "b", "cc", handler="strange")) == [8.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("short", "there are 0 results with the id 'row/0'"),
        ("another", "there are 0 results with the id 'row/0'"),
        ("no object", "there are 0 results with the id 'row/0'"),
        ("twice", "there are 2 results with the id 'row/0'"),
        ("no score", "aggregate_reward_score is no number: None"),
        ("word", "aggregate_reward_score is no number: '1.0'"),
        ("nan", "not a finite number: {'score': nan}"),
        ("metrics", "metrics_list is no list of objects"),
        ("metric", "the metric a is no number: 'high'"),
        ("endless", "not a finite number: {'a': inf}"),
    ],
)
def test_a_wrong_result_is_a_fault_of_its_row_alone(folder: Path, order: str, words: str) -> None:
    given = of_file(folder, order, "b", handler="strange")
    assert scores(given) == [None, 1.0]
    assert kinds(given) == [FAULT, ""]
    assert words in given[0].explanation


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("raise", "ValueError: no"),
        ("exit", "the worker died (exit status 3)"),
        ("hang", "timed out after 0.7 s"),
        ("object", "the answer is no list: {'results'"),
    ],
)
def test_a_failed_call_is_a_fault_of_its_rows_and_not_of_the_next_calls(folder: Path, order: str, words: str) -> None:
    limit = 0.7 if order == "hang" else 60.0
    given = of_file(folder, order, "b", "cc", "d", handler="strange", max_batch=2, time_limit=limit)
    assert scores(given) == [None, None, 2.0, 1.0]
    assert kinds(given) == [FAULT, FAULT, "", ""]
    assert words in given[0].explanation and words in given[1].explanation


def test_an_item_that_is_no_json_is_a_fault_of_its_row_alone(folder: Path) -> None:
    for value in (float("nan"), {1, 2}, b"5"):
        given = graded(BatchEndpoint(file=str(folder / "reward.py")), pair("a", x=value), pair("bb", x=1))
        assert scores(given) == [None, 2.0]
        assert kinds(given) == ["invalid_variable_error", ""]


def test_a_handler_is_told_of_its_call(folder: Path) -> None:
    (given,) = of_file(folder, "a", handler="told", time_limit=50.0)
    assert given.score is not None and 40_000 < given.score <= 50_000
    assert given.metrics == {"named": 1.0, "numbered": 36.0}


def test_a_file_without_the_handler_is_refused_at_the_start(folder: Path) -> None:
    for name, handler, words in (("nowhere.py", "lambda_handler", "no such Python file"), ("reward.py", "no", "no in")):
        config = BatchEndpoint(file=str(folder / name), handler=handler)
        with GraderPool(config, workers=1) as pool, pytest.raises(GraderError, match=words):
            asyncio.run(pool.start())


def test_a_path_is_relative_to_the_recipe_and_a_resumed_run_finds_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "recipes")
    (world.folder / "reward.py").write_text(
        "def lambda_handler(event, context):\n"
        "    return [{'id': each['id'], 'aggregate_reward_score': len(each['messages'][-1]['content'])}"
        " for each in event]\n"
    )
    grader = {"type": "batch_endpoint", "file": "reward.py"}
    both = {"type": "multi", "graders": {"own": grader}, "calculate_output": "2 * own"}
    stage = world.rft_stage(data={**world.rft, "grader": both}, grader=grader, steps=1)
    run = tmp_path / "run"
    pipeline.run(world.recipe(stage), run, base=world.folder)
    written = load(run / "recipe.yaml").stages[0]
    path = str(world.folder / "reward.py")
    assert written.grader.file == path  # type: ignore[union-attr]
    assert written.data.grader.graders["own"].file == path  # type: ignore[union-attr]
    monkeypatch.chdir("/")
    pipeline.resume(run, ["stages.0.steps=2"])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["faults"] for line in lines] == [{}, {}]
    assert all(line["reward"]["mean"] > 0 for line in lines)


# On a server


@contextmanager
def server(answer: Callable[[Any], Any]) -> Iterator[tuple[str, list[Any]]]:
    """A server that posts are answered by; its address, and what it was asked with which key."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.headers.get("x-key"), body))
            said = answer(body)
            content = b"no JSON" if said is None else json.dumps(said).encode()
            self.send_response(503 if said == "busy" else 200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}/rewards", asked
        finally:
            running.shutdown()


def lengths(event: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the handler above answers."""
    return [{"id": each["id"], "aggregate_reward_score": len(each["messages"][-1]["content"])} for each in event]


def test_a_server_is_posted_what_a_handler_is_handed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_KEY", "secret")
    rows = [pair("It is 5", reference_answer=5), pair("5", answer=5), pair("six", answer=float("nan"))]
    with server(lengths) as (url, asked):
        given = graded(BatchEndpoint(url=url, headers={"x-key": "${REWARD_KEY}"}), *rows)
    assert scores(given) == [7.0, 1.0, None]
    assert kinds(given) == ["", "", "invalid_variable_error"]
    graded(BatchEndpoint(file=str(folder / "reward.py")), *rows)
    assert asked == [("secret", events(folder)[0])]


def test_a_server_is_posted_batches_of_the_size_that_the_recipe_says() -> None:
    with server(lengths) as (url, asked):
        given = graded(BatchEndpoint(url=url, max_batch=2), *map(pair, ("a", "bb", "ccc")))
        assert scores(given) == [1.0, 2.0, 3.0]
        assert sorted(len(event) for _, event in asked) == [1, 2]
        assert scores(graded(BatchEndpoint(url=url), pair("", x=float("nan")))) == [None]
        assert len(asked) == 2, "nothing is asked about nothing"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda event: None, "endpoint_grader_parse_error"),
        (lambda event: {"scores": []}, "endpoint_grader_parse_error"),
        (lambda event: "busy", "endpoint_grader_server_error"),
    ],
)
def test_what_goes_wrong_with_a_server_is_the_graders_fault(answer: Callable[[Any], Any], kind: str) -> None:
    with server(answer) as (url, asked):
        given = graded(BatchEndpoint(url=url, max_retries=0), pair("a"), pair("b"))
    assert scores(given) == [None, None]
    assert kinds(given) == [kind, kind]
    assert len(asked) == 1


def test_a_busy_server_is_asked_again_as_often_as_the_recipe_says() -> None:
    for retries, given in ((0, [None]), (1, [1.0])):
        busy = iter([True])
        with server(lambda event, busy=busy: "busy" if next(busy, False) else lengths(event)) as (url, _):  # type: ignore[misc]
            assert scores(graded(BatchEndpoint(url=url, max_retries=retries), pair("a"))) == given


@pytest.mark.parametrize("most", [1, 2])
def test_so_many_calls_are_under_way_at_a_time(most: int) -> None:
    together = threading.Barrier(2)
    met: list[bool] = []

    def answer(event: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            together.wait(timeout=1.0)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)
        return lengths(event)

    with server(answer) as (url, _):
        given = graded(BatchEndpoint(url=url, max_batch=1, max_concurrent=most), pair("a"), pair("bb"))
    assert scores(given) == [1.0, 2.0]
    assert met == [most == 2] * 2


def test_a_wrong_result_of_a_server_is_a_fault_of_its_row_alone() -> None:
    with server(lambda event: lengths(event)[1:]) as (url, _):
        given = graded(BatchEndpoint(url=url), pair("a"), pair("bb"))
    assert scores(given) == [None, 2.0]
    assert kinds(given) == ["endpoint_grader_parse_error", ""]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "give `file`"),
        ({"file": "a.py", "url": "http://localhost/"}, "give `file`"),
        ({"url": "https://example.com/rewards"}, "item, messages of every row would be sent to example.com"),
        ({"url": "ftp://localhost/"}, "not an address"),
    ],
)
def test_it_is_a_file_or_a_server_that_rows_may_go_to(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        BatchEndpoint(**settings)


def test_only_a_remote_server_sees_rows_elsewhere() -> None:
    assert BatchEndpoint(url="https://example.com/rewards", allow_remote=True).leaves
    assert not BatchEndpoint(url="http://127.0.0.1:8000/rewards").leaves
    assert not BatchEndpoint(file="reward.py").leaves
    with pytest.raises(ValidationError, match="never asked"):
        BatchEndpoint(url="http://169.254.169.254/latest", allow_remote=True)


def test_the_example_in_the_docs_grades_as_it_says(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/graders.md").read_text()
    (example,) = (
        block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "type: batch_endpoint" in block
    )
    (source,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "lambda_handler" in block)
    config = BatchEndpoint.model_validate(yaml.safe_load(example)["grader"]).placed(tmp_path)
    Path(config.file).write_text(source)
    right, wrong = graded(config, pair("5", answer="5"), pair("six", answer="5"))
    assert (right.score, wrong.score) == (1.0, 0.0)
    assert (right.metrics, wrong.metrics) == ({"characters": 1.0}, {"characters": 3.0})
