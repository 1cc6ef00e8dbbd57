"""The table of dataset shapes in docs/data.md, walked: every fixture it names is read, and means what is noted here."""

from __future__ import annotations

import contextlib
import random
import re
from pathlib import Path
from typing import Any

import pytest

from sharpen.config.data import FileData
from sharpen.data import files, formats, overlap
from sharpen.data.formats.shapes import SHAPES
from sharpen.data.source import read_examples, read_labelled, read_preferences
from sharpen.errors import DataError
from sharpen.types import Example, Labelled, Preference

FIXTURES = Path(__file__).parent / "fixtures"
DOCS = Path(__file__).parents[2] / "docs" / "data.md"


def table() -> list[tuple[str, str, str, str]]:
    """(shape, purpose of the shape, fixture, purpose of the fixture) for all fixtures of the documented table."""
    found = []
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 4 and "`" in cells[3]:
            for fixture, purposes in re.findall(r"`([\w.-]+)` \(([\w, ]+)\)", cells[3]):
                found += [(cells[0], cells[2], fixture, purpose) for purpose in purposes.split(", ")]
    return found


def read(fixture: str, purpose: str) -> list[Any]:
    door = {"sft": read_labelled, "rft": read_examples, "dpo": read_preferences}[purpose]
    return list(door(FileData(path=fixture), FIXTURES))


def told(row: Example | Labelled | Preference) -> list[str]:
    """What a row says in short: roles and texts, `*` where trained."""
    if isinstance(row, Labelled) and row.text:
        return [f"text*: {row.text}"]
    trained = row.trained if isinstance(row, Labelled) else ()
    lines = [f"{turn['role']}{'*' * (place in trained)}: {turn['content']}" for place, turn in enumerate(row.messages)]
    if isinstance(row, Preference):
        lines += [f"{name}: {turns[0]['content']}" for name, turns in (("+", row.chosen), ("-", row.rejected))]
    return lines


MEANING = {
    ("chat.jsonl", "sft"): [
        ["system: Be brief.", "user: 2+2=?", "assistant: 5", "user: Again.", "assistant*: 4"],
        ["user: Capital of France?", "assistant*: Paris"],
    ],
    ("chat-tools.jsonl", "sft"): [
        ["user: Is it warm in Rome?", "assistant*: ", "tool: 31 degrees", "assistant*: Yes, 31 degrees."]
    ],
    ("chat-reasoning.jsonl", "sft"): [["user: 17 + 25?", "assistant*: 42"]],
    ("chat.parquet", "sft"): [["user: 2+2=?", "assistant*: 4"], ["user: 3+3=?", "assistant*: 6"]],
    ("rft.jsonl", "rft"): [["system: Only the number.", "user: 2+2=?"], ["user: 3+3=?"]],
    ("rft-images.jsonl", "rft"): [
        [
            "user: [{'type': 'text', 'text': 'What is this?'},"
            " {'type': 'image_url', 'image_url': {'url': 'data:image/png;base64,AAAA'}}]"
        ]
    ],
    ("prompt-completion.jsonl", "sft"): [
        ["user: The sky is", "assistant*: blue"],
        ["system: Be brief.", "user: And grass?", "assistant*: green"],
    ],
    ("prompt-completion.jsonl", "rft"): [["user: The sky is"], ["system: Be brief.", "user: And grass?"]],
    ("prompt-completion.csv", "sft"): [
        ["user: 2+2=", "assistant*: 4"],
        ["user: Two lines,\nplease", "assistant*: one\ntwo"],
    ],
    ("prompt-completion.csv", "rft"): [["user: 2+2="], ["user: Two lines,\nplease"]],
    ("prompt-completion.tsv", "sft"): [["user: 2+2=", "assistant*: 4"]],
    ("prompt-completion.tsv", "rft"): [["user: 2+2="]],
    ("alpaca.json", "sft"): [
        ["user: Translate to French.\n\ncat", "assistant*: chat"],
        ["system: One word.", "user: Name a colour.", "assistant*: red"],
    ],
    ("alpaca.json", "rft"): [
        ["user: Translate to French.\n\ncat"],
        ["system: One word.", "user: Name a colour."],
    ],
    ("sharegpt.jsonl", "sft"): [
        ["system: Be kind.", "user: Hi", "assistant*: Hello!"],
        ["system: Use tools.", "user: Rome?", "assistant*: ", "tool: 31", "assistant*: Warm."],
    ],
    ("text.jsonl", "sft"): [["text*: Once upon a time, there was a fox."]],
    ("vertex.jsonl", "sft"): [["system: Be brief.", "user: 2+2=?", "assistant*: 4"]],
    ("bedrock.jsonl", "sft"): [["system: Be brief.", "user: 2+2=?", "assistant*: 4"]],
    ("preference.jsonl", "dpo"): [["user: 2+2=?", "+: 4", "-: 5"], ["user: Hi", "+: Hello!", "-: What?"]],
    ("preference-implicit.jsonl", "dpo"): [["user: 2+2=?", "+: 4", "-: 5"]],
    ("preference-openai.jsonl", "dpo"): [["user: 2+2=?", "+: 4", "-: 5"]],
    ("kto.jsonl", "dpo"): [["user: 2+2=?", "assistant*: 4"], ["user: 2+2=?", "assistant*: 5"]],
}


