"""Episodes in real worker processes: they stay put, survive their worker, and never bring down the run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sharpen.config.envs import PluginEnv, Tools
from sharpen.envs.base import Step
from sharpen.envs.pool import Call, EnvPool
from sharpen.errors import GraderError
from sharpen.types import ENVIRONMENT_ERROR, Example, Fault, Message

EXAMPLE = Example("e", ({"role": "user", "content": "go"},))
OBEY = "tests.envs.scripted:Obey"


def turn(text: str) -> Message:
    return {"role": "assistant", "content": text}


class Table:
    """Episodes side by side, as a stage plays them."""

    def __init__(self, pool: EnvPool, count: int) -> None:
        self.pool = pool
        self.calls = [Call((place,), place, EXAMPLE) for place in range(count)]

    def say(self, *texts: str | None) -> list[Step | Fault]:
        """Each episode's answer to its text; None opens it."""
        calls = [
            Call(call.key, call.place, EXAMPLE, turn(text) if text is not None else None, call.past)
            for call, text in zip(self.calls, texts, strict=True)
        ]
        answers = asyncio.run(self.pool.answer(calls))
        self.calls = [
            Call(call.key, call.place, EXAMPLE, past=(*call.past, (call.message, answer)))
            for call, answer in zip(calls, answers, strict=True)
            if isinstance(answer, Step)
        ]
        return answers


@pytest.fixture(scope="module")
def pool() -> Iterator[EnvPool]:
    with EnvPool(PluginEnv(use=OBEY, time_limit=0.5, args={"greeting": "hello"}), workers=1) as pool:
        yield pool


def content(answer: Step | Fault) -> Any:
    assert isinstance(answer, Step), answer
    return answer.messages[-1]["content"]


def test_episodes_keep_their_own_state_and_a_plugin_its_arguments(pool: EnvPool) -> None:
    table = Table(pool, 3)
    assert [content(answer) for answer in table.say(None, None, None)] == ["hello"] * 3
    assert table.say("ab", "aB", "A") == [
        Step(({"role": "user", "content": "heard 1"},), False, reward, {"heard": 1}) for reward in (1.0, 0.5, 0.0)
    ]
    assert [answer.done for answer in table.say("ab", "aB", "A") if isinstance(answer, Step)] == [True] * 3


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("raise", "KeyError: 'no such thing'"),
        ("sleep", "timed out after 0.5 s"),
        ("die", "exit status 3"),
        ("nonsense", "the role one of"),
        ("nan", "finite number"),
        ("silence", "must have messages"),
    ],
)
def test_a_fault_is_its_own_episodes_and_the_others_go_on_as_if_nothing_were(
    pool: EnvPool, order: str, said: str
) -> None:
    """Also where the worker they lived in had to be killed: they are repeated in another."""
    table = Table(pool, 3)
    table.say(None, None, None)
    one, fault, other = table.say("ab", order, "aB")
    assert isinstance(fault, Fault) and fault.kind == ENVIRONMENT_ERROR and said in fault.detail
    assert (content(one), content(other)) == ("heard 1", "heard 1")
    assert [content(answer) for answer in table.say("cd", "ef")] == ["heard 2"] * 2


def test_an_episode_that_cannot_be_repeated_is_a_fault_when_its_worker_is_lost(pool: EnvPool) -> None:
    table = Table(pool, 2)
    table.say(None, None)
    table.say("dice", "ab")
    opening = Step((*EXAMPLE.messages, {"role": "user", "content": "hello"}))
    (lost,) = asyncio.run(pool.answer([Call((7,), 0, EXAMPLE, turn("die"), ((None, opening),))]))
    assert isinstance(lost, Fault) and "exit status 3" in lost.detail
    dice, plain = table.say("ab", "ab")
    assert isinstance(dice, Fault) and "went otherwise" in dice.detail
    assert content(plain) == "heard 2"


@pytest.mark.parametrize(
    "config", [PluginEnv(use="tests.envs.scripted:Nowhere"), PluginEnv(use=OBEY, args={"x": 1}), Tools(use="no.such:t")]
)
def test_an_environment_that_cannot_be_built_is_said_at_the_start(config: Any) -> None:
    with EnvPool(config, workers=1) as pool, pytest.raises(GraderError, match="could not start"):
        asyncio.run(pool.start())


def test_two_workers_share_the_episodes() -> None:
    with EnvPool(PluginEnv(use=OBEY), workers=2) as pool:
        table = Table(pool, 4)
        table.say(*[None] * 4)
        processes = [str(content(answer)).split()[0] for answer in table.say(*["dice"] * 4)]
        assert processes[0] == processes[2] != processes[1] == processes[3]
        assert [content(answer) for answer in table.say(*["ab"] * 4)] == ["heard 2"] * 4, "each where it began"
