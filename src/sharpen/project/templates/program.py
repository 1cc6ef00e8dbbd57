"""How an answer is scored: 1 is right, 0 is wrong, and anything between is partly right. Change it as you like.

`grade` is called for every answer in evaluation. It has OpenAI's signature: `sample["output_text"]` is what the model
said, `item` is the row, so `item["answer"]` is the program that the row has.

The rows have no unit tests, so programs are compared and never run: one that is right in another way counts as wrong.
Give the rows a column `tests`, such as [{"args": [2, 3], "expected": 5}], and `sharpen init` writes a recipe that runs
them in a sandbox (`type: code_tests`). Do not run a model's programs here: this file is in no sandbox.
"""

import ast
import re
from typing import Any

FENCE = re.compile(r"```(?:python|py)?\s*\n(.*?)```", re.DOTALL)


def grade(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """1 for the row's program, whatever its layout and comments; 0.2 where the names of its functions are right."""
    said, wanted = read(sample["output_text"]), read(item["answer"])
    if said is None or wanted is None:
        return 0.0
    if ast.dump(said) == ast.dump(wanted):
        return 1.0
    return 0.2 * (names(said) == names(wanted) != [])


def read(text: str) -> ast.Module | None:
    """The syntax of a program, in a ```python block or bare; None where it is none."""
    fenced = FENCE.findall(text)
    try:
        return ast.parse(fenced[-1] if fenced else text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def names(program: ast.Module) -> list[str]:
    """The names of the functions and classes that it defines at its top."""
    return [node.name for node in program.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
