"""The grader of a project and its test, as texts: files that stand alone, and are the user's from then on."""

from __future__ import annotations

from importlib import resources

GRADER = "{type: plugin, use: 'grader.py:grade'}"
"""How the recipe names grader.py: by its file, so that it is found from wherever the run is started."""

TESTED, CALLED = "{type: code_tests}", "{type: code_tests, function: '{{ item.entry_point }}'}"
"""The grader of programs with unit tests, which run in a sandbox: tests that are programs, and those that call one."""

_HEAD = '''"""Is the grader right? `python test_grader.py` runs all tests, and so does `pytest`."""

import json
from pathlib import Path

from grader import grade

ROWS = [json.loads(line) for line in (Path(__file__).parent / "data/test.jsonl").read_text("utf-8").splitlines()]


def score(said, wanted):
    """What `grade` gives for an answer, where the row has another."""
    return grade({"output_text": said}, {"answer": wanted})


def test_the_right_answer_of_every_row_scores_1():
    for row in ROWS:
        assert grade({"output_text": row["answer"]}, row) == 1, row


def test_an_empty_answer_scores_0():
    for row in ROWS:
        assert grade({"output_text": ""}, row) == 0, row
'''

_TAIL = """

if __name__ == "__main__":
    tests = [value for name, value in list(globals().items()) if name.startswith("test_")]
    for test in tests:
        test()
    print(f"{len(tests)} tests passed")
"""

_CASES = {
    "classify": """

def test_case_and_a_full_stop_do_not_count():
    assert score(" Billing.\\n", "billing") == 1


def test_another_label_and_further_words_score_0():
    assert score("shipping", "billing") == 0
    assert score("The label is billing", "billing") == 0
""",
    "extract": """

def test_a_wrong_field_takes_its_share():
    wanted = '{"item": "tea", "quantity": 2}'
    assert score('{"quantity": 2, "item": " Tea"}', wanted) == 1
    assert score('{"item": "tea", "quantity": 3}', wanted) == 0.5
    assert score('{"item": "tea", "quantity": 2, "city": "Rome", "name": "Ann"}', wanted) == 0.5


def test_what_is_no_json_scores_0():
    assert score("two packets of tea", '{"item": "tea", "quantity": 2}') == 0
""",
    "math": """

def test_the_last_number_counts():
    assert score("3 + 4 = 7", "7") == 1
    assert score("It is 1,200.0", "1200") == 1
    assert score("7 or 8", "7") == 0
    assert score("-7", "7") == 0
""",
    "chat": """

def test_an_answer_without_the_words_of_the_row_scores_0():
    assert score("No.", "Certainly, your parcel arrives on Monday.") == 0


def test_a_rambling_answer_scores_0():
    assert score("Certainly, your parcel arrives on Monday. " * 20, "Certainly, your parcel arrives on Monday.") == 0
""",
    "program": """

def test_layout_and_comments_do_not_count():
    assert score("def double(x):  # twice\\n  return (x + x)", "def double(x):\\n    return x + x") == 1


def test_another_program_of_the_same_name_is_partly_right():
    assert score("def double(x):\\n    return x", "def double(x):\\n    return x + x") == 0.2
    assert score("double", "def double(x):\\n    return x + x") == 0
""",
}

_TESTED_TEST = '''"""Is the grader right? `python test_grader.py` runs all tests, and so does `pytest`.

The grader is the one that recipe.yaml names: it runs each program against the unit tests of its row, in a sandbox.
"""

import json
from pathlib import Path

from sharpen.config.load import load
from sharpen.types import Example, Sample

HERE = Path(__file__).parent
ROWS = [json.loads(line) for line in (HERE / "data/test.jsonl").read_text("utf-8").splitlines()]


def scores(answers):
    """The scores of one answer for each row."""
    grader = load(HERE / "recipe.yaml").evals[0].grader.build()
    worker = grader.worker()
    try:
        return [grader.grade(worker, Example("", (), row), Sample(said)).score for row, said in zip(ROWS, answers)]
    finally:
        worker.kill()


def test_the_program_of_every_row_passes_its_tests():
    for row, score in zip(ROWS, scores(row["answer"] for row in ROWS)):
        assert score == 1, row


def test_a_program_that_does_nothing_passes_none():
    nothing = "def {}(*given):\\n    raise NotImplementedError"
    for row, score in zip(ROWS, scores(nothing.format(row.get("entry_point", "main")) for row in ROWS)):
        assert score == 0, row
'''


def grader(kind: str) -> str:
    """The text of grader.py; `kind` is a module of `templates`."""
    return resources.files("sharpen.project.templates").joinpath(f"{kind}.py").read_text(encoding="utf-8")


def test(kind: str) -> str:
    """The text of test_grader.py."""
    return _HEAD + _CASES[kind] + _TAIL


def tested_test() -> str:
    """The text of test_grader.py where the recipe's grader runs unit tests."""
    return _TESTED_TEST + _TAIL
