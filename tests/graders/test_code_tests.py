"""`code_tests`: its fields, the shapes of tests, whose fault a failure is, and HumanEval's own solutions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from sharpen.config.graders import CodeTests
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Grade, Sample

ADD = "def add(a, b):\n    return a + b"
SUM = "print(sum(map(int, input().split())))"
CALLS: list[dict[str, Any]] = [{"args": [1, 2], "expected": 3}, {"args": [5, 5], "expected": 10}]


@pytest.fixture(scope="module")
def pool() -> Iterator[GraderPool]:
    with GraderPool(CodeTests(function="{{ item.function }}", time_limit=2.0), workers=1) as pool:
        yield pool


def grade(pool: GraderPool, text: str, tests: Any, function: str = "add", **item: Any) -> Grade:
    example = Example("e", (), {"tests": tests, "function": function, **item})
    return asyncio.run(pool.grade_many([(example, Sample(text))]))[0]


def score(config: CodeTests, text: str, tests: Any = CALLS, **item: Any) -> float | None:
    with GraderPool(config, workers=1) as pool:
        return grade(pool, text, tests, **item).score


def fault(given: Grade) -> str:
    return given.fault.kind if given.fault else ""


def test_tests_names_where_the_tests_stand() -> None:
    hidden = {"cases": [{"args": [1, 2], "expected": 4}]}
    assert score(CodeTests(function="add"), ADD, hidden=hidden) == 1.0
    assert score(CodeTests(function="add", tests="{{ item.hidden.cases }}"), ADD, hidden=hidden) == 0.0
    assert score(CodeTests(function="add", tests="assert add(1, {{ item.n }}) == 3"), ADD, n=2) == 1.0
    assert score(CodeTests(function="add", tests="assert add(1, {{ item.n }}) == 3"), ADD, n=3) == 0.0


def test_function_names_what_is_called() -> None:
    both = f"{ADD}\ndef sub(a, b):\n    return a - b"
    assert score(CodeTests(function="add"), both) == 1.0
    assert score(CodeTests(function="sub"), both) == 0.0
    assert score(CodeTests(function="{{ item.entry }}"), both, entry="add") == 1.0


def test_prefix_stands_before_the_program() -> None:
    body = "    return a + b"
    assert score(CodeTests(function="add", prefix="{{ item.start }}\n"), body, start="def add(a, b):") == 1.0
    assert score(CodeTests(function="add"), body, start="def add(a, b):") == 0.0


def test_packages_are_there_to_import_and_others_are_not() -> None:
    text = "import numpy as np\ndef add(a, b):\n    return np.add(a, b)"
    assert score(CodeTests(function="add", packages=("numpy",)), text) == 1.0
    with GraderPool(CodeTests(function="add"), workers=1) as pool:
        without = grade(pool, text, CALLS)
    assert without.score == 0.0
    assert "No module named 'numpy'" in without.explanation


def test_a_package_goes_by_its_distributions_name_whatever_its_modules_are_called() -> None:
    text = "import yaml\ndef add(a, b):\n    return yaml.safe_load(f'{a + b}')"
    assert score(CodeTests(function="add", packages=("PyYAML",)), text) == 1.0


def test_partial_credit_is_the_share_of_tests_passed() -> None:
    tests = [*CALLS, {"args": [1, 1], "expected": 3}, {"args": [2, 2], "expected": 5}]
    assert score(CodeTests(function="add"), ADD, tests) == 0.0
    assert score(CodeTests(function="add", partial_credit=True), ADD, tests) == 0.5


def test_with_partial_credit_a_crash_costs_its_own_test_only() -> None:
    text = "import os\ndef add(a, b):\n    if a == 5:\n        os._exit(1)\n    return a + b"
    tests = [CALLS[0], CALLS[1], CALLS[0], CALLS[0]]
    with GraderPool(CodeTests(function="add", partial_credit=True), workers=1) as pool:
        given = grade(pool, text, tests)
    assert given.score == 0.75
    assert given.fault is None
    assert given.explanation.startswith("test 2 of 4")


def test_rel_tolerance_says_how_near_is_equal() -> None:
    tests = [{"args": [1, 0], "expected": 1.001}]
    assert score(CodeTests(function="add"), ADD, tests) == 0.0
    assert score(CodeTests(function="add", rel_tolerance=0.01), ADD, tests) == 1.0
    streams = [{"input": "1 0", "output": "1.001"}]
    assert score(CodeTests(), SUM, streams) == 0.0
    assert score(CodeTests(rel_tolerance=0.01), SUM, streams) == 1.0


def test_time_limit_is_that_of_all_tests_together() -> None:
    text = "import time\ndef add(a, b):\n    time.sleep(0.4)\n    return a + b"
    assert score(CodeTests(function="add", time_limit=20.0), text, CALLS * 2) == 1.0
    with GraderPool(CodeTests(function="add", time_limit=1.0), workers=1) as pool:
        given = grade(pool, text, CALLS * 2)
    assert given.score == 0.0
    assert fault(given) == "timeout"


@pytest.mark.parametrize(
    "tests, text",
    [
        (CALLS, ADD),
        ([{"kwargs": {"a": 1, "b": 2}, "expected": 3}], ADD),
        ([{"args": [1], "kwargs": {"b": 2}, "expected": 3}], ADD),
        ([{"input": "1 2\n", "output": "3\n"}], SUM),
        ([{"input": ["1 2"], "output": ["3"]}], SUM),
        (["assert add(1, 2) == 3", "assert add(b=1, a=1) == 2"], ADD),
        ("assert candidate(1, 2) == 3", ADD),
        ("def check(candidate):\n    assert candidate(1, 2) == 3\n", ADD),
        ("def check(candidate):\n    assert candidate(1, 2) == 3\ncheck(add)\n", ADD),
        ({"inputs": ["1 2\n", "2 2\n"], "outputs": ["3\n", "4\n"]}, SUM),
        ({"inputs": [[1, 2], [2, 2]], "outputs": [3, 4], "fn_name": "add"}, ADD),
        (
            [{"input": "1 2\n", "output": "3\n"}, CALLS[0], "assert add(0, 0) == 0"],
            f"{ADD}\ndef main():\n    {SUM}\nif __name__ == '__main__':\n    main()",
        ),
    ],
)
def test_every_shape_of_tests_tells_right_from_wrong(pool: GraderPool, tests: Any, text: str) -> None:
    assert grade(pool, text, tests).score == 1.0
    assert grade(pool, text.replace("a + b", "a - b").replace("sum(", "max("), tests).score == 0.0


def test_tacos_function_name_is_enough_to_call_it(pool: GraderPool) -> None:
    given = grade(pool, ADD, {"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"}, function="")
    assert given.score == 1.0 or fault(given) == "invalid_variable_error", "it cannot be the program's fault"


def nested(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    "tests",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="empty list"),
        pytest.param(3, id="a number"),
        pytest.param({}, id="empty object"),
        pytest.param([3], id="numbers"),
        pytest.param("def check(", id="no program"),
        pytest.param(["assert add(1, 2) ==="], id="no assertion"),
        pytest.param([{"args": [1, 2]}], id="nothing expected"),
        pytest.param([{"expected": 3}], id="no arguments"),
        pytest.param([{"input": "1"}], id="no output"),
        pytest.param({"inputs": ["1"], "outputs": []}, id="fewer outputs"),
        pytest.param({"inputs": [], "outputs": []}, id="no inputs"),
        pytest.param({"inputs": None, "outputs": None}, id="inputs are null"),
        pytest.param([{"args": 5, "expected": 1}], id="arguments are no list"),
        pytest.param([{"args": [1, 2], "kwargs": 3, "expected": 1}], id="named arguments are no object"),
        pytest.param([{"args": [nested(5000), 1], "expected": 1}], id="arguments too deep"),
        pytest.param([{"args": [lambda: 1, 1], "expected": 1}], id="arguments that cannot travel"),
        pytest.param([{"input": "\ud800", "output": "1"}], id="half a character"),
        pytest.param("x" * 300_000, id="too long"),
    ],
)
def test_tests_that_cannot_be_read_are_the_graders_fault(pool: GraderPool, tests: Any) -> None:
    given = grade(pool, ADD, tests)
    assert given.score is None
    assert fault(given) == "invalid_variable_error"


def test_a_missing_field_is_the_graders_fault(pool: GraderPool) -> None:
    with GraderPool(CodeTests(function="add", tests="{{ item.nowhere }}"), workers=1) as other:
        assert fault(grade(other, ADD, CALLS)) == "invalid_variable_error"
    given = grade(pool, ADD, CALLS, function="")
    assert given.score is None
    assert "names none" in given.explanation


@pytest.mark.parametrize(
    "tests",
    [
        pytest.param("", id="empty"),
        pytest.param("  \n", id="blank"),
        pytest.param("import math\nx = 1", id="no assertion"),
        pytest.param([""], id="an empty assertion"),
        pytest.param(json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}), id="TACO's tests as JSON"),
        pytest.param(json.dumps([{"input": "1 2\n", "output": "3\n"}]), id="tests as JSON"),
    ],
)
def test_tests_that_test_nothing_give_no_program_a_point(pool: GraderPool, tests: Any) -> None:
    assert grade(pool, "I do not know.", tests).score != 1.0


@pytest.mark.parametrize(
    "tests, answer",
    [
        pytest.param([{"args": [], "expected": nested(3000)}], "1", id="very deep"),
        pytest.param([{"args": [], "expected": 10**5000}], "1", id="a very long number"),
        pytest.param([{"args": [], "expected": [{1}]}], "{1}", id="a set in a list"),
        pytest.param([{"args": [], "expected": [[{"a": 1}]]}], "{1}", id="an object in a list"),
    ],
)
def test_an_odd_expectation_is_compared_without_an_error(pool: GraderPool, tests: Any, answer: str) -> None:
    assert grade(pool, f"def add():\n    return {answer}", tests).score in (0.0, None)


@pytest.mark.parametrize(
    "body, kind",
    [
        ("return 0", ""),
        ("return 1 / 0", "exception"),
        ("while 1: pass", "timeout"),
        ("return bytearray(3 << 30)", "oom"),
        ("import socket; socket.socket()", "denied"),
        ("import os; os.fork()", "denied"),
        ("open('/etc/passwd')", "exception"),
        ("open('/x', 'w')", "denied"),
        ("exit_ = __import__('sys').exit; exit_(3)", "exit"),
        ("import os; os._exit(0)", "exit"),
        ("import ctypes; ctypes.string_at(0)", "crashed"),
        ("import os; os.write(3, b'00000000000'); os._exit(0)", "output_limit"),
        ("import os; os.write(3, b'\\0\\0\\0\\1x'); os._exit(0)", "crashed"),
        ("print('x' * 3_000_000)", "output_limit"),
        ("return 'x' * 20_000_000", "output_limit"),
        ("return object()", "exception"),
        ("import os; os.posix_fallocate(os.open('/tmp/x', os.O_CREAT | os.O_RDWR), 0, 2 << 30)", "disk_limit"),
    ],
)
def test_what_goes_wrong_in_the_program_is_its_own_fault_and_scores_zero(
    pool: GraderPool, body: str, kind: str
) -> None:
    for text in (f"def add(a, b):\n    {body}", f"{body}\n{ADD}" if kind and "return" not in body else ""):
        if text:
            given = grade(pool, text, CALLS)
            assert given.score == 0.0
            assert fault(given) == kind, given.explanation
            assert given.metrics == {"format": 1.0, "passed": 0.0}


def test_a_program_that_ends_before_its_time_does_not_pass_by_its_output(pool: GraderPool) -> None:
    tests = [{"input": "1 2\n", "output": "3\n"}]
    assert grade(pool, f"{SUM}\nraise SystemExit(0)", tests).score == 1.0
    for end in ("raise SystemExit(1)", "1 / 0", "import os; os._exit(3)", "raise SystemExit('no')"):
        given = grade(pool, f"{SUM}\n{end}", tests)
        assert given.score == 0.0, end
        assert fault(given) in ("exit", "exception")


def test_a_missing_program_and_a_wrong_one_are_the_completions_fault(pool: GraderPool) -> None:
    for text in ("", "  \n ", "```python\n\n```"):
        given = grade(pool, text, CALLS)
        assert (given.score, fault(given)) == (0.0, "sample_parse_error")
        assert given.metrics["format"] == 0.0
    for text in ("def add(a, b) return a", "I cannot say.", "def add(a, b):\n    return a\0", "x = '\ud800'\n" + ADD):
        given = grade(pool, text, CALLS)
        assert (given.score, fault(given)) == (0.0, "exception"), text
    too_long = grade(pool, ADD + "\n#" + "x" * 256_000, CALLS)
    assert (too_long.score, fault(too_long)) == (0.0, "sample_parse_error")
    assert grade(pool, ADD + "\n#" + "x" * 250_000, CALLS).score == 1.0


def test_a_missing_function_is_the_programs_fault(pool: GraderPool) -> None:
    for text in ("def sum(a, b):\n    return a + b", "add = 3"):
        given = grade(pool, text, CALLS)
        assert given.score == 0.0
        assert "no function 'add'" in given.explanation


@pytest.mark.parametrize(
    "tests", [[{"kwargs": {"function": 1, "name": 2}, "expected": 3}], "assert candidate(function=1, name=2) == 3"]
)
def test_a_parameter_may_have_any_name(pool: GraderPool, tests: Any) -> None:
    assert grade(pool, "def add(function, name):\n    return function + name", tests).score == 1.0


def test_a_wrong_answer_of_five_thousand_digits_is_a_wrong_answer(pool: GraderPool) -> None:
    assert grade(pool, "def add(a, b):\n    return 10 ** 5000", CALLS).score == 0.0


def test_an_exception_group_of_the_program_is_no_other_exception_to_the_check(pool: GraderPool) -> None:
    text = "def add():\n    raise ExceptionGroup('several', [ValueError()])"
    expecting = "try:\n    candidate()\nexcept {}:\n    pass\nelse:\n    assert False"
    assert grade(pool, text, expecting.format("TypeError")).score == 0.0
    assert grade(pool, text, expecting.format("Exception")).score == 1.0


def test_the_explanation_names_the_first_test_that_failed(pool: GraderPool) -> None:
    given = grade(pool, "def add(a, b):\n    return 3", CALLS)
    assert given.explanation == "test 2 of 2: expected 10, got 3"
    assert given.fault is None
    given = grade(pool, "def add(a, b):\n    return b[a]", CALLS)
    assert given.explanation.startswith("test 1 of 2: TypeError")
    assert "(line 2)" in given.explanation


def test_grades_of_foreign_programs_are_not_surely_repeatable(pool: GraderPool) -> None:
    assert not pool.repeatable(grade(pool, "import os\nos._exit(1)", CALLS))
    assert not pool.repeatable(grade(pool, ADD, CALLS)), "a foreign program may roll dice"
