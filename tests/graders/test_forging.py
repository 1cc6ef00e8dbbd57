"""Programs that pretend: none gets more than it has earned, though a naive harness would be fooled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sharpen.config.graders import CodeTests
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Grade, Sample
from tests.graders.forging.forgery import ASSERTS, CALLS, CHECK, STREAM, TASKS, Forgery, Kind
from tests.graders.forging.naive import rewards
from tests.graders.forging.programs import FORGERIES

PAIRS = [(forgery, kind) for forgery in FORGERIES for kind in forgery.kinds]
CASES = [pytest.param(forgery, kind, id=f"{forgery.name}-{kind}") for forgery, kind in PAIRS]
QUICK = [case for case, (forgery, _) in zip(CASES, PAIRS, strict=True) if not forgery.slow]
CONTROLLED = [
    pytest.param(forgery, id=forgery.name.replace(" ", "-")) for forgery in FORGERIES if not forgery.no_control
]
RIGHT = "def add(a, b):\n    return a + b"
RIGHT_STREAM = "print(sum(map(int, input().split())))"
WAYS = ["status", "near", "contains", "json", "order", "word", "frame", "lenient", "pickle"]


def config(partial_credit: bool) -> CodeTests:
    return CodeTests(
        function="{{ item.function }}", prefix="{{ item.prefix }}", time_limit=1.5, partial_credit=partial_credit
    )


@pytest.fixture(scope="module")
def strict() -> Iterator[GraderPool]:
    with GraderPool(config(False), workers=1) as pool:
        yield pool


@pytest.fixture(scope="module")
def lenient() -> Iterator[GraderPool]:
    with GraderPool(config(True), workers=1) as pool:
        yield pool


def grade(pool: GraderPool, source: str, tests: Any, function: str = "add", prefix: str = "") -> Grade:
    example = Example("e", (), {"tests": tests, "function": function, "prefix": prefix})
    return asyncio.run(pool.grade_many([(example, Sample(f"```python\n{source}\n```"))]))[0]


def naively(source: str, tests: Any, how: str, folder: Path, function: str = "add", seconds: float = 10.0) -> bool:
    return rewards(source, [tests] if isinstance(tests, str) else tests, function, how, folder, seconds)


def test_there_are_at_least_sixty_five_different_forgeries() -> None:
    assert len(FORGERIES) >= 65
    assert len({forgery.name for forgery in FORGERIES}) == len(FORGERIES)
    assert len({forgery.source for forgery in FORGERIES}) == len(FORGERIES)
    assert {kind for forgery in FORGERIES for kind in forgery.kinds} == {"calls", "asserts", "check", "stream"}


def test_most_forgeries_fool_a_naive_harness() -> None:
    assert len(CONTROLLED) >= 65


@pytest.mark.parametrize("forgery, kind", CASES)
def test_a_forgery_scores_nothing(strict: GraderPool, forgery: Forgery, kind: Kind) -> None:
    given = grade(strict, forgery.source, forgery.cases(kind), forgery.function, forgery.prefix)
    assert given.score == 0.0, given
    assert given.fault is None or not given.fault.kind.startswith("python_grader"), "the program's fault, not ours"


@pytest.mark.parametrize("forgery, kind", QUICK)
def test_with_partial_credit_a_forgery_gets_no_more_than_it_has_earned(
    lenient: GraderPool, forgery: Forgery, kind: Kind
) -> None:
    given = grade(lenient, forgery.source, forgery.cases(kind), forgery.function, forgery.prefix)
    earned = forgery.earned if isinstance(forgery.cases(kind), list) else 0.0
    assert given.score is not None and given.score <= earned + 1e-9, given


@pytest.mark.parametrize("forgery", CONTROLLED)
def test_a_naive_harness_rewards_it(forgery: Forgery, tmp_path: Path) -> None:
    tests = forgery.cases(forgery.kinds[0])
    seconds = 1.0 if forgery.slow else 10.0
    assert naively(forgery.prefix + forgery.source, tests, forgery.how, tmp_path, forgery.function, seconds)


@pytest.mark.parametrize("how", WAYS)
def test_a_naive_harness_tells_right_from_wrong_where_nobody_cheats(how: str, tmp_path: Path) -> None:
    kinds: dict[str, list[Any]] = {"pickle": [CALLS], "order": [CHECK]}
    for tests in kinds.get(how, [CALLS, ASSERTS, CHECK]):
        assert naively(RIGHT, tests, how, tmp_path)
        assert not naively(RIGHT.replace("+", "-"), tests, how, tmp_path)
    if how not in ("pickle", "order"):
        assert naively(RIGHT_STREAM, STREAM, how, tmp_path)
        assert not naively(RIGHT_STREAM.replace("sum(", "max("), STREAM, how, tmp_path)


@pytest.mark.parametrize("kind", list(TASKS))
def test_the_honest_program_passes_what_the_forgeries_fail(strict: GraderPool, kind: Kind) -> None:
    assert grade(strict, RIGHT_STREAM if kind == "stream" else RIGHT, TASKS[kind]).score == 1.0


def test_an_attempt_finds_nothing_that_the_attempt_before_it_left(strict: GraderPool) -> None:
    leaving = """
