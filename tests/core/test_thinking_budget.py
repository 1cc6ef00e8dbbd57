"""A thinking budget: thoughts end in time, the answer follows, and nothing that was not sampled is trained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import pytest
import torch

from sharpen.completion import CHANNELS, TAGS
from sharpen.config.optim import Optim
from sharpen.data.render import Renderer
from sharpen.envs.base import Step
from sharpen.errors import ConfigError
from sharpen.models.load import Loaded, load
from sharpen.rollout.base import Params, Request
from sharpen.rollout.episodes import Attempt, make
from sharpen.rollout.fake import FakeSampler
from sharpen.rollout.local import LocalSampler
from sharpen.rollout.thinking import Budgeted
from sharpen.stages.credit import rows_of
from sharpen.stages.probe import gaps, mask_faults
from sharpen.train.engine import Engine
from sharpen.types import Example, Grade, Group, Rollout, Segment
from tests.core.test_episodes import Script
from tests.reasoning import thinking_model, thinking_tokenizer
from tests.tiny import tiny_tokenizer

END = 2  # <|im_end|>
BUDGET = 6


def renderer(family: str, **told: Any) -> Renderer:
    tokenizer = thinking_tokenizer(family)
    tokenizer.chat_template_kwargs = told
    return Renderer(tokenizer, frozenset({tokenizer.eos_token_id}))


def attempts(count: int) -> list[Attempt]:
    return [Attempt(Example(f"{n}", ({"role": "user", "content": f"say {n}"},)), (7, n)) for n in range(count)]


def played(own: Renderer, thoughts: str, answer: str, limit: int, env: Any = None) -> tuple[Rollout, FakeSampler]:
    """An attempt of a model that first says `thoughts`, and, asked to go on, `answer`."""

    def said(request: Request) -> Sequence[int]:
        return own.control(answer if "answer" in request.key else thoughts)

    sampler = FakeSampler(said)
    made = make(attempts(1), env, sampler, own, Params(limit), thinking_budget=BUDGET)
    (rollout,) = asyncio.run(made)
    return rollout, sampler


def spans(segment: Segment, own: Renderer) -> list[tuple[bool, str]]:
    """The stretches of a segment after its prompt: whether they were sampled, and their text."""
    begin = segment.mask.index(True)
    pairs = zip(segment.mask[begin:], segment.tokens[begin:], strict=True)
    return [(made, own.tokenizer.decode([token for _, token in run])) for made, run in groupby(pairs, lambda p: p[0])]


def test_thoughts_over_the_budget_are_closed_and_the_answer_follows_in_what_is_left() -> None:
    own = renderer("qwen3_opened")
    rollout, sampler = played(own, "abcdefghijkl", "so 42, I say<|im_end|>", limit=11)
    (segment,) = rollout.segments
    assert spans(segment, own) == [(True, "abcdef"), (False, TAGS.enough), (True, "so 42")]
    assert rollout.sampled == 11 and (rollout.sample.text, rollout.sample.finish) == ("so 42", "length")
    assert rollout.sample.reasoning.startswith("abcdef\n\nConsidering the limited time")
    assert [request.limit for request in sampler.requests] == [None, 5]
    assert [request.key for request in sampler.requests] == [(7, 0), (7, 0, "answer")]
    unsampled = [logprob for logprob, made in zip(segment.logprobs, segment.mask, strict=True) if not made]
    assert not any(unsampled) and len(segment.logprobs) == len(segment.tokens) == len(segment.mask)


def test_the_closing_mark_is_one_token_as_the_model_itself_would_write_it() -> None:
    own = renderer("qwen3_opened")
    rollout, _ = played(own, "abcdefghijkl", "4<|im_end|>", limit=20)
    closing = own.tokenizer.convert_tokens_to_ids("</think>")
    assert rollout.segments[0].tokens.count(closing) == 1
    assert rollout.sample.text == "4" and rollout.sample.finish == "stop"


def test_in_channels_the_final_one_is_opened() -> None:
    own = renderer("gpt_oss")
    analysis = "<|channel|>analysis<|message|>"  # in the tiny tokenizer a token each, and eight letters
    rollout, _ = played(own, "<|channel|>analysis<|message|>hm hm", "4<|return|>", limit=20)
    assert BUDGET < len(own.control(analysis)), "cut off before it thinks: it just goes on"
    assert spans(rollout.segments[0], own)[1:] == []

    def said(request: Request) -> Sequence[int]:
        return own.control("4<|return|>" if "answer" in request.key else f"{analysis}hm hm hm")

    (made,) = asyncio.run(make(attempts(1), None, FakeSampler(said), own, Params(20), thinking_budget=12))
    assert spans(made.segments[0], own) == [(True, f"{analysis}hm"), (False, CHANNELS.enough), (True, "4<|return|>")]
    assert (made.sample.text, made.sample.reasoning) == ("4", "hm")


@pytest.mark.parametrize(
    ("family", "told", "text"),
    [
        ("qwen3_opened", {}, "abc</think>and a long answer<|im_end|>"),  # closed in time
        ("qwen3_opened", {}, "abcde</think>and a long answer<|im_end|>"),  # with the last token that it may have
        ("qwen3_opened", {}, "abcde<|im_end|>"),  # it stopped with the last token
        ("qwen3", {}, "<think>a</think>b<|im_end|>"),
    ],
)
def test_a_completion_within_the_budget_is_asked_for_once(family: str, told: dict[str, Any], text: str) -> None:
    own = renderer(family, **told)
    rollout, sampler = played(own, text, "never", limit=40)
    assert len(sampler.requests) == 1 and spans(rollout.segments[0], own) == [(True, text)]


def test_an_answer_without_thoughts_just_goes_on() -> None:
    own = renderer("qwen3")
    rollout, _ = played(own, "an answer that is long", ", and its rest<|im_end|>", limit=40)
    assert spans(rollout.segments[0], own) == [(True, "an ans, and its rest<|im_end|>")]
    assert rollout.sample.text == "an ans, and its rest" and not rollout.sample.reasoning


def test_each_turn_of_an_episode_has_the_budget_and_stays_one_segment() -> None:
    own = renderer("qwen3_opened")
    env = Script(Step(({"role": "tool", "content": "four"},)), Step(done=True, reward=1.0))
    env.steps = (Step(({"role": "user", "content": "2+2?"},)), *env.steps[1:])
    rollout, _ = played(own, "abcdefghijkl", "ask<|im_end|>", limit=60, env=env)
    (segment,) = rollout.segments
    assert spans(segment, own)[:3] == [(True, "abcdef"), (False, TAGS.enough), (True, "ask<|im_end|>")]
    assert [text for made, text in spans(segment, own) if made] == ["abcdef", "ask<|im_end|>"] * 2
    assert rollout.sampled == 2 * (BUDGET + 4) and rollout.sample.text == "ask"
    first = rollout.sample.messages[0]
    assert first["content"] == "ask" and first["reasoning_content"].startswith("abcdef\n\nConsidering")
    assert env.calls[1].message == first, "the environment hears thoughts and answer apart"


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (lambda: Renderer(tiny_tokenizer(), frozenset({END})), "the model does not think"),
        (lambda: renderer("qwen3", enable_thinking=False), "has closed the thoughts already"),
        (lambda: unmarked(), "no token of its own for </think>"),
    ],
)
def test_a_budget_that_could_do_nothing_is_an_error(own: Callable[[], Renderer], words: str) -> None:
    with pytest.raises(ConfigError, match=f"^thinking_budget: .*{words}"):
        Budgeted(FakeSampler(lambda request: []), own(), BUDGET)


def unmarked() -> Renderer:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = thinking_tokenizer("qwen3").chat_template
    return Renderer(tokenizer, frozenset({END}))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    torch.set_num_threads(1)
    return load(thinking_model(tmp_path_factory.mktemp("thinking"), "qwen3_opened", seed=2), torch.float32)


def sampled(loaded: Loaded, budget: int | None, count: int = 12, rows: int = 5, **drawing: Any) -> list[Rollout]:
    own = Renderer(loaded.tokenizer, loaded.stop)
    sampler = LocalSampler(loaded.model, loaded.stop, max_rows=rows)
    made = make(attempts(count), None, sampler, own, Params(24, **drawing), thinking_budget=budget)
    return asyncio.run(made)


@pytest.mark.parametrize("drawing", [{}, {"top_k": 9}, {"temperature": 0.0}])
def test_the_budget_holds_exactly(loaded: Loaded, drawing: dict[str, Any]) -> None:
    own = Renderer(loaded.tokenizer, loaded.stop)
    closing = loaded.tokenizer.convert_tokens_to_ids("</think>")
    forced = 0
    for rollout in sampled(loaded, BUDGET, **drawing):
        (segment,) = rollout.segments
        begin = segment.mask.index(True)
        found = spans(segment, own)
        assert rollout.sampled <= 24 and [made for made, _ in found] in ([True], [True, False, True])
        if len(found) == 3:
            forced += 1
            assert found[1] == (False, TAGS.enough) and segment.mask[begin:].index(False) == BUDGET
            assert closing not in segment.tokens[begin : begin + BUDGET]
        else:
            ended = segment.tokens[begin : begin + BUDGET]
            assert closing in ended or ended[-1] in loaded.stop
        assert segment.support is None or len(segment.support.counts) == segment.sampled
    assert forced >= 6


def test_a_budget_that_is_not_reached_changes_no_bit(loaded: Loaded) -> None:
    assert sampled(loaded, 24) == sampled(loaded, 1000) == sampled(loaded, None)
    assert sampled(loaded, BUDGET) != sampled(loaded, None)
    assert sampled(loaded, BUDGET) == sampled(loaded, BUDGET), "and one that is gives the same again"


def test_thoughts_closed_in_time_are_the_same_bit_for_bit(loaded: Loaded) -> None:
    """One row at a time: whose neighbours leave the batch earlier may be rounded otherwise, as with any limit."""
    closing = loaded.tokenizer.convert_tokens_to_ids("</think>")
    free, bounded = (sampled(loaded, budget, count=8, rows=1) for budget in (None, BUDGET))
    in_time = [closing in after_prompt(rollout)[:BUDGET] for rollout in free]
    assert sum(in_time) >= 2 and any(len(after_prompt(free[place])) > BUDGET for place in range(8) if in_time[place])
    for one, other, alike in zip(free, bounded, in_time, strict=True):
        assert (one == other) >= alike


def after_prompt(rollout: Rollout) -> tuple[int, ...]:
    (segment,) = rollout.segments
    return segment.tokens[segment.mask.index(True) :]


@pytest.mark.parametrize("drawing", [{}, {"top_p": 0.7}])
def test_sampler_and_trainer_agree_across_what_was_forced(loaded: Loaded, drawing: dict[str, Any]) -> None:
    own, rollouts = Renderer(loaded.tokenizer, loaded.stop), sampled(loaded, BUDGET, **drawing)
    assert any(len(spans(segment, own)) == 3 for rollout in rollouts for segment in rollout.segments)
    pairs = zip(attempts(12), rollouts, strict=True)
    rows = rows_of([Group(attempt.example, (made,), (Grade(1.0),)) for attempt, made in pairs])
    apart = gaps(Engine(loaded.model, Optim(lr=1e-3), 1, 512, (0,)).score(rows))
    assert len(apart) == sum(made.sampled for made in rollouts) and max(apart) < 1e-4


def test_the_probe_finds_the_prompt_and_the_completion_of_a_bounded_attempt(loaded: Loaded) -> None:
    own = Renderer(loaded.tokenizer, loaded.stop)
    groups = [
        Group(attempt.example, (made,)) for attempt, made in zip(attempts(12), sampled(loaded, BUDGET), strict=True)
    ]
    assert mask_faults(own, groups) == []
