"""Rendering: what is trained is what the model would have to say, token by token."""

from __future__ import annotations

from typing import Any

import pytest

from sharpen.data.render import Renderer
from sharpen.errors import DataError
from sharpen.types import Example, Labelled, Message, Segment
from tests.tiny import tiny_tokenizer

END = 2  # <|im_end|>


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture()
def renderer(tokenizer: Any) -> Renderer:
    return Renderer(tokenizer, frozenset({END}))


def chat(*turns: str, system: str = "") -> tuple[Message, ...]:
    roles = ("user", "assistant")
    spoken = [{"role": roles[index % 2], "content": text} for index, text in enumerate(turns)]
    return tuple([{"role": "system", "content": system}, *spoken] if system else spoken)


def trained_text(renderer: Renderer, row: Any) -> str:
    return str(renderer.tokenizer.decode([t for t, m in zip(row.tokens, row.mask, strict=True) if m]))


def test_the_mask_covers_every_assistant_turn_with_its_end_and_nothing_else(renderer: Renderer) -> None:
    messages = chat("1+1?", "2", "2+2?", "It is 4", system="Be brief")
    row = renderer.labelled(Labelled("a", messages, (2, 4)), 1000)
    assert trained_text(renderer, row) == "2<|im_end|>It is 4<|im_end|>"
    assert renderer.tokenizer.decode(row.tokens) == (
        "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\nIt is 4<|im_end|>"
    )
    assert row.atom == "a" and not row.mask[0] and row.mask[-1]


def test_only_the_turns_asked_for_are_trained(renderer: Renderer) -> None:
    messages = chat("1+1?", "2", "2+2?", "4")
    assert trained_text(renderer, renderer.labelled(Labelled("a", messages, (3,)), 1000)) == "4<|im_end|>"
    first = renderer.labelled(Labelled("a", messages, (1,)), 1000)
    assert trained_text(renderer, first) == "2<|im_end|>"
    assert first.tokens[-1] == END, "what follows the last trained turn is cut away"


def test_the_prompts_tokens_begin_the_labelled_ones(renderer: Renderer) -> None:
    messages = chat("1+1?", "2", "2+2?", "4")
    for trained in ((1,), (3,), (1, 3)):
        row = Labelled("a", messages, trained)
        prompt = renderer.prompt(row.prompt)
        labelled = renderer.labelled(row, 1000)
        assert labelled.tokens[: len(prompt)] == prompt == renderer.example(Example("b", row.prompt))
        assert labelled.mask.index(True) == len(prompt)


def test_a_sampled_answer_and_a_labelled_one_have_the_same_tokens(renderer: Renderer) -> None:
    messages = chat("1+1?", "2")
    labelled = renderer.labelled(Labelled("a", messages, (1,)), 1000)
    segment = Segment(labelled.tokens, labelled.mask, (0.0,) * len(labelled.tokens), 0)
    sample = renderer.sample(segment)
    assert (sample.text, sample.finish) == ("2", "stop")


def test_a_cut_answer_is_told_from_a_finished_one(renderer: Renderer) -> None:
    tokens = renderer.tokenizer("ab", add_special_tokens=False)["input_ids"]
    sample = renderer.sample(Segment((1, *tokens), (False, True, True), (0.0,) * 3, 0))
    assert (sample.text, sample.finish) == ("ab", "length")
    alone = renderer.sample(Segment((1, END), (False, True), (0.0,) * 2, 0))
    assert (alone.text, alone.finish) == ("", "stop")


def test_a_template_that_rewrites_earlier_turns_is_refused_with_the_turn() -> None:
    """As reasoning models do: earlier answers lose their thoughts."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{{ m['content'].split('#')[-1] if m['role'] == 'assistant' and not loop.last else m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    renderer = Renderer(tokenizer, frozenset({END}))
    messages = chat("1+1?", "one and one#2", "2+2?", "4")
    with pytest.raises(DataError, match="rewrites earlier turns") as caught:
        renderer.labelled(Labelled("data.jsonl:3", messages, (1, 3)), 1000)
    assert (caught.value.file, caught.value.field) == ("data.jsonl:3", "messages[3]")
    assert trained_text(renderer, renderer.labelled(Labelled("a", messages, (3,)), 1000)) == "4<|im_end|>"


def test_a_row_without_a_trained_turn_is_refused(renderer: Renderer) -> None:
    with pytest.raises(DataError, match="no token of the row is trained"):
        renderer.labelled(Labelled("a", chat("1+1?", "2"), ()), 1000)


def test_a_template_without_an_end_token_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    with pytest.raises(DataError, match="without an end token"):
        Renderer(tokenizer, frozenset({END})).labelled(Labelled("a", chat("1+1?", "2"), (1,)), 1000)


def test_a_row_that_is_too_long_is_refused_with_its_length(renderer: Renderer) -> None:
    row = Labelled("data.jsonl:9", chat("1+1?", "2"), (1,))
    length = len(renderer.labelled(row, 1000).tokens)
    assert len(renderer.labelled(row, length).tokens) == length
    with pytest.raises(DataError, match=f"longer than max_length = {length - 1}") as caught:
        renderer.labelled(row, length - 1)
    assert (caught.value.file, caught.value.value) == ("data.jsonl:9", length)


def test_a_template_that_refuses_a_conversation_says_so_with_the_roles(tokenizer: Any) -> None:
    refusing = tiny_tokenizer()
    refusing.chat_template = "{{ raise_exception('no system turn, please') }}"
    with pytest.raises(DataError, match=r"no system turn, please.*\['system', 'user'\]"):
        Renderer(refusing, frozenset({END})).prompt(
            [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
        )
