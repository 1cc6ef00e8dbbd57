"""How a step of RFT asks a sampler, and what it makes of the answers: with a fake one, so without a model."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from sharpen.config.stages import RFT
from sharpen.data.render import Renderer
from sharpen.rollout.base import Request
from sharpen.rollout.fake import FakeSampler
from sharpen.stages import attempts
from sharpen.stages.work import Work
from sharpen.types import Example
from tests.tiny import tiny_tokenizer

END = 2  # <|im_end|>


def ask(fake: FakeSampler, step: int = 5) -> Any:
    tokenizer = tiny_tokenizer()
    stage = RFT.model_validate(
        {
            "data": {"type": "inline", "rows": ()},
            "grader": {"type": "math"},
            "group_size": 3,
            "sampling": {"max_tokens": 4},
        }
    )
    work = SimpleNamespace(renderer=Renderer(tokenizer, frozenset({END})), seed=7, run=None)
    examples = [Example(name, ({"role": "user", "content": name},)) for name in ("one", "two")]
    return asyncio.run(attempts.sample(stage, cast(Work, work), fake, examples, step))


def test_each_group_holds_the_answers_to_its_own_prompt() -> None:
    tokenizer = tiny_tokenizer()

    def first_letter_of_the_prompt(request: Request) -> list[int]:
        text = tokenizer.decode(request.prompt)
        return [*tokenizer("o" if "one" in text else "t", add_special_tokens=False)["input_ids"], END]

    groups = ask(FakeSampler(first_letter_of_the_prompt))
    assert [(g.example.id, [r.sample.text for r in g.rollouts]) for g in groups] == [
        ("one", ["o"] * 3),
        ("two", ["t"] * 3),
    ]
    assert all(r.sample.finish == "stop" and r.sampled == 2 for g in groups for r in g.rollouts)


def test_no_two_attempts_share_their_random_numbers_and_a_step_can_be_repeated() -> None:
    fakes = [FakeSampler(lambda _: [5]) for _ in range(3)]
    for fake, step in zip(fakes, (5, 5, 6), strict=True):
        ask(fake, step)
    keys = [[request.key for request in fake.requests] for fake in fakes]
    assert len(set(keys[0])) == 6
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])


def test_a_completion_cut_at_the_limit_says_so() -> None:
    groups = ask(FakeSampler(lambda _: [5, 6, 7, 8, 9, END]))
    assert {(r.sampled, r.sample.finish) for g in groups for r in g.rollouts} == {(4, "length")}
