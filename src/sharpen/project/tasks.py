"""The five tasks: what their answers look like, how the model is asked, what scores it, and whether RFT can help."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sharpen.project.look import Column

LABEL_LIST = 300
"""Labels that take more characters than this together are not named in the prompt: it would be mostly labels."""

MOST_FIELDS = 12
"""So many fields of a JSON answer are named in the prompt at most."""

FEW_NUMBERS = 5
"""Numbers of so few different values are labels."""

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)\s*%?")
_FENCE = re.compile(r"```(?:python|py)?\s*\n(.*?)```", re.DOTALL)
_CODE = re.compile(r"^\s*(def|class|import|from|for|while|if|return|print\(|@)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of answer."""

    name: str
    about: str
    """What the model does, for the question "which task?"."""

    fits: Callable[[str], bool]
    """Whether an answer is one of this task."""

    wanted: str
    """What the answers should be, for errors."""

    instruction: Callable[[Sequence[str]], str]
    """What the system message says, given all answers; nothing: no such message."""

    single_answer: bool = True
    """Whether a prompt has one right answer, so that two rows that differ in it contradict each other."""

    reinforced: bool = True
    """Whether an RFT stage makes sense, with a grader that tells right from wrong."""

    instead: str = ""
    """Why there is none."""


def guess(answers: Column) -> tuple[Task, str]:
    """The task that answers look like, and why."""
    for name, why in (("extract", "the answers are JSON"), ("code", "the answers are programs")):
        if _mostly(answers, TASKS[name].fits):
            return TASKS[name], why
    numbers = _mostly(answers, is_number)
    if answers.labels() and not (numbers and answers.distinct > FEW_NUMBERS):
        return TASKS["classify"], f"the answers have {answers.distinct} different values"
    if numbers:
        return TASKS["math"], "the answers are numbers"
    return TASKS["chat"], "the answers are free text"


def _mostly(column: Column, fits: Callable[[str], bool]) -> bool:
    return sum(map(fits, column.values)) >= 0.9 * max(1, len(column.values))


def is_number(answer: str) -> bool:
    """Whether the whole answer is a number."""
    return _NUMBER.fullmatch(answer) is not None


def has_number(answer: str) -> bool:
    """Whether a number stands in the answer."""
    return _NUMBER.search(answer) is not None


def is_json(answer: str) -> bool:
    """Whether an answer is a JSON object or list."""
    try:
        return isinstance(json.loads(answer), dict | list)
    except (ValueError, RecursionError):
        return False


def program(answer: str) -> ast.Module | None:
    """The syntax of an answer that is a Python program, in a ```python block or bare; None where it is none."""
    fenced = _FENCE.findall(answer)
    source = fenced[-1] if fenced else answer
    try:
        return ast.parse(source) if _CODE.search(source) else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def functions(answer: str) -> list[str]:
    """The names of the functions that a program defines at its top."""
    tree = program(answer)
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []


def labels(answers: Sequence[str]) -> list[str]:
    """The different labels, in order of the alphabet."""
    return sorted(set(answers), key=str.casefold)


def _classify(answers: Sequence[str]) -> str:
    named = ", ".join(labels(answers))
    if len(named) > LABEL_LIST:
        return "Classify the text. Answer with its label and nothing else."
    return f"Classify the text. Answer with one of these labels and nothing else: {named}."


def _extract(answers: Sequence[str]) -> str:
    found = [json.loads(answer) for answer in answers]
    fields = Counter(name for value in found if isinstance(value, dict) for name in value)
    if not fields or len(fields) > MOST_FIELDS:
        return "Answer with JSON and nothing else."
    return f"Read these fields from the text and answer with JSON and nothing else: {', '.join(fields)}."


def _math(answers: Sequence[str]) -> str:
    if all(map(is_number, answers)):
        return "Solve the problem. Answer with the number and nothing else."
    return "Solve the problem step by step. The last number of your answer is the solution."


TASKS = {
    task.name: task
    for task in (
        Task("extract", "read fields out of a text, as JSON", is_json, "JSON objects or lists", _extract),
        Task(
            "classify",
            "give a text one of a few labels",
            lambda answer: len(answer) <= 200,
            "short labels",
            _classify,
            reinforced=False,
            instead="every row has its label, and a label already says all that a grader could",
        ),
        Task(
            "chat",
            "answer freely, in the manner of the rows",
            lambda answer: True,
            "texts",
            lambda answers: "",
            single_answer=False,
            reinforced=False,
            instead="bad answers easily satisfy rules like grader.py's; write better ones, or use a judge",
        ),
        Task(
            "code",
            "write a Python program",
            lambda answer: program(answer) is not None,
            "Python programs",
            lambda answers: "Write the Python program that is asked for, and nothing else.",
            single_answer=False,
        ),
        Task("math", "solve problems whose answer is a number", has_number, "numbers, or texts with one", _math),
    )
}
"""Every task by its name."""
