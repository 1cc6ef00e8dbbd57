"""Tools: what the model writes becomes a call, and what it gets wrong is told to it."""

from __future__ import annotations

import asyncio
import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.completion import parse_call
from sharpen.config.envs import Tools
from sharpen.envs.base import Step, ToolError
from sharpen.envs.calculator import BITS, calculator
from sharpen.envs.tools import ToolEnv, schema
from sharpen.errors import ConfigError
from sharpen.types import Example, Message
from tests.envs.scripted import look_up

HERE = "tests.envs.scripted"
ASKED: tuple[Message, ...] = ({"role": "user", "content": "2+2?"},)


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def steps(*texts: str, use: str = f"{HERE}:TOOLS", **settings: Any) -> list[Step]:
    """What one episode answers to these turns."""

    async def episode() -> list[Step]:
        opened = await ToolEnv(Tools(use=use, **settings)).open(Example("e", ASKED))
        return [await opened.step({"role": "assistant", "content": text}) for text in texts]

    return asyncio.run(episode())


def answer(text: str, **settings: Any) -> str:
    """The one reply to a turn."""
    ((message,),) = (step.messages for step in steps(text, **settings))
    return str(message["content"])


def test_a_call_is_answered_and_a_turn_without_one_ends_the_episode() -> None:
    called, ended = steps("Let me see. " + call("calculator", expression="(3+4)*2"), "14", use="calculator")
    assert called == Step([{"role": "tool", "name": "calculator", "content": "14"}], state={"calls": 1, "errors": 0})
    assert ended == Step(done=True, state={"calls": 1, "errors": 0})


def test_every_call_of_a_turn_is_answered_in_order() -> None:
    (step,) = steps(call("look_up", key="a") + "\n" + call("later", text="hi") + call("look_up", key="a", times=2))
    assert [message["content"] for message in step.messages] == ['{"found": "1"}', "hi!", '{"found": "11"}']


def test_a_call_only_thought_of_is_none() -> None:
    (step,) = steps(f"<think>maybe {call('look_up', key='a')}</think>It is 1")
    assert step.done


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<tool_call>look_up(a)</tool_call>", "not JSON"),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", "not JSON"),
        ('<tool_call>{"name": "look_up"}</tool_call>', 'must be {"name"'),
        ('<tool_call>{"name": "look_up", "arguments": "a"}</tool_call>', 'must be {"name"'),
        ('<tool_call>{"name": "look_up", "argum', "not JSON"),
        (call("look"), "no tool 'look'; the tools are look_up, later"),
        (call("look_up"), "look_up: missing a required argument: 'key'"),
        (call("look_up", key="a", depth=1), "unexpected keyword argument 'depth'"),
        (call("look_up", key=1), 'key must be of {"type": "string"}'),
        (call("look_up", key="a", times=True), 'times must be of {"type": "integer"}'),
        (call("look_up", key="secret"), "that is secret"),
    ],
)
def test_mistakes_of_the_model_are_told_to_it_and_counted(text: str, said: str) -> None:
    (step,) = steps(text)
    (message,) = step.messages
    assert message["role"] == "tool" and message["content"].startswith("error: ") and said in message["content"]
    assert step.state == {"calls": 1, "errors": 1} and not step.done


def test_any_other_exception_in_a_tool_is_no_mistake_of_the_model() -> None:
    with pytest.raises(KeyError):
        steps(call("look_up", key="b"))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.booleans())
def test_no_text_of_the_model_raises_anything(text: str, close: bool) -> None:
    (step,) = steps(f"<tool_call>{text}{'</tool_call>' if close else ''}", use="calculator")
    assert not step.done or "</think>" in text


def test_a_long_answer_is_cut_and_the_cut_is_told() -> None:
    text = call("look_up", key="a", times=100)
    assert answer(text, max_reply=20) == '{"found": "111111111 … [93 more characters]'
    assert len(answer(text)) == 113


def test_templates_without_tool_turns_get_a_users() -> None:
    (step,) = steps(call("later", text="hi"), reply_role="user")
    assert list(step.messages) == [{"role": "user", "content": "<tool_response>\nhi!\n</tool_response>"}]


def opening(messages: tuple[Message, ...] = ASKED, **settings: Any) -> tuple[Message, ...]:
    env = ToolEnv(Tools(use=f"{HERE}:TOOLS", **settings))
    return asyncio.run(env.open(Example("e", messages))).messages


def test_the_tools_are_described_in_the_system_message() -> None:
    system, asked = opening()
    assert system["role"] == "system" and asked == ASKED[0]
    described = [json.loads(line) for line in system["content"].splitlines() if line.startswith('{"type": "function"')]
    assert [entry["function"]["name"] for entry in described] == ["look_up", "later"]
    own, _ = opening(({"role": "system", "content": "Be brief."}, *ASKED))
    assert own["content"] == f"Be brief.\n\n{system['content']}"
    assert opening(announce=False) == ASKED


def test_a_function_is_described_by_its_name_docstring_and_annotations() -> None:
    assert schema(look_up) == {
        "name": "look_up",
        "description": "Find what is written under a key.",
        "parameters": {
            "type": "object",
            "properties": {"key": {"type": "string"}, "times": {"type": "integer"}},
            "required": ["key"],
        },
    }


def test_a_call_with_other_keys_beside_is_read() -> None:
    assert parse_call('{"id": 1, "name": "f", "arguments": {}}') == ("f", {})


@pytest.mark.parametrize("use", [f"{HERE}:NO_TOOLS", f"{HERE}:STEPS"])
def test_what_is_no_toolset_is_refused(use: str) -> None:
    with pytest.raises(ConfigError, match="not a toolset"):
        ToolEnv(Tools(use=use))


EXPRESSIONS = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda parts: f"({' '.join(parts)})"),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS)
def test_the_calculator_agrees_with_python(expression: str) -> None:
    assert calculator(expression) == str(eval(expression))


@pytest.mark.parametrize(
    ("expression", "value"),
    [("7 / 2", "3.5"), ("7 // 2", "3"), ("-7 % 3", "2"), ("2 ** -1", "0.5"), (" 1.5e3", "1500"), ("0.1 + 0.2", "0.3")],
)
def test_the_calculator_by_hand(expression: str, value: str) -> None:
    assert calculator(expression) == value
    assert Fraction(value) == Fraction(str(round(eval(expression.strip()), 12)))


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("1/0", "zero"),
        ("2 ** 99999999", "too large"),
        ("9 ** 9 ** 9", "too large"),
        ("1e308 * 10", "too large"),
        (f"2 ** {BITS}", "too large"),
        ("(-8) ** 0.5", "no real number"),
        ("1" * 201, "longer than"),
        ("__import__('os')", "not an arithmetic expression"),
        ("'a' * 3", "not an arithmetic expression"),
        ("True + 1", "not an arithmetic expression"),
        ("1; 2", "not an arithmetic expression"),
        ("1 +", "not an arithmetic expression"),
        ("\0", "not an arithmetic expression"),
        ("", "not an arithmetic expression"),
    ],
)
def test_the_calculator_refuses_in_words(expression: str, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        calculator(expression)