import builtins, json, sys, os
builtins.known = json.known = 3
sys.modules["known"] = json
os.environ["KNOWN"] = "3"
for name in ("known", "/tmp/known", "/box/tmp/known"):
    try:
        open(name, "w").write("3")
    except OSError:
        pass
def add(a, b):
    return a + b
"""
    finding = """
import glob, json, os, sys
def add(a, b):
    found = [hasattr(__builtins__, "known"), hasattr(json, "known"), "known" in sys.modules, "KNOWN" in os.environ]
    return 3 if any(found) or "known" in os.listdir() or glob.glob("/tmp/*") + glob.glob("/box/tmp/*") else 0
"""
    assert grade(strict, leaving, CALLS).score == 1.0
    assert grade(strict, finding, CALLS[:1]).score == 0.0


def test_the_runs_of_a_program_that_reads_its_input_leave_nothing_to_each_other(strict: GraderPool) -> None:
    counting = "open('/tmp/n', 'a').write('x')\nprint(len(open('/tmp/n').read()))"
    assert grade(strict, counting, [{"input": "", "output": "1"}] * 2).score == 1.0


COLLIDING = """
import json, os, struct
def add(a, b):
    colliding = [["int", hex(number * ((1 << 61) - 1))] for number in range(1, 40_000)]
    body = json.dumps(["tuple", [1, "value", ["set", colliding]]]).encode()
    frame = struct.pack(">I", len(body)) + body
    while frame:
        frame = frame[os.write(3, frame):]
    os._exit(0)
"""


def test_a_forged_set_of_numbers_with_one_hash_does_not_hold_up_the_grader(strict: GraderPool) -> None:
    began = time.monotonic()
    assert grade(strict, COLLIDING, CALLS).score == 0.0
    assert time.monotonic() - began < 4.0, "the time limit is 1.5 s"


def test_a_very_long_message_is_cut_in_the_grade(strict: GraderPool) -> None:
    source = """
import json, os, struct
def add(a, b):
    body = json.dumps(["tuple", [1, "exception", "x" * 8_000_000]]).encode()
    frame = struct.pack(">I", len(body)) + body
    while frame:
        frame = frame[os.write(3, frame):]
"""
    assert len(grade(strict, source, CALLS).explanation) < 100_000


@pytest.mark.parametrize(
    "source", ["import os\nos.close(3)\nwhile True: pass", "while True: pass"], ids=["silent", "slow"]
)
def test_an_attempt_with_many_tests_is_over_soon_after_its_time_limit(lenient: GraderPool, source: str) -> None:
    began = time.monotonic()
    assert grade(lenient, source, CALLS * 20).score == 0.0
    assert time.monotonic() - began < 5.0, "the time limit is 1.5 s, for all tests together"
