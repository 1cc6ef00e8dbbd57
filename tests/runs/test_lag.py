"""A fixed lag: which policy sampled what, what it learns, and that a run cut short still ends with the same bits."""

from __future__ import annotations

import asyncio
from array import array
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import Interrupted
from sharpen.runs.observer import Observer
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from sharpen.stages.lag import Waiting
from sharpen.types import Example, Group, Rollout, Sample, Segment, Support
from tests.runs.lab import World, bits, differences

STEPS = 5


def lagging(world: World, lag: int, **changes: Any) -> Any:
    """An RFT stage of five steps that samples so many ahead; a checkpoint after each second."""
    stage = world.rft_stage(
        steps=STEPS,
        algorithm={"overlong_buffer": 0.0, "max_lag": lag, "kl": {"coef": 0.05, "estimator": "k1_reward"}},
        sampling={"max_tokens": 8, "top_p": 0.9, "top_k": 20},
        **changes,
    )
    return world.recipe(stage)


def versions(run: Path) -> list[int]:
    """The policy that sampled each step's batch."""
    found = []
    for step in range(1, STEPS + 1):
        lines = read_lines(run / "rollouts" / "rft" / f"step-{step:05d}.jsonl")
        (version,) = {line["version"] for line in lines}
        found.append(version)
    return found


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("lag", "expected"), [(0, [0, 1, 2, 3, 4]), (2, [0, 0, 0, 1, 2]), (9, [0, 0, 0, 0, 0])])
def test_step_s_learns_from_the_policy_of_step_s_minus_lag(
    world: World, tmp_path: Path, lag: int, expected: list[int]
) -> None:
    pipeline.run(lagging(world, lag), tmp_path / "run", base=world.folder)
    assert versions(tmp_path / "run") == expected
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [line["policy_lag"] for line in lines] == [min(lag, step) for step in range(STEPS)]
    assert lines[0]["logprob_gap"]["max"] < 1e-3, "the first policy's own"
    if lag:
        assert lines[2]["logprob_gap"]["max"] > 1e-3, "another policy's: the trainer has moved on"


class Stopping(Observer):
    """Asks the run to stop after step `step`, or breaks it there without a word."""

    def __init__(self, step: int, error: type[BaseException]) -> None:
        self.step = step
        self.error = error

    def metrics(self, line: Any) -> None:
        if line["step"] == self.step:
            raise self.error("stop")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("steps", [(1,), (2,), (3, 4)])
def test_a_run_broken_off_while_batches_wait_ends_with_the_same_bits(
    world: World, tmp_path: Path, lag: int, steps: tuple[int, ...]
) -> None:
    recipe = lagging(world, lag)
    pipeline.run(recipe, tmp_path / "whole", base=world.folder)
    broken = tmp_path / "broken"
    for index, step in enumerate(steps):
        observer = Stopping(step, KeyboardInterrupt)
        with pytest.raises((Interrupted, KeyboardInterrupt)):
            if index:
                pipeline.resume(broken, observer=observer)
            else:
                pipeline.run(recipe, broken, base=world.folder, observer=observer)
    pipeline.resume(broken)
    assert differences(bits(tmp_path / "whole"), bits(broken)) == []


def group(name: str, version: int, sets: tuple[bytes, ...] = ()) -> Group:
    support = Support((), array("i"), sets) if sets else Support((2, 1), array("i", [7, 300, 70_000]))
    one = Segment((1, 7, 70_000), (False, True, True), (0.0, -0.1, -1e-17), version, support)
    two = Segment((1, 9), (False, True), (0.0, -1 / 3), version)
    return Group(Example(name, ()), (Rollout((one, two), Sample("é", "length")), Rollout((two,), Sample(""))))


def test_what_waits_survives_json_to_the_last_bit() -> None:
    import json

    asked: list[int] = []

    async def sample(examples: list[Example], step: int) -> list[Group]:
        asked.append(step)
        return [group(example.id, step) for example in examples]

    def prompts(step: int) -> list[Example]:
        return [Example(f"{step} {place}", ()) for place in range(2)]

    waiting = Waiting(2, 4, prompts)
    first = asyncio.run(waiting.take(0, sample))
    assert asked == [0, 1, 2] and [made.example.id for made in first] == ["0 0", "0 1"]
    state = json.loads(json.dumps(waiting.state()))
    restored = Waiting(2, 4, prompts, state)
    assert restored.state() == waiting.state()
    for step in (1, 2, 3):
        assert asyncio.run(restored.take(step, sample)) == [group(f"{step} {place}", step) for place in range(2)]
    assert asked == [0, 1, 2, 3] and restored.state() == []


def test_sets_that_wait_stand_once_a_step_and_are_shared_again() -> None:
    import json

    sets = (b"\0letters", b"\xffdigits")

    async def sample(examples: list[Example], step: int) -> list[Group]:
        return [group(example.id, step, sets) for example in examples]

    def prompts(step: int) -> list[Example]:
        return [Example(f"{step} {place}", ()) for place in range(3)]

    waiting = Waiting(1, 3, prompts)
    asyncio.run(waiting.take(0, sample))
    (state,) = json.loads(json.dumps(waiting.state()))
    assert len(state["sets"]) == 2
    restored = asyncio.run(Waiting(1, 3, prompts, [state]).take(1, sample))
    assert restored == [group(f"1 {place}", 1, sets) for place in range(3)]
    supports = [rollout.segments[0].support for made in restored for rollout in made.rollouts[:1]]
    assert len({id(own) for support in supports if support for own in support.sets}) == 2
