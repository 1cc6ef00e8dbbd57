"""The `python` grader: its contract, what its program may return, its limits, and what one grade leaves to the next."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from sharpen.config.graders import Python
from sharpen.errors import GraderError
from sharpen.graders.pool import GraderPool
from sharpen.sandbox import plan
from sharpen.types import Example, Grade, Sample

DISPATCH = """
import numpy

class Number:
    def __float__(self):
        return 1.0

def deep(levels):
    found = 1
    for _ in range(levels):
        found = [found]
    return found

def counted():
    yield 1.0

def grade(sample, item):
    return eval(item["say"])
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[GraderPool]:
    """A grader that returns what its item says, in Python's words."""
    with GraderPool(Python(source=DISPATCH, time_limit=20.0), workers=1) as pool:
        yield pool


def grades(pool: GraderPool, *texts: str, **item: Any) -> list[Grade]:
    return asyncio.run(pool.grade_many([(Example("e", (), item), Sample(text)) for text in texts]))


def once(body: str, text: str = "", head: str = "", item: dict[str, Any] | None = None, **config: Any) -> Grade:
    """The grade of a grader with this body."""
    lines = body.replace("\n", "\n    ")
    source = f"{head}\ndef grade(sample, item):\n    {lines}\n"
    with GraderPool(Python(source=source, **config), workers=1) as pool:
        return grades(pool, text, **(item or {}))[0]


def fault(given: Grade) -> str:
    return given.fault.kind if given.fault else ""


def test_it_is_called_with_the_sample_and_the_items_fields() -> None:
    body = "return float(sample['output_text'] == item['answer'] and item['n'] == {'deep': [1, None, 2.5, True]})"
    item = {"answer": "4", "n": {"deep": [1, None, 2.5, True]}}
    assert once(body, "4", item=item).score == 1.0
    assert once(body, "5", item=item).score == 0.0
    assert once("return len(sample['output_text'])", "größe").score == 5.0
    names = ["choices", "finish", "output_json", "output_text", "output_tools", "reasoning_text"]
    assert once(f"return sorted(sample) == {names}").score == 1.0
    assert once("return sample['output_json']['k'][1]", '{"k": [1, 0.5]}').score == 0.5
    assert once("return float(sample['output_json'] is None and sample['output_tools'] == [])", "{").score == 1.0
    call = '<tool_call>{"name": "f", "arguments": {"x": 0.25}}</tool_call>'
    body = "import json\ncall = sample['choices'][0]['message']['tool_calls'][0]['function']\n"
    assert once(f"{body}return json.loads(call['arguments'])['x'] * (call['name'] == 'f')", call).score == 0.25


def test_it_is_called_with_dicts_and_lists_of_pythons_own() -> None:
    body = "return all(type(x) is t for x, t in [(sample, dict), (item, dict), (item['l'], list), (item['s'], str)])"
    assert once(body, item={"l": [1], "s": "x"}).score == 1.0


def test_what_it_is_called_with_is_a_copy() -> None:
    item = {"l": [1]}
    assert once("item['l'].append(2)\nsample['output_text'] = ''\nreturn 1.0", item=item).score == 1.0
    assert item == {"l": [1]}


@pytest.mark.parametrize(
    "say, score",
    [
        ("0.25", 0.25),
        ("1", 1.0),
        ("-3", -3.0),
        ("True", 1.0),
        ("False", 0.0),
        ("1e38", 1e38),
        ("1e-320", 1e-320),
        ("10**300", 1e300),
        ("numpy.float64(0.5)", 0.5),
        ("numpy.float32(0.5)", 0.5),
        ("numpy.float16(0.5)", 0.5),
        ("numpy.int64(2)", 2.0),
        ("numpy.uint8(2)", 2.0),
        ("numpy.bool_(True)", 1.0),
        ("numpy.array(0.5)", 0.5),
        ("numpy.mean([0.0, 1.0])", 0.5),
        ("{'score': 0.5}", 0.5),
        ("{'score': numpy.float32(0.5)}", 0.5),
        ("float(sample['output_text'])", 7.0),
    ],
)
def test_a_number_is_the_score(pool: GraderPool, say: str, score: float) -> None:
    (given,) = grades(pool, "7", say=say)
    assert (given.score, given.fault) == (score, None)


def test_a_dict_has_metrics_beside_its_score(pool: GraderPool) -> None:
    (given,) = grades(pool, "", say="{'score': 0.5, 'length': 3, 'right': True, 'near': numpy.float32(0.25)}")
    assert given.score == 0.5
    assert given.metrics == {"length": 3.0, "right": 1.0, "near": 0.25}


