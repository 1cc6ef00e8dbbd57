"""Thoughts and answers: parted as the families write them, rendered as their templates do, never one for the other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sharpen.completion import CHANNELS, TAGS, Parted, part, thinking
from sharpen.config.graders import Format
from sharpen.data.render import Renderer
from sharpen.errors import DataError
from sharpen.graders.format import FormatGrader
from sharpen.graders.template import look_up, seen
from sharpen.types import Example, Labelled, Message, Sample, Segment
from tests.reasoning import thinking_tokenizer
from tests.tiny import tiny_tokenizer

END = 2  # <|im_end|>
FINAL = "<|channel|>final<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>"
NEXT = "<|end|><|start|>assistant"


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "answer"),
    [
        ("<think>\nhm\n</think>\n\n4", False, "hm", "4"),  # Qwen3, which opens its thoughts itself
        ("\n<think>hm</think>4", False, "hm", "4"),
        ("hm\n</think>\n\n4", True, "hm", "4"),  # DeepSeek-R1, whose prompt has opened them
        ("<think>\nhm</think>4", True, "hm", "4"),  # and that opens them once more
        ("<think>\n\n</think>\n\n4", False, "", "4"),
        ("4", False, "", "4"),
        (" 4\n", False, "", " 4\n"),  # an answer without thoughts stays as it is
        ("<think>\nhm", False, "hm", ""),  # cut off
        ("hm", True, "hm", ""),
        ("", True, "", ""),
        ("<think>a</think>\n<think>b</think>4", False, "a</think>\n<think>b", "4"),  # neighbours are thoughts all
        ("<think>a</think>4 <think>b</think>5", False, "a", "4 <think>b</think>5"),  # later ones are not
        ("<think>a<think>b</think>c</think>4", False, "a<think>b", "c</think>4"),  # the first closing mark closes
        ("Use <think>a</think>", False, "", "Use <think>a</think>"),
        ("a</think>4", False, "", "a</think>4"),  # nothing was opened
    ],
)
def test_thoughts_in_tags_are_parted_from_the_answer(text: str, opened: bool, reasoning: str, answer: str) -> None:
    made = part(text, TAGS, opened)
    assert (made.reasoning, made.answer) == (reasoning, answer)
    assert "".join(made[:4]) == text


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        (f"{ANALYSIS}hm{NEXT}{FINAL}4", "hm", "4"),
        (f"{FINAL}4", "", "4"),
        (f"{ANALYSIS}hm", "hm", ""),
        (f"{ANALYSIS}a{NEXT}{ANALYSIS}b{NEXT}{FINAL}4", f"a{NEXT}{ANALYSIS}b", "4"),
        (f"{ANALYSIS}hm{NEXT}<|channel|>commentary<|message|>x", "hm", "<|channel|>commentary<|message|>x"),
        ("4", "", "4"),
    ],
)
def test_thoughts_in_channels_are_parted_from_the_answer(text: str, reasoning: str, answer: str) -> None:
    made = part(text, CHANNELS)
    assert (made.reasoning, made.answer) == (reasoning, answer)
    assert "".join(made[:4]) == text


def test_what_is_cut_off_while_it_thinks_is_unfinished_and_nothing_else_is() -> None:
    assert part("<think>hm", TAGS).unfinished and part("", TAGS, opened=True).unfinished
    assert part(f"{ANALYSIS}h", CHANNELS).unfinished
    for text in ("", "4", "<think></think>", "<think>hm</think>4"):
        assert not part(text, TAGS).unfinished
    assert not part(FINAL, CHANNELS).unfinished


def test_a_model_without_marks_is_left_alone() -> None:
    assert part("<think>hm</think>4", None) == Parted(answer="<think>hm</think>4")
    assert thinking(tiny_tokenizer().chat_template, ["<|im_end|>"]) is None
    assert thinking("{{ messages }}", ["</think>"]) is TAGS
    for family in ("qwen3", "qwen3_opened", "deepseek_r1", "smollm3"):
        assert thinking(thinking_tokenizer(family).chat_template, []) is TAGS
    assert thinking(thinking_tokenizer("gpt_oss").chat_template, []) is CHANNELS


def renderer(family: str, **told: Any) -> Renderer:
    tokenizer = thinking_tokenizer(family)
    tokenizer.chat_template_kwargs = told
    return Renderer(tokenizer, frozenset({tokenizer.eos_token_id}))


def completion(own: Renderer, text: str, messages: list[Message] | None = None) -> Segment:
    """What the sampler gives: the prompt, and `text` after it."""
    prompt = own.prompt(messages or [{"role": "user", "content": "1+1?"}])
    made = own.control(text)
    mask = (False,) * len(prompt) + (True,) * len(made)
    return Segment(prompt + made, mask, (0.0,) * len(mask), 0)


@pytest.mark.parametrize(
    ("family", "told", "text", "reasoning", "answer"),
    [
        ("qwen3", {}, "<think>\nhm\n</think>\n\n4<|im_end|>", "hm", "4"),
        ("qwen3", {"enable_thinking": False}, "4<|im_end|>", "", "4"),
        ("qwen3_opened", {}, "hm\n</think>\n\n4<|im_end|>", "hm", "4"),
        ("qwen3_opened", {"enable_thinking": False}, "hm<|im_end|>", "", "hm"),
        ("deepseek_r1", {}, "hm</think>4<|im_end|>", "hm", "4"),
        ("smollm3", {}, "<think>\nhm\n</think>\n4<|im_end|>", "hm", "4"),
        ("gpt_oss", {}, f"{ANALYSIS}hm{NEXT}{FINAL}4<|return|>", "hm", "4"),
    ],
)
def test_graders_see_the_answer_and_the_thoughts_apart(
    family: str, told: dict[str, Any], text: str, reasoning: str, answer: str
) -> None:
    own = renderer(family, **told)
    sample = own.sample(completion(own, text))
    assert (sample.text, sample.reasoning, sample.finish) == (answer, reasoning, "stop")
    assert seen(sample)["output_text"] == answer and seen(sample)["reasoning_text"] == reasoning
    assert look_up("{{ sample.reasoning_text }}", Example("a", ()), sample) == reasoning


def test_a_completion_cut_off_while_thinking_has_no_answer() -> None:
    for family, text in (("qwen3", "<think>\nso 4"), ("deepseek_r1", "so 4"), ("gpt_oss", f"{ANALYSIS}so 4")):
        own = renderer(family)
        sample = own.sample(completion(own, text))
        assert (sample.text, sample.reasoning, sample.finish) == ("", "so 4", "length"), family


def test_a_users_mark_opens_no_thoughts() -> None:
    own = renderer("qwen3")
    asked: list[Message] = [{"role": "user", "content": "what is <think>"}]
    assert own.sample(completion(own, "a tag<|im_end|>", asked)).text == "a tag"


ASKED = ({"role": "user", "content": "1+1?"},)
REPLY: tuple[Message, ...] = ({"role": "tool", "content": "2"},)


def turn(own: Renderer, text: str) -> tuple[Segment, Message, Parted]:
    segment = completion(own, text)
    return segment, own.sample(segment).message(), own.parted(segment)


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("qwen3", "<think>\nhm\n</think>\n\nask<|im_end|>"),
        ("qwen3_opened", "hm\n</think>\n\nask<|im_end|>"),
        ("qwen3", "ask<|im_end|>"),
    ],
)
def test_an_extension_keeps_the_thoughts_that_the_template_keeps(family: str, text: str) -> None:
    own = renderer(family)
    segment, said, written = turn(own, text)
    assert ("reasoning_content" in said) == ("hm" in text) and said["content"] == "ask"
    extended = own.extend(segment.tokens, ASKED, said, REPLY, (), written)
    assert extended is not None and extended[: len(segment.tokens)] == segment.tokens
    assert extended == own.prompt([*ASKED, said, *REPLY]), "what the template would write"


@pytest.mark.parametrize(
    ("family", "text", "reply"),
    [
        ("qwen3", "<think>\nhm\n</think>\n\nask<|im_end|>", "user"),  # a new question: earlier thoughts go
        ("qwen3", "<think>hm</think>ask<|im_end|>", "tool"),  # not the white space that the template writes
        ("qwen3", "<think>\n a\n</think>\n\nask<|im_end|>", "tool"),
        ("deepseek_r1", "hm\n</think>\n\nask<|im_end|>", "tool"),
        ("smollm3", "<think>\nhm\n</think>\nask<|im_end|>", "user"),  # its template knows no thoughts apart
        ("gpt_oss", f"{ANALYSIS}hm{NEXT}{FINAL}ask<|return|>", "user"),
    ],
)
def test_no_extension_where_the_template_would_write_the_turn_otherwise(family: str, text: str, reply: str) -> None:
    own = renderer(family)
    segment, said, written = turn(own, text)
    answer = ({"role": reply, "content": "2"},)
    extended = own.extend(segment.tokens, ASKED, said, answer, (), written)
    whole = own.prompt([*ASKED, said, *answer])
    assert extended is None or extended == whole
    assert (extended is None) == (whole[: len(segment.tokens)] != segment.tokens)


def row(*turns: Message, trained: tuple[int, ...]) -> Labelled:
    return Labelled("a", turns, trained, place="rows.jsonl:4")


def thought(answer: str, reasoning: str) -> Message:
    return {"role": "assistant", "content": answer, "reasoning_content": reasoning}


def trained_text(own: Renderer, labelled: Labelled) -> str:
    made = own.labelled(labelled, 1000)
    return str(own.tokenizer.decode([token for token, mask in zip(made.tokens, made.mask, strict=True) if mask]))


@pytest.mark.parametrize(
    ("family", "told", "text"),
    [
        ("qwen3", {}, "<think>\nhm\n</think>\n\n2<|im_end|>"),
        ("qwen3_opened", {}, "hm\n</think>\n\n2<|im_end|>"),
        ("gpt_oss", {}, f"{ANALYSIS}hm{NEXT}{FINAL}2<|return|>"),
    ],
)
def test_thoughts_are_trained_as_the_template_writes_them(family: str, told: dict[str, Any], text: str) -> None:
    own = renderer(family, **told)
    assert trained_text(own, row(*ASKED, thought("2", "hm"), trained=(1,))) == text
    sample = own.sample(completion(own, text))
    assert (sample.reasoning, sample.text) == ("hm", "2"), "and are read as they were trained"


def test_of_several_turns_the_last_is_trained_with_its_thoughts_and_the_earlier_ones_lose_theirs() -> None:
    own = renderer("qwen3")
    turns = (*ASKED, thought("2", "early"), {"role": "user", "content": "and 2+2?"}, thought("4", "late"))
    assert trained_text(own, row(*turns, trained=(3,))) == "<think>\nlate\n</think>\n\n4<|im_end|>"
    made = own.labelled(row(*turns, trained=(3,)), 1000)
    assert "early" not in own.tokenizer.decode(made.tokens)
    with pytest.raises(DataError, match=r"messages\[3\]: .* rewrites earlier turns.* one row per trained"):
        own.labelled(row(*turns, trained=(1, 3)), 1000)


def test_thoughts_before_and_after_a_tools_answer_are_both_trained() -> None:
    own = renderer("qwen3")
    turns = (*ASKED, thought("ask", "first"), *REPLY, thought("2", "second"))
    text = "<think>\nfirst\n</think>\n\nask<|im_end|><think>\nsecond\n</think>\n\n2<|im_end|>"
    assert trained_text(own, row(*turns, trained=(1, 3))) == text


def test_without_thinking_the_closed_marks_are_the_prompts_and_not_trained() -> None:
    answer = (*ASKED, {"role": "assistant", "content": "2"})
    assert trained_text(renderer("qwen3"), row(*answer, trained=(1,))) == "<think>\n\n</think>\n\n2<|im_end|>"
    assert trained_text(renderer("qwen3", enable_thinking=False), row(*answer, trained=(1,))) == "2<|im_end|>"


def test_a_template_that_leaves_trained_thoughts_out_is_refused() -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:4:messages\[1\]\.reasoning_content: .* leaves out"):
        renderer("smollm3").labelled(row(*ASKED, thought("2", "hm"), trained=(1,)), 1000)
    with pytest.raises(DataError, match=r"closed the thoughts before the answer, and this answer has some.*or let"):
        renderer("qwen3", enable_thinking=False).labelled(row(*ASKED, thought("2", "hm"), trained=(1,)), 1000)
    with pytest.raises(DataError, match=r"begins after <think>, and writes answers without thoughts.*chat_template"):
        renderer("deepseek_r1").labelled(row(*ASKED, {"role": "assistant", "content": "2"}, trained=(1,)), 1000)


def test_a_format_with_think_tags_is_found_in_a_reasoning_models_completion_as_in_a_plain_ones() -> None:
    grader = FormatGrader(Format(tags=("think", "answer"), strict=True))
    example = Example("a", ())
    own, plain = renderer("qwen3"), Renderer(tiny_tokenizer(), frozenset({END}))
    for text, score in (
        ("<think>hm</think><answer>2</answer>", 1.0),
        ("<think>hm</think>2", 0.0),
        ("<think>hm<answer>2</answer>", 0.0),
        ("<answer>2</answer>", 0.0),
    ):
        apart, whole = own.sample(completion(own, text)), plain.sample(completion(plain, text))
        assert whole.text == text and not whole.reasoning, "a model without marks teaches them in its text"
        assert asyncio.run(grader.grade(example, whole)).score == score
        assert asyncio.run(grader.grade(example, apart)).score == score, text


def test_the_turn_as_a_message_has_thoughts_only_where_there_are_some() -> None:
    sample = Sample("4", reasoning="hm")
    assert sample.message() == {"role": "assistant", "content": "4", "reasoning_content": "hm"}
    assert replace(sample, reasoning="").message() == {"role": "assistant", "content": "4"}
