"""Row shapes: what each becomes, and what a wrong one is told."""

from __future__ import annotations

from typing import Any

import pytest

from sharpen.data import formats
from sharpen.data.read import Where
from sharpen.errors import DataError

WHERE = Where("some/rows.jsonl", 7)
SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "1+1="}
SAY = {"role": "assistant", "content": "2"}


def test_every_assistant_turn_of_a_chat_is_trained() -> None:
    row = formats.labelled({"messages": [SYSTEM, ASK, SAY, ASK, SAY]}, WHERE)
    assert row.messages == (SYSTEM, ASK, SAY, ASK, SAY)
    assert row.trained == (2, 4)
    assert row.prompt == (SYSTEM, ASK)


def test_only_the_completion_of_a_prompt_is_trained() -> None:
    row = formats.labelled({"prompt": "1+1=", "completion": "2"}, WHERE)
    assert (row.messages, row.trained) == ((ASK, SAY), (1,))


def test_assistant_turns_inside_a_prompt_are_not_trained() -> None:
    record = {"prompt": [SYSTEM, ASK, SAY, ASK], "completion": [SAY, ASK, SAY]}
    row = formats.labelled(record, WHERE)
    assert row.messages == (SYSTEM, ASK, SAY, ASK, SAY, ASK, SAY)
    assert row.trained == (4, 6)


def test_the_other_fields_of_an_rft_row_are_its_item() -> None:
    row = formats.example({"messages": [SYSTEM, ASK], "answer": 2, "meta": {"a": [1]}}, WHERE)
    assert row.messages == (SYSTEM, ASK)
    assert row.item == {"answer": 2, "meta": {"a": [1]}}
    assert formats.example({"prompt": "1+1=", "completion": "2"}, WHERE).item == {"completion": "2"}
    assert formats.example({"prompt": [SYSTEM]}, WHERE).messages == (SYSTEM,)


@pytest.mark.parametrize(
    ("own", "expected"), [("a", "a"), (3, "3"), (0, "0"), (True, "rows:7"), ("", "rows:7"), (1.5, "rows:7")]
)
def test_a_row_is_called_by_its_own_id_or_its_line(own: object, expected: str) -> None:
    assert formats.example({"prompt": "x", "id": own}, WHERE).id == expected
    assert formats.labelled({"prompt": "x", "completion": "y", "id": own}, WHERE).id == expected


def test_null_keys_of_a_message_are_as_absent() -> None:
    row = formats.labelled({"messages": [ASK, {**SAY, "tool_calls": None}], "tools": None}, WHERE)
    assert row.messages == (ASK, SAY)


LABELLED_FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown shape": ({"question": "x", "answer": "y"}, "", "its keys are ['answer', 'question']"),
    "RFT row": ({"prompt": "x", "answer": "y"}, "", "its keys are ['answer', 'prompt']"),
    "RFT chat": ({"messages": [ASK], "answer": "y"}, "messages", "does not end with an assistant turn"),
    "two shapes": ({"messages": [ASK, SAY], "prompt": "x"}, "", "its keys are ['messages', 'prompt']"),
    "no list": ({"messages": "hi"}, "messages", "not a list of messages"),
    "empty list": ({"messages": []}, "messages", "not a list of messages"),
    "no message": ({"messages": ["hi"]}, "messages.0", "not a message"),
    "unknown role": ({"messages": [{"role": "human", "content": "x"}]}, "messages.0.role", "unknown role"),
    "no role": ({"messages": [{"content": "x"}]}, "messages.0.role", "unknown role"),
    "list as role": ({"messages": [{"role": [], "content": "x"}]}, "messages.0.role", "unknown role"),
    "no content": ({"messages": [ASK, {"role": "assistant"}]}, "messages.1.content", "has no content"),
    "empty answer": ({"messages": [ASK, {**SAY, "content": " \n"}]}, "messages.1.content", "empty assistant"),
    "empty question": ({"prompt": "", "completion": "x"}, "prompt", "empty user turn"),
    "empty completion": ({"prompt": "x", "completion": ""}, "completion", "empty assistant turn"),
    "parts": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, SAY]},
        "messages.0.content",
        "content in parts",
    ),
    "number": ({"messages": [ASK, {**SAY, "content": 2}]}, "messages.1.content", "content is not text"),
    "number as prompt": ({"prompt": 2, "completion": "x"}, "prompt", "not a list of messages"),
    "tool calls": ({"messages": [ASK, {**SAY, "tool_calls": [1]}]}, "messages.1.tool_calls", "'tool_calls'"),
    "weight": ({"messages": [ASK, {**SAY, "weight": 0}]}, "messages.1.weight", "'weight'"),
    "tools": ({"messages": [ASK, SAY], "tools": [{}]}, "tools", "rows with tools"),
    "late system": ({"messages": [ASK, SYSTEM, SAY]}, "", "turn 1 should be assistant"),
    "two systems": ({"messages": [SYSTEM, SYSTEM, ASK, SAY]}, "", "turn 1 should be user"),
    "two users": ({"messages": [ASK, ASK, SAY]}, "", "turn 1 should be assistant"),
    "assistant first": ({"messages": [SAY]}, "", "turn 0 should be user"),
    "completion by the user": ({"prompt": "x", "completion": [ASK, SAY]}, "completion.0.role", "must begin"),
    "completion left open": ({"prompt": "x", "completion": [SAY, ASK]}, "completion", "does not end"),
    "prompt ends with assistant": ({"prompt": [ASK, SAY], "completion": "x"}, "", "roles out of order"),
}


@pytest.mark.parametrize("name", LABELLED_FAULTS)
def test_a_row_that_cannot_be_imitated_is_told_why(name: str) -> None:
    record, field, fact = LABELLED_FAULTS[name]
    with pytest.raises(DataError) as caught:
        formats.labelled(record, WHERE)
    error = caught.value
    assert (error.file, error.line, error.field) == ("some/rows.jsonl", 7, field)
    assert fact in error.fact
    assert error.remedy


EXAMPLE_FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown shape": ({"text": "x"}, "", "its keys are ['text']"),
    "two shapes": ({"messages": [ASK], "prompt": "x"}, "", "its keys are ['messages', 'prompt']"),
    "SFT row": ({"messages": [ASK, SAY]}, "messages.1.role", "as rows for SFT do"),
    "SFT prompt": ({"prompt": [ASK, SAY]}, "prompt.1.role", "as rows for SFT do"),
    "tools": ({"prompt": "x", "tools": [{}]}, "tools", "rows with tools"),
    "two users": ({"messages": [ASK, ASK]}, "", "turn 1 should be assistant"),
}


@pytest.mark.parametrize("name", EXAMPLE_FAULTS)
def test_a_row_without_an_open_prompt_is_told_why(name: str) -> None:
    record, field, fact = EXAMPLE_FAULTS[name]
    with pytest.raises(DataError) as caught:
        formats.example(record, WHERE)
    assert (caught.value.field, caught.value.line) == (field, 7)
    assert fact in caught.value.fact
    assert caught.value.remedy


def test_a_shape_fault_says_which_shapes_are_read() -> None:
    with pytest.raises(DataError, match=r'SFT reads \{"messages"'):
        formats.labelled({"text": "x"}, WHERE)
    with pytest.raises(DataError, match=r'RFT reads \{"messages"'):
        formats.example({"messages": [ASK, SAY]}, WHERE)
