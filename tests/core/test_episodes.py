"""Episodes, with a fake sampler and scripted environments: what the model sees, makes, and is trained on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sharpen.data.render import Renderer
from sharpen.envs.base import Step
from sharpen.envs.pool import Call
from sharpen.rollout.base import Params, Request
from sharpen.rollout.episodes import Attempt, make, play
from sharpen.rollout.fake import FakeSampler
from sharpen.types import Example, Fault, Rollout, Segment
from tests.core.test_render import STRIPPING
from tests.tiny import tiny_tokenizer

END = 2  # <|im_end|>
TOKENIZER = tiny_tokenizer()


def tokens(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


class Script:
    """Answers turn t of an episode (from 1) with `steps[t - 1]`; the opening is the example's own."""

    def __init__(self, *steps: Step | Fault, max_turns: int = 2) -> None:
        self.steps = (Step(({"role": "system", "content": "s"},)), *steps)
        self.max_turns = max_turns
        self.calls: list[Call] = []

    async def answer(self, calls: Sequence[Call]) -> list[Step | Fault]:
        self.calls += calls
        return [self.steps[len(call.past)] for call in calls]


def say(text: str) -> Step:
    return Step(({"role": "tool", "content": text},))


def run(
    env: Script | None,
    answer: Callable[[Request], Sequence[int]],
    names: str = "a",
    template: str = "",
    limit: int = 50,
) -> tuple[list[Rollout], FakeSampler]:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template or tokenizer.chat_template
    sampler = FakeSampler(answer)
    attempts = [Attempt(Example(name, ({"role": "user", "content": name},)), (7, name)) for name in names]
    made = make(attempts, env, sampler, Renderer(tokenizer, frozenset({END})), Params(limit))
    return asyncio.run(made), sampler


def one_after_another(*texts: str) -> Callable[[Request], list[int]]:
    """The answer of turn t, as the key's last part counts."""
    return lambda request: [*tokens(texts[int(request.key[-1])]), END]


def text_of(segment: Segment, sampled: bool) -> str:
    chosen = [token for token, mask in zip(segment.tokens, segment.mask, strict=True) if mask is sampled]
    return str(TOKENIZER.decode(chosen))


def test_both_turns_stand_in_one_segment_where_the_template_keeps_the_prefix() -> None:
    env = Script(say("four"), Step(done=True, reward=0.5, state={"n": 1}))
    ((rollout,), sampler) = run(env, one_after_another("<think>x</think>ask", "4"))
    (segment,) = rollout.segments
    assert TOKENIZER.decode(segment.tokens) == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>assistant\n<think>x</think>ask<|im_end|>\n"
        "<|im_start|>tool\nfour<|im_end|>\n<|im_start|>assistant\n4<|im_end|>"
    )
    assert text_of(segment, True) == "<think>x</think>ask<|im_end|>4<|im_end|>"
    assert {logprob for logprob, mask in zip(segment.logprobs, segment.mask, strict=True) if mask} == {-1.0}
    assert {logprob for logprob, mask in zip(segment.logprobs, segment.mask, strict=True) if not mask} == {0.0}
    assert sampler.requests[1].prompt == segment.tokens[: len(sampler.requests[1].prompt)]
    assert rollout.sampled == len(tokens("<think>x</think>ask4")) + 2
    assert (rollout.sample.text, rollout.sample.finish, rollout.reward) == ("4", "stop", 0.5)
    assert [message["role"] for message in rollout.sample.messages] == ["assistant", "tool", "assistant"]
    assert rollout.sample.env_state == {"n": 1} and rollout.prompt == ({"role": "system", "content": "s"},)


def test_a_new_segment_opens_where_the_template_strips_thoughts() -> None:
    env = Script(say("four"), Step(done=True))
    ((rollout,), _) = run(env, one_after_another("<think>x</think>ask", "4"), template=STRIPPING)
    first, second = rollout.segments
    assert text_of(first, True) == "<think>x</think>ask<|im_end|>"
    assert text_of(second, True) == "4<|im_end|>"
    assert text_of(second, False) == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>assistant\nask<|im_end|>\n"
        "<|im_start|>tool\nfour<|im_end|>\n<|im_start|>assistant\n"
    )
    assert rollout.sampled == len(tokens("<think>x</think>ask4")) + 2
    said = {"role": "assistant", "content": "ask", "reasoning_content": "x"}
    assert rollout.sample.messages[0] == said, "graders see what was thought and said"


