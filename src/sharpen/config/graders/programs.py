"""Graders that are programs, or run them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sharpen.config.graders.base import Place, SingleGrader, Template, parsed


class Plugin(SingleGrader):
    """The operator's own Python function, `fn(sample: dict, item: dict) -> float | dict`."""

    type: Literal["plugin"] = "plugin"
    runtime: ClassVar[str] = "sharpen.graders.plugin:PluginGrader"
    place: ClassVar[Place] = "process"

    use: str
    """`package.module:function`, or `file.py:function`, relative to the recipe's folder. It is trusted code: it runs
    with the operator's rights, in no sandbox."""

    def placed(self, base: Path) -> Self:
        """The same with an absolute path, where a file is named."""
        file, _, function = self.use.rpartition(":")
        if not file.endswith(".py"):
            return self
        return self.model_copy(update={"use": f"{(base / Path(file).expanduser()).resolve()}:{function}"})


class Python(SingleGrader):
    """OpenAI's `python`: a program with `def grade(sample: dict, item: dict) -> float`, run in the sandbox.

    It has the standard library, the packages it imports (extra `graders`: those of OpenAI's image), 2 GB of memory,
    1 GB of disk, and no network.
    """

    type: Literal["python"] = "python"
    runtime: ClassVar[str] = "sharpen.graders.python:PythonGrader"
    place: ClassVar[Place] = "parent"

    source: str
    """The program, at most 256 kB."""

    persistent: bool = False
    """One process for many grades, each some hundred times as fast; what a grade leaves behind, the next one finds."""

    time_limit: Annotated[float, Field(gt=0, le=120)] = 120.0
    """Seconds one grade may take."""

    @model_validator(mode="after")
    def _is_a_program(self) -> Self:
        names = {node.name for node in parsed(self.source).body if isinstance(node, ast.FunctionDef)}
        if "grade" not in names:
            raise ValueError(f"source has no `def grade(sample, item)`; its functions are {sorted(names)}")
        return self


class CodeTests(SingleGrader):
    """1 when the program in the completion passes every test, else 0.

    The program runs in the sandbox; what it should answer never enters it. It is the last ```python block of the
    completion, or else all of it.
    """

    type: Literal["code_tests"] = "code_tests"
    runtime: ClassVar[str] = "sharpen.graders.code_tests:CodeTestsGrader"
    place: ClassVar[Place] = "parent"

    tests: Template = "{{ item.tests }}"
    """Where the tests stand. A list of `{"args", "kwargs", "expected"}` (calls of `function`), of `{"input", "output"}`
    (standard input and output of the whole program), or of assertions; or the text of a program that defines
    `check(candidate)`, as HumanEval's, or asserts. TACO's `{"inputs", "outputs", "fn_name"}` is read too."""

    function: Template = ""
    """The function that is called, such as `{{ item.entry_point }}`."""

    prefix: Template = ""
    """What stands before the program, such as `{{ item.prompt }}`."""

    packages: tuple[str, ...] = ()
    """Distributions that programs may import, beside the standard library; they are loaded beforehand."""

    partial_credit: bool = False
    """The score is the share of tests passed."""

    rel_tolerance: Annotated[float, Field(ge=0)] = 1e-6
    """Numbers with a fraction are equal up to so large a share of them, or 1e-9."""