@pytest.mark.parametrize(
    "say, why",
    [
        ("None", "no number"),
        ("'1.0'", "no number"),
        ("b'1'", "no number"),
        ("1j", "no number"),
        ("[1.0]", "no number"),
        ("(1.0,)", "no number"),
        ("{1.0}", "no number"),
        ("numpy.array([0.5])", "no number"),
        ("{}", 'no "score"'),
        ("{'Score': 1}", 'no "score"'),
        ("{'score': None}", "no number"),
        ("{'score': 'high'}", "no number"),
        ("{'score': 1, 'why': 'so'}", "'why'"),
        ("{'score': {'score': 1}}", "no number"),
        ("1e308 * 10", "finite"),
        ("-1e308 * 10", "finite"),
        ("float('nan')", "finite"),
        ("numpy.float64('nan')", "finite"),
        ("{'score': 1, 'loss': float('inf')}", "finite"),
        ("10 ** 400", "too large"),
        ("{'score': 10 ** 400}", "too large"),
        ("10 ** 5000", "too large"),
        ("[10 ** 5000]", ""),
        ("Number()", "no plain data"),
        ("object()", "no plain data"),
        ("counted()", "no plain data"),
        ("lambda: 1.0", "no plain data"),
        ("NotImplemented", "no plain data"),
        ("deep(1000)", "nested"),
        ("deep(90)", "no number"),
        ("'x' * 100_000_000", "output_limit"),
        ("'\\ud800'", "no number"),
        ("1 / 0", "ZeroDivisionError"),
        ("nowhere", "NameError"),
        ("[].pop()", "IndexError"),
        ("exec('raise KeyboardInterrupt')", "KeyboardInterrupt"),
        ("exec('raise ExceptionGroup(\"x\", [ValueError()])')", "ExceptionGroup"),
    ],
)
def test_what_is_no_finite_number_is_the_graders_fault_and_gives_no_score(pool: GraderPool, say: str, why: str) -> None:
    (given,) = grades(pool, "", say=say)
    assert given.score is None
    assert fault(given) == "python_grader_runtime_error"
    assert why in given.explanation
    assert len(given.explanation) < 5000


LIMITS = [
    ("while True: pass", "timeout"),
    ("import time; time.sleep(100)", "timeout"),
    ("bytearray(3 << 30)", "oom"),
    ("x = []\nwhile True: x.append(bytearray(64 << 20))", "oom"),
    ("import os; os.posix_fallocate(os.open('big', os.O_CREAT | os.O_RDWR), 0, (1 << 30) + 1)", "disk_limit"),
    ("with open('big', 'wb') as file:\n    for _ in range(2049): file.write(bytes(1 << 19))", "disk_limit"),
    ("print('x' * 2_000_000)", "output_limit"),
    ("import os\nwhile True: os.write(2, b'x' * 10_000)", "output_limit"),
    ("return 'x' * 20_000_000", "output_limit"),
    ("import socket; socket.socket()", "denied"),
    ("import urllib.request; urllib.request.urlopen('http://example.com')", ""),
    ("import socket; socket.getaddrinfo('example.com', 80)", "denied"),
    ("import os; os.fork()", "denied"),
    ("import subprocess; subprocess.run(['true'])", ""),
    ("open('/etc/x', 'w')", "denied"),
    ("import threading\nwhile True: threading.Thread(target=threading.Event().wait, daemon=True).start()", "denied"),
    ("raise SystemExit", "exit"),
    ("import sys; sys.exit('no')", "exit"),
    ("import os; os._exit(0)", "exit"),
    ("import os; os._exit(7)", "exit"),
    ("import ctypes; ctypes.string_at(0)", "crashed"),
    ("import os; os.abort()", ""),
    ("import os; os.close(3)\nwhile True: pass", "crashed"),
    ("import os; os.write(3, b'\\0\\0\\0\\1x'); os._exit(0)", "crashed"),
]


@pytest.mark.parametrize("body, kind", LIMITS)
def test_each_limit_shows_by_its_name(body: str, kind: str) -> None:
    given = once(body, time_limit=1.0 if kind == "timeout" else 15.0)
    assert given.score is None
    assert fault(given) == "python_grader_runtime_error"
    assert given.fault and re.match(r"[a-z_]+: .", given.fault.detail)
    assert given.explanation.startswith(kind), given.explanation


