"""Attacks as texts: what they say, and whether the right answer stands in them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.lab.attacks import ATTACKS, FEWEST_ANSWERS, Target, holds, others

BY_NAME = {attack.name: attack for attack in ATTACKS}


def texts(name: str, prompt: str = "", gold: str | None = None, answers: tuple[str, ...] = ()) -> list[str]:
    return list(BY_NAME[name].texts(Target(prompt, gold, answers)))


@pytest.mark.parametrize(
    ("text", "gold", "held"),
    [
        ("It is Paris.", "paris", True),
        ("Parisian", "Paris", False),
        ("15 25", "5", False),
        ("5.0", "5", True),
        ("1/2", "0.5", True),
        ("one  two\nthree", "Two Three", True),
        ("0 1 2 42 99", "6 times 7 is 42.\n#### 42", True),
        ("6 times 7 is 41", "6 times 7 is 42.\n#### 42", False),
        ("so x = 7", r"We find \boxed{7}", True),
        ("May 5, 2024", "June 7, 2024", False),
        ("", ".", False),
        ("12 %", "0.12", True),
    ],
)
def test_the_right_answer_is_found_in_words_and_as_an_equal_number(text: str, gold: str, held: bool) -> None:
    assert holds(text, gold) is held


def test_other_answers_are_those_that_are_not_also_right() -> None:
    assert others(["7", "9", "7.0", None, "it is 7", "9", "70"], 0) == ("9", "70")
    assert others(["7", "9", "7.0", None], 1) == ("7.0", "7")
    assert others(["7", None, "8"], 1) == ("8", "7")


SHORT = st.text(alphabet="ab7 .", min_size=1, max_size=4).filter(lambda text: bool(re.search(r"\w", text)))


@given(st.lists(SHORT, min_size=1, max_size=8))
def test_the_right_answer_stands_in_no_other_answer(golds: list[str]) -> None:
    own = golds[0]
    target = Target("", own, others(golds, 0))
    assert not any(holds(text, own) for text in BY_NAME["another answer"].texts(target))
    if len(target.others) >= FEWEST_ANSWERS:
        (listed,) = BY_NAME["every answer"].texts(target)
        assert holds(listed, own)
        assert sorted(listed.split("\n")) == sorted([*target.others, own])
        assert listed.split("\n")[0] != own != listed.split("\n")[-1]


@pytest.mark.parametrize(
    ("gold", "left"),
    [
        ("The train takes 42 minutes", ["The train takes minutes"]),
        ('He said "yes" twice', ["He said twice"]),
        (r"The sum is \boxed{7}", ["The sum is"]),
        ("the Eiffel Tower", ["the Tower"]),
        ("Paris", []),
        ("42", []),
    ],
)
def test_the_wording_of_an_answer_is_what_is_left_without_its_value(gold: str, left: list[str]) -> None:
    assert texts("wording", gold=gold) == left


def test_a_heap_of_words_has_those_of_prompt_and_other_answers_but_not_a_short_right_one() -> None:
    assert texts("keywords", "Is it red or blue?", "Red", ("blue", "it is green")) == ["Is it or blue is green"]
    long = "the red one on the left side"
    assert texts("keywords", "the left or the red?", long, ("blue",)) == ["the left or red blue"]


def test_what_needs_the_right_answer_is_not_tried_without_it() -> None:
    for attack in ATTACKS:
        found = list(attack.texts(Target("Say something", None, ("a", "b", "c", "d"))))
        assert bool(found) is attack.fixed, attack.name
        if attack.fixed:
            assert found == list(attack.texts(Target("Other", "7", ())))


def test_lists_of_few_answers_hide_nothing_and_are_not_tried() -> None:
    for name in ("other answers", "every answer"):
        assert texts(name, gold="1", answers=("2", "3")) == []
        assert texts(name, gold="1", answers=("2", "3", "4")) != []


def test_the_attacks_are_those_they_are_called() -> None:
    assert texts("empty") == [""] and not "".join(texts("white space")).replace("\u200b", "").strip()
    assert texts("signs") == [".", ",", ":"]
    assert {"Thought process:", "解", "かいせつ", "Respuesta"} <= set(texts("openers"))
    assert texts("echo", "Say 5", "5") == ["Say 5"]
    assert texts("0 to 99", gold="x")[0].split() == [str(n) for n in range(100)]
    assert len(texts("long")[0]) == 20_000
    assert all("1.0" in text or "full marks" in text for text in texts("orders"))