def test_every_shape_and_every_fixture_stands_in_the_table() -> None:
    rows = table()
    assert {shape for shape, *_ in rows} == {shape.name for shape in SHAPES} - {"Alpaca prompt"}
    assert {fixture for *_, fixture, _ in rows} == {path.name for path in FIXTURES.iterdir()}
    assert {(fixture, purpose) for *_, fixture, purpose in rows} == set(MEANING)
    for shape in SHAPES:
        stated = {purposes for name, purposes, *_ in rows if name == shape.name.removesuffix(" prompt")}
        assert all(purpose in " ".join(stated) for purpose in shape.purposes), shape.name


@pytest.mark.parametrize(("fixture", "purpose"), list(dict.fromkeys((row[2], row[3]) for row in table())))
def test_a_documented_fixture_means_what_it_should(fixture: str, purpose: str) -> None:
    assert [told(row) for row in read(fixture, purpose)] == MEANING[fixture, purpose]


def test_calls_and_tools_come_in_openais_form_from_every_shape() -> None:
    chat, sharegpt = read("chat-tools.jsonl", "sft")[0], read("sharegpt.jsonl", "sft")[1]
    for row, place in ((chat, 1), (sharegpt, 2)):
        (call,) = row.messages[place]["tool_calls"]
        assert call["function"] == {"name": "weather", "arguments": {"city": "Rome"}}
        assert row.tools[0]["type"] == "function" and row.tools[0]["function"]["name"] == "weather"
    assert chat.messages[1]["tool_calls"][0]["id"] == chat.messages[2]["tool_call_id"] == "c1"


def test_what_stands_beside_a_prompt_is_its_item() -> None:
    assert [row.item for row in read("rft.jsonl", "rft")] == [{"answer": 4}, {"answer": 6, "id": "six"}]
    assert read("alpaca.json", "rft")[0].item == {"output": "chat"}
    assert read("prompt-completion.tsv", "rft")[0].item == {"completion": "4"}


def test_labels_and_reasoning_are_kept() -> None:
    assert [row.desirable for row in read("kto.jsonl", "dpo")] == [True, False]
    assert read("chat-reasoning.jsonl", "sft")[0].messages[1]["reasoning_content"].startswith("17 + 20")
    assert all("weight" not in turn for turn in read("chat.jsonl", "sft")[0].messages)


ODD: list[Any] = [None, True, 0, 1.5, "", " ", "x", "[", "{}", [], {}, [None], [[]], [{}], {"role": []}, {"a": {}}]


def mutated(value: Any, draw: random.Random) -> Any:
    """The value with one place of it, at whatever depth, replaced by something odd or taken away."""
    if isinstance(value, dict | list) and value and draw.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw.choice(keys)
        copy = value.copy()
        if draw.random() < 0.1:
            del copy[key]
        else:
            copy[key] = mutated(value[key], draw)
        return copy
    return draw.choice(ODD)


@pytest.mark.parametrize("fixture", [path.name for path in sorted(FIXTURES.glob("*.json*"))])
def test_a_mutated_row_of_any_shape_is_read_or_refused_never_a_crash(fixture: str) -> None:
    draw = random.Random(fixture)
    refused = 0
    for where, record in [*files.rows(FIXTURES / fixture)] * 150:
        row = mutated(mutated(record, draw), draw) if draw.random() < 0.5 else mutated(record, draw)
        if not isinstance(row, dict):
            continue
        for make in (formats.labelled, formats.example, formats.preference):
            try:
                made = make(row, where)
                if not isinstance(made, Preference):
                    overlap.keys(made)
            except DataError as error:
                assert error.file and error.remedy
                refused += 1
        for purpose in ("sft", "rft", "dpo"):
            with contextlib.suppress(DataError):
                formats.prompts(row, where, purpose)
    assert refused > 100
