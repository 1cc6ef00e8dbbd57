"""Which rows are used, which are left out and why, and which files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sharpen.data import formats, overlap
from sharpen.data.read import Where
from sharpen.errors import ConfigError, DataError
from sharpen.project import look, parts, rows
from sharpen.project.rows import Row
from sharpen.project.tasks import TASKS


def row(line: int, prompt: str, answer: str, **others: Any) -> Row:
    return Row(Where("my.csv", line), ({"role": "user", "content": prompt},), answer, others)


def several(answers: list[str], first: int = 2) -> list[Row]:
    return [row(line, f"text number {line} of its own", answer) for line, answer in enumerate(answers, start=first)]


GOOD = several(["late", "lost"] * 12, first=100)


@pytest.mark.parametrize(
    ("task", "given", "note"),
    [
        ("classify", [row(2, " ", "late")], "1 row left out: the prompt is empty (line 2)"),
        ("classify", [row(2, "why", "")], "1 row left out: the answer is empty (line 2)"),
        ("chat", [row(2, "why " * 1500, "so")], "1 row left out: longer than 6,000 bytes, some 2,000 tokens (line 2)"),
        (
            "chat",
            [row(5, "Why?", "so"), row(7, "why? ", "so")],
            "1 row left out: an earlier row says the same (line 7)",
        ),
        (
            "classify",
            [row(5, "Why?", "late"), row(7, "why?", "lost"), row(9, "why?", "late")],
            "1 row left out: an earlier row has another answer to the same prompt (line 7)",
        ),
        ("classify", several(["Late", "late "]), "'Late' and 'late' and 'late ' are one label, 'late'"),
        ("classify", several(["rare", "rare"]), "fewer than 5 rows have the label 'rare': too few to learn it"),
        (
            "math",
            several(["4"] * 30 + ["none"] * 7),
            "7 rows left out: the answers should be numbers, or texts with one (line 32, 33, 34, 35, 36, …)",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_left_out_and_said(task: str, given: list[Row], note: str) -> None:
    good = several(["7", "8"] * 12, first=100) if task == "math" else GOOD
    found = rows.clean([*given, *good], TASKS[task], "my.csv")
    assert note in found.notes
    assert len(found.rows) + sum(int(note.split()[0]) for note in found.notes if "left out" in note) == len(
        [*given, *good]
    )


def test_in_chat_a_prompt_may_have_several_answers() -> None:
    given = [*GOOD, row(2, "why", "a"), row(3, "why", "b")]
    assert len(rows.clean(given, TASKS["chat"], "my.csv").rows) == len(given)


def test_labels_and_json_are_written_in_one_way() -> None:
    labels = rows.clean([*several(["LATE"]), *GOOD], TASKS["classify"], "my.csv").rows
    assert {one.answer for one in labels} == {"late", "lost"}
    spaced = rows.clean(several(['{ "a":"ä" }'] * 20), TASKS["extract"], "my.csv").rows
    assert {one.answer for one in spaced} == {'{"a": "ä"}'}


@pytest.mark.parametrize(
    ("task", "answers", "said"),
    [
        ("classify", ["late", "lost"] * 9, "my.csv: 18 rows can be used; with fewer than 20, nothing is learned"),
        ("classify", ["late"] * 30, r"my.csv: all rows have the same label \(got 'late'\)"),
        ("classify", [f"answer {n}" for n in range(30)], "30 different answers in 30 rows are no labels.*--task chat"),
        (
            "math",
            ["yes", "no"] * 15,
            "my.csv:2: for math the answers should be numbers.*, and 0 of 30 are.*--task classify",
        ),
        ("extract", [str(n) for n in range(30)], "for extract the answers should be JSON objects.*--task math"),
        ("code", [f"text {n}" for n in range(30)], "for code the answers should be Python programs.*--task chat"),
        ("chat", [""] * 30, "my.csv: 0 rows can be used.*30 rows left out: the answer is empty"),
    ],
)
def test_rows_that_teach_nothing_are_refused_with_the_remedy(task: str, answers: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        rows.clean(several(answers), TASKS[task], "my.csv")


def test_a_further_column_stays_unless_its_name_would_make_the_row_something_else(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("message,kind,label,text,customer\nhello,late,true,more,ann\n")
    (found,) = rows.by_columns(look.read(path), "message", "kind")
    assert found.others == {"customer": "ann"}
    assert formats.example(found.record(), found.where).item == {
        "completion": "late",
        "answer": "late",
        "customer": "ann",
    }
    assert formats.labelled(found.record(), found.where).messages[-1] == {"role": "assistant", "content": "late"}


def test_values_that_are_no_text_become_it(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text(json.dumps({"q": "x", "a": {"b": 1}}) + "\n" + json.dumps({"q": 5, "a": True}) + "\n")
    one, other = rows.by_columns(look.read(path), "q", "a")
    assert (one.answer, other.messages[0]["content"], other.answer) == ('{"b": 1}', "5", "true")


def test_one_column_cannot_ask_and_answer(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("a,b\nc,d\n")
    with pytest.raises(ConfigError, match="the same column"):
        rows.by_columns(look.read(path), "a", "a")


CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
TURNS = {"messages": [{"role": "system", "content": "be kind"}, *CHAT["messages"], *CHAT["messages"]]}


@pytest.mark.parametrize(
    ("record", "name", "prompt", "answer"),
    [
        (CHAT, "chat", ["hi"], "ho"),
        (TURNS, "chat", ["be kind", "hi", "ho", "hi"], "ho"),
        ({"instruction": "add", "input": "1 2", "output": "3"}, "Alpaca", ["add\n\n1 2"], "3"),
        (
            {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]},
            "ShareGPT",
            ["hi"],
            "ho",
        ),
        ({"prompt": [{"role": "user", "content": "hi"}], "completion": "ho"}, "prompt-completion", ["hi"], "ho"),
        ({"prompt": "hi", "completion": "ho"}, "", None, ""),  # by its columns
        ({"text": "hi", "label": "ho"}, "", None, ""),
    ],
)
def test_conversations_are_taken_as_they_are(
    tmp_path: Path, record: dict[str, Any], name: str, prompt: list[str] | None, answer: str
) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text(json.dumps(record) + "\n")
    table = look.read(path)
    assert rows.shape(table) == name
    if prompt is not None:
        (found,) = rows.by_shape(table)
        assert ([message["content"] for message in found.messages], found.answer) == (prompt, answer)


def test_a_conversation_without_a_prompt_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text(json.dumps(CHAT) + "\n" + json.dumps({"messages": CHAT["messages"][1:]}) + "\n")
    with pytest.raises(DataError, match=r"my.jsonl:2"):
        rows.by_shape(look.read(path))


def test_tools_stay_with_their_conversation(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    path = tmp_path / "my.jsonl"
    path.write_text(json.dumps({**CHAT, "tools": [tool]}) + "\n")
    (found,) = rows.by_shape(look.read(path))
    assert formats.labelled(found.record(), found.where).tools == (tool,)


def test_the_instruction_stands_before_single_prompts_alone() -> None:
    talk = (*({"role": role, "content": role} for role in ("user", "assistant", "user")),)
    plain, turns = rows.asked([row(2, "hi", "ho"), Row(Where("x", 3), talk, "ho")], "Answer.")
    assert plain.messages[0] == {"role": "system", "content": "Answer."} and plain.messages[1]["content"] == "hi"
    assert turns.messages == talk
    assert rows.asked(GOOD, "") == GOOD


def test_parts_share_no_prompt_nor_one_nearly_like_it_and_lose_no_row() -> None:
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu".split()
    given = []
    for number in range(60):
        text = " ".join(words[(number * 7 + place * (number % 5 + 1)) % len(words)] for place in range(12))
        given += [row(2 * number, f"{number} {text}", "a"), row(2 * number + 1, f"{number} {text} indeed", "b")]
    found = parts.parted(given)
    assert sorted(one.where.line for part in found for one in part) == list(range(120))
    place = {one.where.line: index for index, part in enumerate(found) for one in part}
    assert all(place[2 * number] == place[2 * number + 1] for number in range(60))
    assert [len(part) for part in found] == [72, 12, 36]
    keys = [{overlap.key(one.messages) for one in part} for part in found]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
    shuffled = parts.parted(given[::-1])
    assert shuffled == found  # it does not depend on the order of the file


def test_rows_that_are_all_alike_cannot_be_parted() -> None:
    given = [row(line, "the very same long question is asked again and again", str(line)) for line in range(30)]
    with pytest.raises(DataError, match=r"my.csv: the 30 prompts are too much alike.*--columns prompt=NAME"):
        parts.parted(given)


def test_what_so_many_test_rows_show() -> None:
    """2.8016 · √(0.5 / n), worked by hand for 50 and 200 rows."""
    assert parts.shows(50) == pytest.approx(0.28016, abs=1e-4)
    assert parts.shows(200) == pytest.approx(0.14008, abs=1e-4)
