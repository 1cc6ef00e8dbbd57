"""Honest programs pass, however the completion presents them; with one small mistake none does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from sharpen.config.graders import CodeTests
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Grade, Sample
from tests.graders.honest.honest import Honest
from tests.graders.honest.programs import HONEST

EACH = pytest.mark.parametrize("honest", [pytest.param(honest, id=honest.name) for honest in HONEST])
PRESENTED = {
    "fenced": "```python\n{}\n```",
    "bare": "{}",
    "within text": """First I thought of

```python
print('nothing')
```

but this is it:

```py
{}
```

It is right.""",
}


@pytest.fixture(scope="module")
def pool() -> Iterator[GraderPool]:
    with GraderPool(CodeTests(function="{{ item.function }}", time_limit=20.0), workers=1) as pool:
        yield pool


def grades(pool: GraderPool, tests: Any, function: str, *texts: str) -> list[Grade]:
    example = Example("e", (), {"tests": tests, "function": function})
    return asyncio.run(pool.grade_many([(example, Sample(text)) for text in texts]))


def test_there_are_at_least_a_hundred_and_five_different_honest_programs() -> None:
    assert len(HONEST) >= 105
    assert len({honest.name for honest in HONEST}) == len(HONEST)
    assert len({honest.source for honest in HONEST}) == len(HONEST)


@EACH
def test_an_honest_program_passes_however_it_is_presented(pool: GraderPool, honest: Honest) -> None:
    texts = [form.replace("{}", honest.source) for form in PRESENTED.values()]
    for given in grades(pool, honest.tests, honest.function, *texts):
        assert given.score == 1.0, given
        assert given.fault is None
        assert given.metrics == {"format": 1.0, "passed": 1.0}


@EACH
def test_with_a_mistake_it_fails(pool: GraderPool, honest: Honest) -> None:
    assert honest.mutant != honest.source
    (given,) = grades(pool, honest.tests, honest.function, PRESENTED["fenced"].replace("{}", honest.mutant))
    assert given.score == 0.0, given
