"""What a program prints is there when its answer is: poll() does not look at all its descriptors at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sharpen.sandbox import plan
from sharpen.sandbox.jail import Jail
from sharpen.sandbox.outcome import Limits

LIMITS = Limits(seconds=10, memory=256 << 20, disk=1 << 20, output=20_000, answer=100_000, files=32, threads=8)


class Late:
    """In the place of the poll object: it looked at the pipes just before they were written to."""

    def __init__(self, sources: Any, pipes: Sequence[int]) -> None:
        self._sources, self._pipes = sources, pipes

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        ready: list[tuple[int, int]] = []
        while not ready:
            ready = [pair for pair in self._sources.poll(timeout) if pair[0] not in self._pipes]
        return ready

    def unregister(self, source: int) -> None:
        self._sources.unregister(source)


@pytest.mark.parametrize(("count", "kind"), [(5, "value"), (30_000, "output_limit")])
def test_what_was_printed_before_an_answer_is_there_even_if_the_poll_saw_the_answer_alone(
    count: int, kind: str
) -> None:
    blueprint = plan.blueprint(plan.isolation())
    with Jail(blueprint) as jail, jail.run(f"def go():\n    print('x' * {count})\n    return 1", LIMITS) as run:
        run.loaded()
        run._sources = Late(run._sources, run._pipes)  # type: ignore[assignment]
        found = run.call("go")
    assert found.kind == kind and found.stdout.strip() == "x" * min(count, LIMITS.output)
