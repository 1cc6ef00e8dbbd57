"""What is shown of a completion as it comes is, put together, what is said of it as a whole."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.completion import CHANNELS, TAGS, Thinking, output_tools, part
from sharpen.server.worker.speech import Said, Speech


def decode(tokens: Sequence[int]) -> str:
    """Tokens are bytes here, so that characters are split as unkindly as can be."""
    return bytes(tokens).decode("utf-8", "replace")


def spoken(text: str | bytes, marks: Thinking | None = None, stops: tuple[str, ...] = (), tools: bool = False) -> Said:
    speech = Speech(decode, marks, False, stops, tools)
    whole = Said()
    for byte in text.encode() if isinstance(text, str) else text:
        said = speech.feed(byte, {"token": byte})
        assert "\N{REPLACEMENT CHARACTER}" not in said.words
        _add(whole, said)
        if speech.stopped:
            break
    _add(whole, speech.end())
    return whole


def _add(whole: Said, said: Said) -> None:
    whole.words += said.words
    whole.thoughts += said.thoughts
    whole.calls += said.calls
    whole.entries += said.entries


@given(st.text(max_size=40))
@settings(deadline=None)
def test_characters_come_whole(text: str) -> None:
    assert spoken(text.replace("\N{REPLACEMENT CHARACTER}", "")).words == text.replace("\N{REPLACEMENT CHARACTER}", "")


def test_bytes_that_are_no_text_are_not_lost() -> None:
    speech = Speech(decode, None, False, (), False)
    raw = b"a\xff\xfe\xfd" * 20 + "é".encode()
    shown = "".join(speech.feed(byte).words for byte in raw) + speech.end().words
    assert shown.startswith("a") and shown.endswith("é") and shown.count("a") == 20


@given(st.text("ab\n", max_size=30), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
@settings(deadline=None)
def test_nothing_of_the_first_stop_string_is_shown(text: str, stops: list[str]) -> None:
    said = spoken(text, stops=tuple(stops))
    ends = [text.find(stop) for stop in stops if stop in text]
    # a stop string that is complete first ends the text, though a longer one began before it
    shown = text
    for end in range(len(text) + 1):
        found = [text[:end].find(stop) for stop in stops if stop in text[:end]]
        if found:
            shown = text[: min(found)]
            break
    assert said.words == shown and bool(ends) == (len(shown) < len(text))
    assert len(said.entries) == len(said.words)


@given(st.lists(st.sampled_from(["<think>", "</think>", "\n", " ", "a", "é", "<th", "</t"]), max_size=9).map("".join))
@settings(deadline=None, max_examples=300)
def test_thoughts_and_answer_are_those_of_the_whole_text(text: str) -> None:
    whole = part(text, TAGS)
    said = spoken(text, TAGS)
    assert (said.thoughts, said.words) == (whole.reasoning, whole.answer)


@pytest.mark.parametrize(
    "text",
    [
        "<|channel|>analysis<|message|>so it is<|end|><|start|>assistant<|channel|>final<|message|>Four.",
        "<|channel|>final<|message|>Four.",
        "Four.",
        "<|channel|>analysis<|message|>endless",
    ],
)
def test_channels_are_parted_as_tags_are(text: str) -> None:
    whole = part(text, CHANNELS)
    said = spoken(text, CHANNELS)
    assert (said.thoughts, said.words) == (whole.reasoning, whole.answer)


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "é"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CALL, ""),
        (f"Let me see.\n\n{CALL}\n{CALL}", "Let me see."),
        (f"{CALL[:-12]}", ""),  # the end token came instead of the closing mark
        ("<tool_call>no JSON</tool_call> so", "<tool_call>no JSON</tool_call> so"),
        ("a < b <tool", "a < b <tool"),
        (f"x {CALL} y", "x y"),
    ],
)
def test_calls_are_those_of_the_whole_text(text: str, words: str) -> None:
    said = spoken(text, tools=True)
    assert said.words == words
    assert [call["function"] for call in said.calls] == [call["function"] for call in output_tools(text)]
    assert [call["index"] for call in said.calls] == list(range(len(said.calls)))
    for call in said.calls:
        assert json.loads(call["function"]["arguments"]) == {"a": 1, "b": "é"}


def test_without_tools_a_call_is_text() -> None:
    assert spoken(CALL).words == CALL


def test_log_probabilities_belong_to_the_answer_alone() -> None:
    said = spoken("<think>hm</think>\n\nyes", TAGS)
    assert bytes(entry["token"] for entry in said.entries[-3:]) == b"yes"
    assert not any(chr(entry["token"]) in "hm" for entry in said.entries)


def test_text_is_shown_as_soon_as_it_is_certain() -> None:
    speech = Speech(decode, None, False, ("STOP",), True)
    shown = [speech.feed(byte).words for byte in b"abSc"]
    assert shown == ["a", "b", "", "Sc"]
