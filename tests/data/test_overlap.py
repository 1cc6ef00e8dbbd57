"""Held-out prompts in training data are found in whatever spelling, and refused or dropped."""

from __future__ import annotations

from typing import Any

import pytest

from sharpen.data import overlap
from sharpen.errors import OverlapError
from sharpen.types import Example, Labelled


def ask(text: str, **item: Any) -> Example:
    return Example(id=text, messages=({"role": "user", "content": text},), item=item)


def keys(*rows: Example | Labelled) -> set[bytes]:
    return {key for row in rows for key in overlap.keys(row)}


@pytest.mark.parametrize(
    "twin", ["What is 1+1?", " what  IS\n1+1? ", "What is\u00a01\uff0b1?", "What is 1\uff0b1\uff1f"]
)
def test_case_space_and_unicode_form_do_not_hide_a_prompt(twin: str) -> None:
    assert keys(ask(twin)) == keys(ask("What is 1+1?"))


def test_other_words_are_another_prompt() -> None:
    assert keys(ask("What is 1+2?")).isdisjoint(keys(ask("What is 1+1?")))


def test_turns_do_not_run_together_and_system_turns_do_not_count() -> None:
    user, reply = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    talk = Example(id="x", messages=(user, reply, {"role": "user", "content": "c"}))
    assert keys(talk).isdisjoint(keys(ask("a b c")) | keys(ask("a")))
    with_system = Example(id="y", messages=({"role": "system", "content": "s"}, user))
    assert keys(with_system) == keys(ask("a"))


def test_every_trained_turn_counts_as_a_training_prompt() -> None:
    user, reply = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    row = Labelled(id="x", messages=(user, reply, user, reply), trained=(1, 3))
    assert keys(row) == keys(ask("a"), Example(id="y", messages=(user, reply, user)))


def test_a_generated_question_is_found_under_another_suffix() -> None:
    plain = ask("1+1= Only the number.", generator="chain_sum", question="1+1=")
    other = ask("1+1= Think first.", generator="chain_sum", question="1+1=")
    assert not keys(plain).isdisjoint(keys(other))
    assert keys(ask("x", question="y")).isdisjoint(keys(ask("y")))  # a file's own field


def test_generated_held_out_problems_are_dropped_and_counted() -> None:
    kept = overlap.held_out([ask("a"), ask("b"), ask("B")], {"sft": keys(ask("b"))}, may_drop=True, name="test")
    assert [row.id for row in kept.rows] == ["a"]
    assert kept.dropped == 2


def test_chosen_held_out_rows_are_refused_with_counts_and_one_shown() -> None:
    train = {"sft": keys(ask("b"), ask("c")), "rft": keys(ask("c"))}
    with pytest.raises(OverlapError) as caught:
        overlap.held_out([ask("a"), ask("b"), ask("c")], train, may_drop=False, name="test")
    assert caught.value.fact == "of 3 held-out prompts of test, training data holds 2 in sft, 1 in rft"
    assert caught.value.value == "b"


def test_nothing_left_after_dropping_is_refused() -> None:
    with pytest.raises(OverlapError, match="of 1 held-out prompts"):
        overlap.held_out([ask("a")], {"sft": keys(ask("a"))}, may_drop=True, name="test")


def test_disjoint_rows_pass_untouched() -> None:
    rows = [ask("a"), ask("b")]
    assert overlap.held_out(rows, {"sft": keys(ask("c"))}, may_drop=False, name="test") == (rows, 0)
    overlap.check({"sft": keys(ask("c"))}, {"test": rows})


def test_check_names_every_held_out_source() -> None:
    with pytest.raises(OverlapError, match=r"of one, .* 1 in sft; .* of two, .* 1 in sft"):
        overlap.check({"sft": keys(ask("a"))}, {"one": [ask("a")], "two": [ask("a")], "three": [ask("b")]})