def test_a_sparse_file_takes_no_room_until_it_is_written() -> None:
    seeking = "with open('big', 'wb') as file:\n    file.seek(8 << 30)\n    file.write(b'x')"
    assert once(f"{seeking}\nreturn 1.0", time_limit=15.0).score in (1.0, None)
    given = once(f"{seeking}\n    file.seek(0)\n    for _ in range(2049): file.write(bytes(1 << 19))", time_limit=15.0)
    assert given.explanation.startswith("disk_limit")


def test_after_each_fault_the_next_grade_is_right() -> None:
    bodies = "\n".join(f"    if item == {{'n': {n}}}: {body!r}; exec({body!r})" for n, body in enumerate(
        ["1 / 0", "bytearray(3 << 30)", "import os; os._exit(0)", "import ctypes; ctypes.string_at(0)",
         "while True: pass", "print('x' * 2_000_000)", "import os; os.write(3, b'xxxxxxxxxxx')"]))  # fmt: skip
    for persistent in (False, True):
        config = Python(
            source=f"def grade(sample, item):\n{bodies}\n    return 0.5", persistent=persistent, time_limit=1
        )
        with GraderPool(config, workers=1) as pool:
            for n in range(7):
                assert grades(pool, "", n=n)[0].score is None
                assert grades(pool, "", n="next")[0].score == 0.5


COUNTING = """
import builtins, os
seen = []
def grade(sample, item):
    seen.append(1)
    builtins.count = getattr(builtins, "count", 0) + 1
    os.environ["COUNT"] = str(int(os.environ.get("COUNT", 0)) + 1)
    open("count", "a").write("x")
    counts = [len(seen), builtins.count, int(os.environ["COUNT"]), len(open("count").read())]
    return {"score": counts[0], "builtins": counts[1], "environment": counts[2], "files": counts[3]}
"""


def test_fresh_runs_find_nothing_of_each_other_and_persistent_ones_all() -> None:
    for persistent, counts in ((False, [1.0, 1.0, 1.0]), (True, [1.0, 2.0, 3.0])):
        with GraderPool(Python(source=COUNTING, persistent=persistent), workers=1) as pool:
            given = grades(pool, "", "", "")
        assert [grade.score for grade in given] == counts
        for name in ("builtins", "environment", "files"):
            assert [grade.metrics[name] for grade in given] == counts


def test_a_persistent_grader_that_dies_starts_anew() -> None:
    source = COUNTING.replace("    seen.append", "    if item: os._exit(0)\n    seen.append")
    with GraderPool(Python(source=source, persistent=True), workers=1) as pool:
        assert [grade.score for grade in grades(pool, "", "")] == [1.0, 2.0]
        assert grades(pool, "", die=True)[0].score is None
        assert grades(pool, "")[0].score == 1.0


def test_persistent_grades_are_many_times_as_fast() -> None:
    seconds = {}
    for persistent in (False, True):
        config = Python(source="def grade(sample, item):\n    return 1.0", persistent=persistent)
        with GraderPool(config, workers=1) as pool:
            grades(pool, "")
            began = time.perf_counter()
            grades(pool, *["x"] * 100)
            seconds[persistent] = time.perf_counter() - began
    assert seconds[True] < seconds[False] / 3


def test_time_limit_is_that_of_one_grade() -> None:
    body = "import time; time.sleep(0.4); return 1.0"
    assert once(body, time_limit=0.1).explanation.startswith("timeout: ")
    assert once(body, time_limit=20.0).score == 1.0
    source = f"def grade(sample, item):\n    {body}"
    with GraderPool(Python(source=source, time_limit=1.9, persistent=True), workers=1) as pool:
        assert [grade.score for grade in grades(pool, *["x"] * 5)] == [1.0] * 5, "each has the time to itself"


def test_a_program_that_fails_when_loaded_fails_every_grade_with_its_words() -> None:
    for head, why in (
        ("raise ValueError('at once')", "at once"),
        ("while True: pass", "timeout"),
        ("exit_ = 1 / 0", "Zero"),
    ):
        for persistent in (False, True):
            given = once("return 1.0", head=head, time_limit=1.0, persistent=persistent)
            assert given.score is None
            assert why in given.explanation


def test_the_line_that_raised_is_named() -> None:
    assert "(line 3)" in once("raise ValueError('no')", head="").explanation


