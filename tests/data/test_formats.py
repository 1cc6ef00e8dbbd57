"""Row shapes: what each becomes, and what a wrong one is told."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sharpen.data import formats
from sharpen.data.formats.columns import rename
from sharpen.data.read import Where
from sharpen.errors import DataError
from sharpen.types import Preference

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


CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}

LABELLED_FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown shape": ({"question": "x", "answer": "y"}, "", "its keys are ['answer', 'question']"),
    "RFT row": ({"prompt": "x", "answer": "y"}, "", "its keys are ['answer', 'prompt']"),
    "RFT chat": ({"messages": [ASK], "answer": "y"}, "messages", "does not end with an assistant turn"),
    "two shapes": (
        {"messages": [ASK, SAY], "prompt": "x", "completion": "y"},
        "",
        "several shapes (prompt-completion, chat)",
    ),
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
    "no tool call": ({"messages": [ASK, {**SAY, "tool_calls": [1]}]}, "messages.1.tool_calls.0", "not a tool call"),
    "arguments": (
        {"messages": [ASK, {**SAY, "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}]},
        "messages.1.tool_calls.0.function.arguments",
        "arguments are not an object",
    ),
    "broken arguments": (
        {"messages": [ASK, {**SAY, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        "messages.1.tool_calls.0.function.arguments",
        "not JSON",
    ),
    "weight": ({"messages": [ASK, {**SAY, "weight": 0.5}]}, "messages.1.weight", "a weight is 0 or 1"),
    "all weights 0": ({"messages": [ASK, {**SAY, "weight": 0}]}, "messages", "every assistant turn has weight 0"),
    "weight of a user": ({"messages": [{**ASK, "weight": 1}, SAY]}, "messages.0.weight", "user messages with 'weight'"),
    "unknown key": ({"messages": [ASK, {**SAY, "audio": {}}]}, "messages.1.audio", "assistant messages with 'audio'"),
    "reasoning": ({"messages": [ASK, {**SAY, "reasoning_content": 1}]}, "messages.1.reasoning_content", "not text"),
    "no tool": ({"messages": [ASK, SAY], "tools": [{}]}, "tools.0", "not a tool"),
    "no tools": ({"messages": [ASK, SAY], "tools": "weather"}, "tools", "not a list of tools"),
    "tool without a call": (
        {"messages": [ASK, {"role": "tool", "content": "x"}, SAY]},
        "messages",
        "turn 1 should be assistant",
    ),
    "call without an answer": ({"messages": [ASK, CALL, ASK, SAY]}, "messages", "turn 2 should be tool"),
    "ends with a call's answer": (
        {"messages": [ASK, CALL, {"role": "tool", "content": "x"}]},
        "messages",
        "not end with",
    ),
    "messages as strange JSON": (
        {"messages": '[{"role": "user", "content": NaN}]'},
        "messages.0.content",
        "not a finite",
    ),
    "messages as broken JSON": ({"messages": "[{"}, "messages", "not JSON"),
    "preference": (
        {"prompt": "x", "chosen": "a", "rejected": "b"},
        "",
        "preference rows (keys chosen, prompt, rejected)",
    ),
    "KTO": ({"prompt": "x", "completion": "y", "label": False}, "", "KTO rows"),
    "empty text": ({"text": " "}, "text", "not a text, or an empty one"),
    "Alpaca's output": ({"instruction": "x", "output": 3}, "output", "output is not text"),
    "ShareGPT's speaker": (
        {"conversations": [{"from": "narrator", "value": "x"}]},
        "conversations.0.from",
        "unknown speaker",
    ),
    "ShareGPT's list": ({"conversations": "x"}, "conversations", "not a list of turns"),
    "Vertex's parts": ({"contents": [{"role": "user", "parts": "x"}]}, "contents.0", "not a content"),
    "Vertex's image": (
        {"contents": [{"role": "user", "parts": [{"fileData": {}}]}, {"role": "model", "parts": [{"text": "x"}]}]},
        "contents.0.content",
        "content in parts",
    ),
    "Bedrock's version": ({"schemaVersion": "2", "messages": [ASK, SAY]}, "schemaVersion", "unknown schemaVersion"),
    "late system": ({"messages": [ASK, SYSTEM, SAY]}, "messages", "turn 1 should be assistant"),
    "two systems": ({"messages": [SYSTEM, SYSTEM, ASK, SAY]}, "messages", "turn 1 should be user"),
    "two users": ({"messages": [ASK, ASK, SAY]}, "messages", "turn 1 should be assistant"),
    "assistant first": ({"messages": [SAY]}, "messages", "turn 0 should be user"),
    "completion by the user": ({"prompt": "x", "completion": [ASK, SAY]}, "completion.0.role", "must begin"),
    "completion left open": ({"prompt": "x", "completion": [SAY, ASK]}, "completion", "does not end"),
    "prompt out of order": ({"prompt": [ASK, ASK], "completion": "x"}, "prompt", "turn 1 should be assistant"),
    "completion is null": ({"prompt": "x", "completion": None, "note": None}, "completion", "completion is null"),
    "prompt ends with assistant": ({"prompt": [ASK, SAY], "completion": "x"}, "completion", "roles out of order"),
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
    "messages are null": ({"messages": None, "answer": 1}, "messages", "messages is null"),
    "two shapes": ({"messages": [ASK], "prompt": "x"}, "", "several shapes (chat, prompt)"),
    "SFT row": ({"messages": [ASK, SAY]}, "messages.1.role", "as rows for SFT do"),
    "SFT prompt": ({"prompt": [ASK, SAY]}, "prompt.1.role", "as rows for SFT do"),
    "no tool": ({"prompt": "x", "tools": [{}]}, "tools.0", "not a tool"),
    "two users": ({"messages": [ASK, ASK]}, "messages", "turn 1 should be assistant"),
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
        formats.labelled({"a": "x"}, WHERE)
    with pytest.raises(DataError, match=r'RFT reads \{"messages"'):
        formats.example({"messages": [ASK, SAY]}, WHERE)


PREFERENCE_FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "chat row": ({"messages": [ASK, SAY]}, "", "chat rows say nothing of better and worse"),
    "unknown": ({"a": 1}, "", "its keys are ['a']"),
    "the same twice": ({"prompt": "x", "chosen": "a", "rejected": "a"}, "", "chosen and rejected are the same"),
    "text without a prompt": ({"chosen": "a", "rejected": "b"}, "chosen", "text without a prompt"),
    "no common prompt": ({"chosen": [ASK, SAY], "rejected": [SAY]}, "rejected.0", "no common prompt"),
    "nothing rejected": ({"chosen": [ASK, SAY], "rejected": [ASK]}, "rejected", "nothing is left of rejected"),
    "answer by the user": (
        {"prompt": "x", "chosen": [ASK], "rejected": "b"},
        "chosen.0.role",
        "must begin with an assistant",
    ),
    "OpenAI's input out of order": (
        {"input": {"messages": [SAY]}, "preferred_output": [SAY], "non_preferred_output": [{**SAY, "content": "n"}]},
        "input.messages",
        "turn 0 should be user",
    ),
    "answer out of order": (
        {"prompt": "x", "chosen": "a", "rejected": [SAY, SAY]},
        "rejected",
        "turn 2 should be user",
    ),
    "input": ({"input": "x", "preferred_output": [SAY], "non_preferred_output": [SAY]}, "input", "not an input"),
}


@pytest.mark.parametrize("name", PREFERENCE_FAULTS)
def test_a_row_without_two_answers_is_told_why(name: str) -> None:
    record, field, fact = PREFERENCE_FAULTS[name]
    with pytest.raises(DataError) as caught:
        formats.preference(record, WHERE)
    assert (caught.value.field, caught.value.line) == (field, 7)
    assert fact in caught.value.fact and caught.value.remedy


def test_answers_may_repeat_the_prompt() -> None:
    other = {"role": "assistant", "content": "3"}
    row = formats.preference({"prompt": [ASK], "chosen": [ASK, SAY], "rejected": [ASK, other]}, WHERE)
    assert row == Preference("rows:7", (ASK,), (SAY,), (other,))


def test_extra_columns_do_not_hide_a_shape() -> None:
    """As in UltraChat (`prompt` beside `messages`), Alpaca (`text`) and UltraFeedback (`messages` beside the pair)."""
    assert formats.labelled({"messages": [ASK, SAY], "prompt": "x", "prompt_id": "y"}, WHERE).trained == (1,)
    assert formats.labelled({"instruction": "a", "input": "", "output": "b", "text": "a b"}, WHERE).text == ""
    pair = {"prompt": "x", "chosen": "a", "rejected": "b", "messages": [ASK, SAY]}
    assert isinstance(formats.preference(pair, WHERE), Preference)
    assert formats.labelled(pair, WHERE).messages == (ASK, SAY)


def test_the_remedy_for_preference_rows_works() -> None:
    row = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}
    told = r"for a dpo stage, not sft\. Make the stage `type: dpo`\..*`columns: \{completion: chosen\}`"
    with pytest.raises(DataError, match=told):
        formats.labelled(row, WHERE)
    assert formats.labelled(rename(row, {"completion": "chosen"}, WHERE), WHERE).messages == (ASK, SAY)


@pytest.mark.parametrize(
    ("record", "purpose", "mapping"),
    [
        ({"question": "x", "answer": "y"}, "sft", "{prompt: question, completion: answer}"),
        ({"Question": "x", "model_answer": "y", "n": 1}, "sft", "{prompt: Question, completion: model_answer}"),
        ({"prompt": "x", "response": "y"}, "sft", "{completion: response}"),
        ({"dialog": [ASK, SAY]}, "sft", "{messages: dialog}"),
        ({"document": "x", "url": "y"}, "sft", "{text: document}"),
        ({"question": "x", "answer": "y"}, "rft", "{prompt: question}"),
        ({"query": "x", "better": "y", "worse": "z"}, "dpo", "{prompt: query, chosen: better, rejected: worse}"),
    ],
)
def test_unmapped_columns_are_answered_with_a_mapping_that_works(
    record: dict[str, Any], purpose: str, mapping: str
) -> None:
    read: Any = {"sft": formats.labelled, "rft": formats.example, "dpo": formats.preference}[purpose]
    with pytest.raises(DataError) as caught:
        read(record, WHERE)
    assert f"Add `columns: {mapping}` to this data" in caught.value.remedy
    assert read(rename(record, yaml.safe_load(mapping), WHERE), WHERE)


def test_columns_without_meaning_get_no_mapping() -> None:
    with pytest.raises(DataError) as caught:
        formats.labelled({"a": "x", "b": "y"}, WHERE)
    assert "columns:" not in caught.value.remedy


def test_a_mapping_must_fit_the_row() -> None:
    row = {"question": "x", "prompt": "y"}
    with pytest.raises(
        DataError, match=r"no column 'q', which `columns` maps to 'prompt'; the row has \['prompt', 'que"
    ):
        rename(row, {"prompt": "q"}, WHERE)
    with pytest.raises(DataError, match="the row has 'prompt' already"):
        rename(row, {"prompt": "question"}, WHERE)
    assert rename(row, {"prompt": "question", "old_prompt": "prompt"}, WHERE) == {"prompt": "x", "old_prompt": "y"}
    assert rename(row, {"prompt": "question", "question": "prompt"}, WHERE) == {"prompt": "x", "question": "y"}


def test_prompts_are_the_same_whatever_a_row_is_read_for() -> None:
    both = {"prompt": "1+1=", "completion": "2", "label": True}
    talk = {"messages": [SYSTEM, ASK, SAY, ASK, SAY]}
    for purpose in ("sft", "rft", "dpo"):
        assert formats.prompts(both, WHERE, purpose) == ((ASK,),)
    assert formats.prompts(talk, WHERE, "sft") == ((SYSTEM, ASK), (SYSTEM, ASK, SAY, ASK))
    assert formats.prompts({"messages": [ASK]}, WHERE, "rft") == ((ASK,),)
    with pytest.raises(DataError, match="RFT reads"):
        formats.prompts({"a": 1}, WHERE, "rft")