def test_all_live_episodes_advance_together_in_order_with_random_numbers_of_their_own() -> None:
    class Until(Script):
        async def answer(self, calls: Sequence[Call]) -> list[Step | Fault]:
            self.calls += calls
            return [
                Step(({"role": "user", "content": "more"},), done=call.example.id == "b" and len(call.past) == 1)
                for call in calls
            ]

    env = Until(max_turns=3)
    rollouts, sampler = run(env, one_after_another("1", "2", "3"), names="abc")
    assert [request.key for request in sampler.requests] == [
        *[(7, name, 0) for name in "abc"],
        *[(7, name, 1) for name in "ac"],
        *[(7, name, 2) for name in "ac"],
    ]
    assert [rollout.sample.text for rollout in rollouts] == ["3", "1", "3"]
    assert [rollout.sample.finish for rollout in rollouts] == ["length", "stop", "length"], "out of turns is cut off"
    assert [call.last for call in env.calls] == [False] * 8 + [True] * 2
    assert len({call.key for call in env.calls}) == 3 and [call.place for call in env.calls[:3]] == [0, 1, 2]


def test_the_turns_share_the_token_limit() -> None:
    env = Script(say("x"), say("y"), Step(done=True), max_turns=3)
    ((rollout,), sampler) = run(env, one_after_another("abc", "defgh", "i"), limit=9)
    assert [request.limit for request in sampler.requests] == [9, 5], "4 tokens were made in the first turn"
    assert rollout.sampled == 9 and rollout.sample.text == "defgh" and rollout.sample.finish == "length"
    assert env.calls[-1].last and env.calls[-1].message == {"role": "assistant", "content": "defgh"}
    assert all(rollout.segments[-1].mask[-1:]), "no reply follows what was cut"


def test_a_turn_that_ends_exactly_at_the_limit_is_the_last_one() -> None:
    ((rollout,), sampler) = run(Script(say("x"), Step(done=True)), one_after_another("abc", "d"), limit=4)
    assert len(sampler.requests) == 1 and rollout.sample.finish == "length"
    ((rollout,), _) = run(Script(Step(done=True)), one_after_another("abc"), limit=4)
    assert rollout.sample.finish == "stop", "it was done just then"


def test_rewards_of_the_steps_add_up_and_none_is_not_zero() -> None:
    def reward(*given: float | None) -> float | None:
        first, second = (Step(say("x").messages, done, r) for done, r in zip((False, True), given, strict=True))
        ((rollout,), _) = run(Script(first, second), one_after_another("a", "b"))
        return rollout.reward

    assert reward(0.25, 0.5) == 0.75
    assert reward(None, 0.5) == 0.5
    assert reward(None, None) is None


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_a_fault_ends_its_episode_alone(turn: int) -> None:
    class Breaks(Script):
        async def answer(self, calls: Sequence[Call]) -> list[Step | Fault]:
            answers = await super().answer(calls)
            broken = [call.example.id == "a" and len(call.past) == turn for call in calls]
            return [Fault("environment_error", "down") if b else s for b, s in zip(broken, answers, strict=True)]

    rollouts, sampler = run(Breaks(say("x"), Step(done=True)), one_after_another("1", "2"), names="ab")
    assert rollouts[0].fault == Fault("environment_error", "down") and rollouts[1].fault is None
    assert len([request for request in sampler.requests if request.key[1] == "a"]) == turn
    assert rollouts[0].sampled == 2 * turn and len(rollouts[0].segments) == (turn > 0)
    said = [message["content"] for message in rollouts[0].sample.messages if message["role"] == "assistant"]
    assert said == ["1", "2"][:turn], "what the model said last is on record, though nobody answered"
    assert rollouts[1].sample.text == "2"


def test_progress_counts_the_tokens_of_all_turns() -> None:
    told: list[int] = []

    class Telling(FakeSampler):
        async def sample(self, requests: Any, params: Any, progress: Any = None) -> list[Segment]:
            segments = await super().sample(requests, params)
            progress(sum(segment.sampled for segment in segments))
            return segments

    sampler = Telling(one_after_another("abc", "d"))
    attempts = [Attempt(Example("a", ({"role": "user", "content": "a"},)), ())] * 2
    renderer = Renderer(TOKENIZER, frozenset({END}))
    asyncio.run(play(attempts, Script(say("x"), Step(done=True)), sampler, renderer, Params(50), told.append))
    assert told == [8, 12]
