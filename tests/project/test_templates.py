"""The graders that a project begins with, against scores worked by hand."""

from __future__ import annotations

import ast
import importlib
import inspect
import json

import pytest

from sharpen.project import examples, graders
from sharpen.project.tasks import TASKS

JSON = '{"item": "green tea", "quantity": 2, "paid": true}'
PROGRAM = "def twice(x):\n    return x + x"
REPLY = "Certainly, your parcel arrives tomorrow morning."  # six words, of which five have five letters or more

SCORES = [
    ("classify", "billing", "billing", 1),
    ("classify", " Billing.\n", "billing", 1),
    ("classify", '"late  delivery"', "Late delivery", 1),
    ("classify", "billing or shipping", "billing", 0),
    ("classify", "", "billing", 0),
    ("extract", JSON, JSON, 1),
    ("extract", f"```json\n{JSON}\n```", JSON, 1),
    ("extract", '{"quantity": 2, "paid": true, "item": "Green  Tea"}', JSON, 1),
    ("extract", '{"item": "green tea", "quantity": 3, "paid": true}', JSON, 2 / 3),
    ("extract", '{"item": "green tea"}', JSON, 1 / 3),
    ("extract", '{"item": "green tea", "quantity": 2, "paid": true, "city": "Rome"}', JSON, 3 / 4),
    ("extract", '{"item": "green tea", "quantity": 2, "paid": 1}', JSON, 2 / 3),  # true is not 1
    ("extract", JSON[:-1], JSON, 0),
    ("extract", f"Here it is: {JSON}", JSON, 0),
    ("extract", "[" * 100_000, JSON, 0),
    ("extract", "[1, 2]", "[1, 2]", 1),
    ("extract", "[2, 1]", "[1, 2]", 0),
    ("extract", "{}", "{}", 1),
    ("extract", '{"a": 1}', "{}", 0),
    ("extract", "null", "{}", 0),
    ("math", "7", "7", 1),
    ("math", "3 + 4 = 7.", "7", 1),
    ("math", "So it is 1,200.50 euros", "1200.5", 1),
    ("math", "-7", "7", 0),
    ("math", "10-7", "7", 1),  # a difference, no negative number
    ("math", "0.1", ".1", 1),
    ("math", "the answer is...5", "5", 1),
    ("math", "7 or 8", "7", 0),
    ("math", "seven", "7", 0),
    ("math", "9" * 5000, "7", 0),
    ("math", "She has 3 and 4, so 7.\n#### 7", "3 + 4 = 7\n#### 7", 1),
    ("chat", REPLY, REPLY, 1),
    ("chat", "Your PARCEL certainly arrives.", REPLY, 1),  # three of five telling words are enough
    ("chat", "The parcel arrives.", REPLY, 0.8),  # two of five: 0.4 of 0.5
    ("chat", "No.", REPLY, 0),
    ("chat", "", REPLY, 0),
    ("chat", " ".join(["parcel arrives certainly"] * 6), REPLY, 1),  # 18 words, of at most 19
    ("chat", " ".join(["parcel arrives certainly"] * 7), REPLY, 0),
    ("chat", "to be", "to be", 1),
    ("chat", "👍", "👍", 1),
    ("chat", "", "👍", 0),
    ("program", PROGRAM, PROGRAM, 1),
    ("program", f"```python\n{PROGRAM}  # twice\n```", PROGRAM, 1),
    ("program", "def twice(x):\n    return 2 * x", PROGRAM, 0.2),
    ("program", "def double(x):\n    return x + x", PROGRAM, 0),
    ("program", "def twice(x) return", PROGRAM, 0),
    ("program", "", PROGRAM, 0),
    ("program", "print(1)", "print(2)", 0),
]


@pytest.mark.parametrize(("kind", "said", "wanted", "score"), SCORES)
def test_a_grader_gives_what_it_says(kind: str, said: str, wanted: str, score: float) -> None:
    module = importlib.import_module(f"sharpen.project.templates.{kind}")
    given = module.grade({"output_text": said}, {"answer": wanted})
    assert isinstance(given, float) and given == pytest.approx(score)


KINDS = sorted({kind for kind, *_ in SCORES})


@pytest.mark.parametrize("kind", KINDS)
def test_a_grader_needs_nothing_but_python(kind: str) -> None:
    tree = ast.parse(graders.grader(kind))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"ast", "fractions", "json", "re", "typing"}


@pytest.mark.parametrize("task", TASKS)
def test_an_example_is_large_enough_and_drawn_the_same_each_time(task: str) -> None:
    rows = examples.rows(task)
    assert rows == examples.rows(task)
    assert 60 <= len(rows) <= 200
    assert len({row["prompt"] for row in rows}) == len(rows)
    assert all(TASKS[task].fits(row["completion"]) for row in rows)


def test_the_answers_of_the_examples_are_right() -> None:
    """Found again by other means: fields stand in the prompt, programs are run, sums are done by the words."""
    for row in examples.rows("extract"):
        assert all(str(value) in row["prompt"] for value in json.loads(row["completion"]).values()), row
    for row in examples.rows("code"):
        scope: dict[str, object] = {}
        exec(row["completion"], scope)
        (function,) = [value for value in scope.values() if inspect.isfunction(value)]
        for test in row["tests"]:
            assert function(*test["args"]) == test["expected"], row
        assert f"{function.__name__}(" in row["prompt"]
    for row in examples.rows("math"):
        numbers = [
            int(word.strip(".")) for word in row["prompt"].replace(",", " ").split() if word.strip(".").isdigit()
        ]
        one, two, *three = numbers
        words = row["prompt"]
        wanted = one * two if "each" in words else one + two if "more" in words else one - two + sum(three)
        assert row["completion"] == str(wanted), row