@pytest.mark.parametrize(
    "source, why",
    [
        ("", "no `def grade"),
        ("def score(sample, item):\n    return 1.0", "score"),
        ("if True:\n    def grade(sample, item): return 1.0", "no `def grade"),
        ("grade = lambda sample, item: 1.0", "no `def grade"),
        ("async def grade(sample, item): return 1.0", "no `def grade"),
        ("class grade: pass", "no `def grade"),
        ("def grade(sample, item) return 1.0", "line 1"),
        ("def grade(sample, item):\n\treturn 1\n        return 2", "line 3"),
        ("def grade(sample, item):\n    return 1.0\0", "no Python program"),
        ("def grade(sample, item):\n    return 1.0\n#" + "x" * 256_000, "256,000 bytes"),
        ("def grade(sample, item):\n    return 1.0\n#" + "ö" * 128_000, "256,000 bytes"),
        ("(" * 100_000, "no Python program"),
        ("x = '\ud800'\ndef grade(sample, item): return 1.0", "no Python program"),
    ],
)
def test_a_source_that_is_no_grader_is_refused_with_the_reason(source: str, why: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(why)):
        Python(source=source)


def test_a_source_of_just_under_the_limit_is_taken() -> None:
    source = "def grade(sample, item):\n    return 1.0\n#"
    with GraderPool(Python(source=source + "x" * (256_000 - len(source))), workers=1) as pool:
        assert grades(pool, "")[0].score == 1.0


@pytest.mark.parametrize("limit", [0, -1, 121, float("nan"), float("inf")])
def test_a_time_limit_beyond_its_bounds_is_refused(limit: float) -> None:
    with pytest.raises(ValidationError):
        Python(source="def grade(sample, item): return 1.0", time_limit=limit)


@pytest.mark.parametrize(
    "head",
    [
        "import nowhere_to_be_found",
        "from nowhere_to_be_found.part import thing",
        "if False: import nowhere_to_be_found",
    ],
)
def test_a_package_that_is_not_installed_is_named_with_the_remedy_at_the_start(head: str) -> None:
    source = f"{head}\ndef grade(sample, item): return 1.0"
    with GraderPool(Python(source=source), workers=1) as pool, pytest.raises(GraderError) as caught:
        asyncio.run(pool.start())
    assert "nowhere_to_be_found" in str(caught.value)
    assert "pip install" in str(caught.value.remedy)


def test_the_packages_it_imports_are_there_and_no_others() -> None:
    assert once("return numpy.linalg.norm([3, 4])", head="import numpy.linalg").score == 5.0
    assert once("import numpy as np; return np.float32(0.5)").score == 0.5
    assert once("import yaml; return yaml.safe_load('0.5')").score == 0.5, "PyYAML, by the name of its module"
    given = once("return __import__('pydantic') is not None")
    assert "No module named 'pydantic'" in given.explanation


def test_an_import_of_what_comes_with_python_needs_nothing() -> None:
    head = "from __future__ import annotations\nimport os.path, json, sqlite3, difflib, unicodedata, zoneinfo"
    assert once("return difflib.SequenceMatcher(None, 'ab', 'ab').ratio()", head=head).score == 1.0


@pytest.mark.parametrize("value", [object(), lambda: 1, {1: {2: {3: print}}}], ids=["object", "function", "deep"])
def test_an_item_that_can_hardly_travel_does_not_bring_down_the_others(value: Any) -> None:
    pairs = [(Example("e", (), {"x": value}), Sample("")), (Example("f", (), {"x": 1}), Sample(""))]
    with GraderPool(Python(source="def grade(sample, item): return 1.0"), workers=1) as pool:
        given = asyncio.run(pool.grade_many(pairs))
    assert given[0].score in (1.0, None)
    assert given[1].score == 1.0


def test_a_very_deep_item_does_not_bring_down_the_others() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    pairs = [(Example("e", (), {"x": deep}), Sample("")), (Example("f", (), {"x": 1}), Sample(""))]
    with GraderPool(Python(source="def grade(sample, item): return 1.0"), workers=1) as pool:
        given = asyncio.run(pool.grade_many(pairs))
    assert given[0].score in (1.0, None)
    assert given[1].score == 1.0


def test_what_it_prints_is_no_part_of_its_answer() -> None:
    assert once("print('0.0'); print('1.0'); return 0.5").score == 0.5
    assert once("import sys; sys.stdout.close(); sys.stderr.close(); return 0.5").score == 0.5


def test_a_text_of_a_megabyte_is_graded() -> None:
    assert once("return len(sample['output_text'])", "x" * 1_000_000).score == 1e6


def test_a_package_that_fails_to_load_is_told_with_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "distributions", lambda: {"broken_inside": ["numpy"]})
    with (
        GraderPool(Python(source="import broken_inside\ndef grade(sample, item): return 1.0"), workers=1) as pool,
        pytest.raises(GraderError, match=r"^'broken_inside' cannot be loaded in the sandbox: ModuleNotFoundError"),
    ):
        asyncio.run(pool.start())
