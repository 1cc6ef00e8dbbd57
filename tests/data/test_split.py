"""Splits: shares, determinism, and what must stay on one side."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from sharpen.config.data import FileData, InlineData, Split
from sharpen.data import overlap, split
from sharpen.data.source import read_examples, read_labelled
from sharpen.errors import DataError

WORDS = "sun moon tree river stone cloud field horse bread glass chair house light water paper metal".split()
BASE = Path()


def sentence(seed: int, length: int = 30) -> list[str]:
    return random.Random(seed).choices(WORDS, k=length)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"prompt": " ".join(sentence(n)), "completion": "x", "n": n, "topic": f"t{n % 7}"} for n in range(count)]


def part(given: list[dict[str, Any]], which: str, test: float = 0.2, **settings: Any) -> list[int]:
    data = InlineData(rows=tuple(given), split=Split.model_validate({"test": test, "part": which, **settings}))
    return [row.item["n"] for row in read_examples(data, BASE)]


def test_the_parts_are_all_rows_once_in_their_order() -> None:
    train, test = (part(rows(100), which) for which in ("train", "test"))
    assert len(test) == 20
    assert sorted(train + test) == list(range(100))
    assert train == sorted(train) and test == sorted(test)
    assert test != list(range(20)) and test != list(range(80, 100))


def test_the_same_rows_are_chosen_in_any_order_and_others_with_another_seed() -> None:
    shuffled = rows(100)
    random.Random(1).shuffle(shuffled)
    assert sorted(part(shuffled, "test")) == part(rows(100), "test") != part(rows(100), "test", seed=1)


def test_rows_of_a_group_stay_on_one_side() -> None:
    train, test = (part(rows(70), which, group_by="topic") for which in ("train", "test"))
    assert {n % 7 for n in train}.isdisjoint({n % 7 for n in test})
    assert len(test) == 10, "one topic of ten rows fits into 14, a second does not"
    nested = [{**row, "meta": {"topic": row["topic"]}} for row in rows(70)]
    assert part(nested, "test", group_by="meta.topic") == test


def test_a_row_without_the_field_to_group_by_is_told() -> None:
    with pytest.raises(DataError, match=r"inline:1:meta\.topic: the row has no 'meta\.topic'"):
        part(rows(3), "test", group_by="meta.topic")


def test_near_duplicates_stay_on_one_side() -> None:
    """Fifty sentences, each with one word of thirty changed: 25 of 31 sequences shared, an index of 0.81."""
    given = []
    for n in range(50):
        words = sentence(n)
        given.append({"prompt": " ".join(words), "n": n})
        given.append({"prompt": " ".join([*words[:15], "changed", *words[16:]]).upper(), "n": n})
    for seed in range(3):
        train, test = (part(given, which, seed=seed) for which in ("train", "test"))
        assert set(train).isdisjoint(test)
        assert len(test) == 20


def test_unlike_rows_are_not_held_together() -> None:
    """Half of the words changed: the index is far below 0.8, so pairs do part."""
    given = []
    for n in range(50):
        words = sentence(n)
        given.append({"prompt": " ".join(words), "n": n})
        given.append({"prompt": " ".join([*words[:15], *sentence(1000 + n, 15)]), "n": n})
    train, test = (part(given, which) for which in ("train", "test"))
    assert not set(train).isdisjoint(test)


@pytest.mark.parametrize("changed", [1, 2, 6])
def test_similarity_is_the_share_of_common_three_word_sequences(changed: int) -> None:
    one = [f"w{n}" for n in range(30)]
    other = [*(f"v{n}" for n in range(changed)), *one[changed:]]
    sequences = [{tuple(words[at : at + 3]) for at in range(28)} for words in (one, other)]
    expected = len(sequences[0] & sequences[1]) / len(sequences[0] | sequences[1])
    found = split._jaccard(split._shingles(" ".join(one)), split._shingles(" ".join(other)))
    assert found == pytest.approx(expected)


def test_rows_that_share_a_prompt_of_any_trained_turn_stay_on_one_side() -> None:
    def talk(n: int, *more: str) -> dict[str, Any]:
        texts = [f"question {n} {' '.join(sentence(n))}", "answer", *more]
        roles = ("user", "assistant")
        return {"messages": [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]}

    given = tuple(row for n in range(20) for row in (talk(n), talk(n, " ".join(sentence(500 + n)), "another answer")))
    sides = []
    for which in ("train", "test"):
        data = InlineData(rows=given, split=Split(test=0.3, part=which))
        sides.append({key for row in read_labelled(data, BASE) for key in overlap.keys(row)})
    assert sides[0] and sides[1] and sides[0].isdisjoint(sides[1])


def test_a_file_is_split_alike_whatever_it_is_read_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows(40)))
    train = FileData(path="a.jsonl", split=Split(test=0.25))
    test = FileData(path="a.jsonl", split=Split(test=0.25, part="test"))
    trained = {row.messages[0]["content"] for row in read_labelled(train, tmp_path)}
    asked = {row.messages[0]["content"] for row in read_examples(test, tmp_path)}
    assert (len(trained), len(asked)) == (30, 10) and trained.isdisjoint(asked)


def test_places_and_limit_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows(40)))
    data = FileData(path="a.jsonl", limit=20, split=Split(test=0.5, part="test"))
    found = list(read_examples(data, tmp_path))
    assert len(found) == 10
    assert all(row.place == f"{tmp_path / 'a.jsonl'}:{row.item['n'] + 1}" and row.item["n"] < 20 for row in found)


def test_columns_are_renamed_before_the_split() -> None:
    given = tuple({"question": " ".join(sentence(n)), "n": n} for n in range(10))
    data = InlineData(rows=given, columns={"prompt": "question"}, split=Split(test=0.3, part="test"))
    assert len(list(read_examples(data, BASE))) == 3


def test_a_side_without_rows_is_refused_with_the_numbers() -> None:
    with pytest.raises(DataError, match="one side without rows: 5 rows are 1 groups"):
        part([{"prompt": "the same", "n": n} for n in range(5)], "test")


def test_a_bad_row_is_told_as_without_a_split() -> None:
    with pytest.raises(DataError, match=r"inline:2: not a row of this kind; its keys are \['a'\]"):
        part([{"prompt": "x", "n": 1}, {"a": 1}], "test")
