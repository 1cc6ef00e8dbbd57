"""Rendering: what is trained is what the model would have to say, token by token."""

from __future__ import annotations

from typing import Any

import pytest

from sharpen.data import overlap
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


STRIPPING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'].split('</think>')[-1] if m['role'] == 'assistant' else m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A template of a reasoning model: earlier answers lose their thoughts."""

ASKED = ({"role": "user", "content": "1+1?"},)
ANSWERED: Message = {"role": "assistant", "content": "<think>hm</think>ask"}
REPLY: tuple[Message, ...] = ({"role": "tool", "content": "2"},)


def encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_an_extension_keeps_the_sampled_tokens_and_adds_what_the_template_writes_after_them() -> None:
    """The model may have made its text of other tokens than the tokenizer would: they stay."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["hm"])
    renderer = Renderer(tokenizer, frozenset({END}))
    pieces = [*tokenizer.convert_tokens_to_ids(["h", "m"]), END]
    assert encode(tokenizer, "hm") != tuple(pieces[:2]), "the tokenizer itself would make one token of it"
    turn: Message = {"role": "assistant", "content": "hm"}
    seen = (*renderer.prompt(ASKED), *pieces)
    extended = renderer.extend(seen, ASKED, turn, REPLY)
    assert extended is not None and extended[: len(seen)] == seen
    assert tokenizer.decode(extended[len(seen) :]) == "\n<|im_start|>tool\n2<|im_end|>\n<|im_start|>assistant\n"
    again = (*extended, *pieces)
    further = renderer.extend(again, (*ASKED, turn, *REPLY), turn, REPLY)
    assert further is not None and further[: len(again)] == again, "any number of turns"


def test_an_extension_follows_a_prompt_with_tools(tool_renderer: Renderer) -> None:
    turn: Message = {"role": "assistant", "content": "ab"}
    example = Example("a", ASKED, tools=(TOOL,))
    seen = (*tool_renderer.example(example), *encode(tool_renderer.tokenizer, "ab"), END)
    extended = tool_renderer.extend(seen, ASKED, turn, REPLY, example.tools)
    assert extended == tool_renderer.prompt([*ASKED, turn, *REPLY], example.tools)


def test_no_extension_where_the_template_strips_thoughts(tokenizer: Any) -> None:
    stripping = tiny_tokenizer()
    stripping.chat_template = STRIPPING
    renderer = Renderer(stripping, frozenset({END}))
    seen = (*renderer.prompt(ASKED), *encode(tokenizer, ANSWERED["content"]), END)
    assert renderer.extend(seen, ASKED, ANSWERED, REPLY) is None
    assert Renderer(tokenizer, frozenset({END})).extend(seen, ASKED, ANSWERED, REPLY) is not None
    plain: Message = {"role": "assistant", "content": "ask"}
    seen = (*renderer.prompt(ASKED), *encode(tokenizer, "ask"), END)
    assert renderer.extend(seen, ASKED, plain, REPLY) is not None, "without thoughts nothing is rewritten"


def test_no_extension_where_the_turn_does_not_end_as_the_template_ends_it(tokenizer: Any) -> None:
    """It was cut off, or the model ended it with another of its stop tokens."""
    renderer = Renderer(tokenizer, frozenset({0, END}))
    turn: Message = {"role": "assistant", "content": "ab"}
    seen = (*renderer.prompt(ASKED), *encode(tokenizer, "ab"))
    assert renderer.extend(seen, ASKED, turn, REPLY) is None
    assert renderer.extend((*seen, 0), ASKED, turn, REPLY) is None
    assert renderer.extend((*seen, END), ASKED, turn, REPLY) is not None
    trimming = tiny_tokenizer()
    trimming.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'] | trim")
    turn = {"role": "assistant", "content": " ab"}
    seen = (*renderer.prompt(ASKED), *encode(tokenizer, " ab"), END)
    assert Renderer(trimming, frozenset({END})).extend(seen, ASKED, turn, REPLY) is None


def test_a_template_without_tool_turns_is_refused_with_the_setting_that_helps() -> None:
    refusing = tiny_tokenizer()
    refusing.chat_template = "{{ raise_exception('unknown role') }}"
    with pytest.raises(DataError, match=r"env\.reply_role: user"):
        Renderer(refusing, frozenset({END})).prompt([*ASKED, *REPLY])


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "weather", "arguments": {"c": "Rome"}}}],
}
TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m['content'] }}"
    "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def tool_renderer() -> Renderer:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TOOL_TEMPLATE
    return Renderer(tokenizer, frozenset({END}))


def tool_row(**changes: Any) -> Labelled:
    messages = (*chat("Warm?"), CALL, {"role": "tool", "content": "31"}, {"role": "assistant", "content": "Yes"})
    return Labelled("a", messages, (1, 3), **{"tools": (TOOL,), "place": "rows.jsonl:4", **changes})


def test_tools_and_calls_reach_the_template_and_the_calls_are_trained(tool_renderer: Renderer) -> None:
    row = tool_renderer.labelled(tool_row(), 1000)
    text = tool_renderer.tokenizer.decode(row.tokens)
    assert text.startswith('<|im_start|>system\n[{"type": "function", "function": {"name": "weather"')
    call = '{"name": "weather", "arguments": {"c": "Rome"}}'
    assert trained_text(tool_renderer, row) == f"{call}<|im_end|>Yes<|im_end|>"
    example = Example("a", chat("Warm?"), tools=(TOOL,))
    assert tool_renderer.example(example) != tool_renderer.prompt(example.messages)
    assert row.tokens[: len(tool_renderer.example(example))] == tool_renderer.example(example)


def test_what_a_template_leaves_out_is_refused_by_name(renderer: Renderer) -> None:
    with pytest.raises(DataError, match=r"^rows\.jsonl:4:tools: the chat template has no tool support"):
        renderer.labelled(tool_row(), 1000)
    with pytest.raises(DataError, match="no tool support"):
        renderer.example(Example("a", chat("Warm?"), tools=(TOOL,)))
    with pytest.raises(DataError, match=r"^rows\.jsonl:4:messages\[1\]\.tool_calls: the chat template leaves out"):
        renderer.labelled(tool_row(tools=()), 1000)
    thought = ({"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "reasoning_content": "z"})
    with pytest.raises(DataError, match=r"messages\[1\]\.reasoning_content: the chat template leaves out"):
        renderer.labelled(Labelled("a", thought, (1,)), 1000)


def test_reasoning_is_trained_where_the_template_shows_it(tool_renderer: Renderer) -> None:
    thought = ({"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "reasoning_content": "z"})
    row = tool_renderer.labelled(Labelled("a", thought, (1,)), 1000)
    assert trained_text(tool_renderer, row) == "<think>z</think>y<|im_end|>"


def test_plain_text_is_trained_whole_with_its_end_and_without_a_template(renderer: Renderer) -> None:
    row = renderer.labelled(Labelled("a", (), (), text="Once upon"), 1000)
    assert renderer.tokenizer.decode(row.tokens) == "Once upon<|im_end|>"
    assert row.mask == (False, *[True] * 9)
    with pytest.raises(DataError, match=r"^f\.jsonl:2: the row is longer than max_length = 9"):
        renderer.labelled(Labelled("a", (), (), text="Once upon", place="f.jsonl:2"), 9)


def test_a_row_with_an_image_is_named_when_it_is_used(renderer: Renderer) -> None:
    parts = ({"role": "user", "content": [{"type": "image_url"}]},)
    with pytest.raises(DataError, match=r"^rows\.jsonl:2:messages\[0\]\.content: .*no vision model is supported"):
        renderer.example(Example("a", parts, place="rows.jsonl:2"))
    with pytest.raises(DataError, match=r"^rows\.jsonl:2:messages\[0\]\.content: .*no vision model"):
        overlap.keys(Example("a", parts, place="rows.jsonl:2"))
