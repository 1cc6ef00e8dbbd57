"""Answers are bought once, written down as they arrive with what they took, and not bought beyond a budget."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharpen.client import http
from sharpen.config.graders import Multi, ScoreModel, SingleGrader
from sharpen.graders.pool import GraderPool
from sharpen.guards.faults import FaultGuard
from sharpen.runs.ledger import Ledger, Spent
from sharpen.runs.store import read_lines
from sharpen.types import BUDGET_SPENT, Example, Grade, Sample
from tests.client.fake import Behaviour, Fake, Request, by, judged_by_content, reply, says, scores, verdict

ASKED = [{"role": "user", "content": "How good is {{ sample.output_text }}, which should be {{ item.answer }}?"}]
PRICE = {"input": 2.0, "output": 10.0}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(http, "FIRST_WAIT", 0.005)
    yield


def judge(server: Fake, **settings: Any) -> ScoreModel:
    return ScoreModel.model_validate({"input": ASKED, "model": "m", "base_url": server.url, **settings})


def asked(config: SingleGrader | Multi, ledger: Ledger, *texts: str, item: dict[str, Any] | None = None) -> list[Grade]:
    pairs = [(Example("e", (), {"answer": 7, **(item or {})}), Sample(text)) for text in texts]
    with GraderPool(config, ledger=ledger) as pool:
        return asyncio.run(pool.grade_many(pairs))


def costs(prompt: Any, completion: Any) -> Behaviour:
    """A score, and what it took."""
    return says(verdict(0.5), usage={"prompt_tokens": prompt, "completion_tokens": completion})


def spent(ledger: Ledger) -> Spent:
    (found,) = ledger.spent.values()
    return found


def test_equal_questions_are_asked_once_in_a_batch_and_never_again() -> None:
    ledger = Ledger()
    with Fake(otherwise=judged_by_content()) as server:
        first = asked(judge(server), ledger, "a", "b", "a", "a", "b")
        assert len(server.requests) == 2
        assert first[0] == first[2] == first[3] != first[1] == first[4]
        assert asked(judge(server), ledger, "b", "a", "c")[:2] == [first[1], first[0]]
        assert len(server.requests) == 3
        asked(judge(server), ledger, "a", item={"answer": 8})
        assert len(server.requests) == 4, "another reference makes another question"
        asked(judge(server), ledger, "a", item={"unused": 8})
        assert len(server.requests) == 4, "a field that the judge does not see makes none"


@pytest.mark.parametrize(
    ("change", "asks"),
    [
        ({"model": "n"}, True),
        ({"input": [{**ASKED[0], "content": "Rate {{ sample.output_text }} for {{ item.answer }}."}]}, True),
        ({"input": [{**ASKED[0], "role": "developer"}]}, True),
        ({"sampling_params": {"temperature": 0.5}}, True),
        ({"sampling_params": {"seed": 1}}, True),
        ({"range": [0, 2]}, True),
        ({"budget": {"tokens": 10**6}}, False),
        ({"price": PRICE}, False),
        ({"max_retries": 0}, False),
        ({"time_limit": 9.0}, False),
        ({"rate_limit": 6000}, False),
        ({"max_concurrent": 1}, False),
        ({"name": "other"}, False),
        ({"pass_threshold": 0.1}, False),
        ({"allow_remote": True}, False),
    ],
)
def test_what_may_change_the_answer_asks_anew_and_nothing_else_does(change: dict[str, Any], asks: bool) -> None:
    ledger = Ledger()
    with Fake() as server:
        asked(judge(server), ledger, "a")
        asked(judge(server, **change), ledger, "a")
        assert len(server.requests) == 1 + asks


def test_another_server_is_asked_anew() -> None:
    ledger = Ledger()
    with Fake(scores(0.25)) as one, Fake(scores(0.75)) as other:
        given = [asked(judge(server), ledger, "a")[0].score for server in (one, other)]
    assert given == [0.25, 0.75]


def test_what_was_no_verdict_is_asked_again() -> None:
    ledger = Ledger()
    with Fake(says("prose"), says(None, refusal="No."), scores(0.75)) as server:
        given = [asked(judge(server), ledger, "a")[0].score for _ in range(4)]
    assert given == [None, None, 0.75, 0.75]
    assert len(server.requests) == 3


def test_answers_are_written_down_as_they_arrive(tmp_path: Path) -> None:
    path = tmp_path / "judges.jsonl"
    seen: list[int] = []

    def look(request: Request) -> Behaviour:
        seen.append(len(read_lines(path)))
        return scores(0.5)

    with Fake(otherwise=by(look)) as server:
        asked(judge(server, max_concurrent=1), Ledger(path), "a", "b", "c")
    assert seen == [0, 1, 2]
    lines = read_lines(path)
    assert [line["answer"]["result"] for line in lines] == [0.5] * 3
    assert len({line["question"] for line in lines}) == 3
    assert {line["grader"] for line in lines} == {spent_by(path)}


def spent_by(path: Path) -> str:
    (name,) = Ledger(path).spent
    assert name.startswith("m@")
    return name


def test_the_ledger_survives_a_crash_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "judges.jsonl"
    with Fake(otherwise=judged_by_content()) as server:
        first = asked(judge(server), Ledger(path), "a", "b", "c")
        whole = path.read_bytes()
        for cut in (1, len(whole.splitlines()[-1]) // 2, len(whole.splitlines()[-1])):
            path.write_bytes(whole[:-cut])
            count = len(server.requests)
            assert asked(judge(server), Ledger(path), "a", "b", "c") == first
            assert len(server.requests) == count + 1, "the answer whose line is not whole is asked for again"
            assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_tokens_and_dollars_add_up(tmp_path: Path) -> None:
    path = tmp_path / "judges.jsonl"
    script = [costs(1000, 20), costs(500, 300), says("prose", usage={"prompt_tokens": 7, "completion_tokens": 3})]
    with Fake(*script) as server:
        asked(judge(server, price=PRICE, max_concurrent=1), Ledger(path), "a", "b", "c")
    found = spent(Ledger(path))
    assert (found.requests, found.tokens) == (3, 1000 + 20 + 500 + 300 + 10)
    assert found.usd == pytest.approx((1507 * 2 + 323 * 10) / 1e6)


@pytest.mark.parametrize(
    "usage",
    [
        *(None, {}, [], "many", {"prompt_tokens": 5}, {"prompt_tokens": "5", "completion_tokens": 5}),
        *({"prompt_tokens": True, "completion_tokens": 5}, {"prompt_tokens": -5, "completion_tokens": 5}),
        *({"prompt_tokens": 5.5, "completion_tokens": 5}, {"prompt_tokens": 10**400, "completion_tokens": 10**400}),
        {"prompt_tokens": 0, "completion_tokens": 0},
    ],
)
def test_where_a_server_does_not_tell_what_an_answer_took_its_length_is_counted(usage: Any) -> None:
    ledger = Ledger()
    with Fake(says(verdict(0.5), usage=usage)) as server:
        asked(judge(server, price=PRICE), ledger, "a" * 3000)
    assert 1000 < spent(ledger).tokens < 3000, "3000 characters, the notice and the question, three bytes a token"
    assert 0 < spent(ledger).usd < 1


def test_failed_requests_cost_nothing_and_a_budget_of_tokens_ends_the_asking() -> None:
    ledger = Ledger()
    with Fake(reply("{}", "500 Oh"), otherwise=costs(6, 4)) as server:
        config = judge(server, budget={"tokens": 25}, max_concurrent=1)
        given = asked(config, ledger, "a", "b", "c", "d", "e")
        assert [grade.score for grade in given] == [0.5, 0.5, 0.5, None, None]
        assert [grade.fault and grade.fault.kind for grade in given[3:]] == [BUDGET_SPENT] * 2
        assert "30 tokens are spent of 25" in given[3].explanation
        assert len(server.requests) == 4
        assert [grade.score for grade in asked(config, ledger, "a", "f")] == [0.5, None], "what is known stays known"
        assert len(server.requests) == 4
        raised = judge(server, budget={"tokens": 45}, max_concurrent=1)
        assert [grade.score for grade in asked(raised, ledger, "d", "e", "f")] == [0.5, 0.5, None]


def test_a_budget_of_dollars_ends_the_asking() -> None:
    with Fake(otherwise=costs(1000, 100)) as server:  # 0.003 US dollars
        config = judge(server, price=PRICE, budget={"usd": 0.005}, max_concurrent=1)
        given = asked(config, Ledger(), "a", "b", "c")
    assert [grade.score for grade in given] == [0.5, 0.5, None]
    assert "0.0060 US dollars are spent of 0.005" in given[2].explanation


def test_requests_under_way_are_the_most_that_goes_beyond_a_budget() -> None:
    with Fake(otherwise=costs(10, 0)) as server:
        given = asked(judge(server, budget={"tokens": 1}, max_concurrent=3), Ledger(), *"abcdefgh")
    assert len(server.requests) == 3
    assert [grade.score for grade in given] == [0.5] * 3 + [None] * 5


def test_the_guard_pauses_at_the_first_grade_that_a_budget_did_not_suffice_for() -> None:
    with Fake(otherwise=costs(10, 0)) as server:
        own = judge(server, budget={"tokens": 1}, max_concurrent=1).model_dump(mode="json")
        config = Multi.model_validate({"graders": {"own": own}, "calculate_output": "own"})
        given = asked(config, Ledger(), *["a"] * 99, "b")
    assert [grade.score for grade in given].count(None) == 1
    cause = FaultGuard(max_share=1.0, max_steps=1000).check(given)
    assert cause and "budget of a grader is used up" in cause and "own: 10 tokens are spent of 1" in cause


def test_a_question_asked_twice_on_purpose_leaves_its_first_answer_also_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "judges.jsonl"
    ledger = Ledger(path)
    with Fake(scores(0.25), scores(0.75), scores(1)) as server:
        assert asked(judge(server), ledger, "a")[0].score == 0.25
        with ledger.forgetful():
            assert asked(judge(server), ledger, "a")[0].score == 0.75
            assert asked(judge(server), ledger, "b")[0].score == 1.0
        for again in (ledger, Ledger(path)):
            assert [grade.score for grade in asked(judge(server), again, "a", "b")] == [0.25, 1.0]
    assert len(server.requests) == 3
    assert spent(Ledger(path)).requests == 3


def test_a_judge_whose_reasons_hold_half_a_character_is_written_down_too(tmp_path: Path) -> None:
    path = tmp_path / "judges.jsonl"
    with Fake(says(json.dumps({"steps": [{"description": "", "conclusion": "\ud800"}], "result": 1}))) as server:
        assert asked(judge(server), Ledger(path), "a\udfff")[0].score == 1.0
        assert asked(judge(server), Ledger(path), "a\udfff")[0].score == 1.0
    assert len(server.requests) == 1
