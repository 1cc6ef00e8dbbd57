"""The graders a recipe can name."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sharpen.config import formula
from sharpen.config.base import Buildable, Config

LARGEST_SOURCE = 256_000
"""Bytes of a program, a grader's or a model's: OpenAI's limit."""

Template = str
"""Text with `{{ item.field }}`, `{{ sample.output_text }}`; paths may be nested and indexed."""


def parsed(source: str) -> ast.Module:
    """The program's syntax. Raises ValueError when it is none, or too large."""
    if (size := len(source.encode(errors="surrogatepass"))) > LARGEST_SOURCE:
        raise ValueError(f"a program of more than {LARGEST_SOURCE:,} bytes (got {size:,})")
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"no Python program: {error.msg} in line {error.lineno}") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"no Python program: {error or type(error).__name__}") from error


class GraderConfig(Config):
    """What every grader has."""

    name: str = ""
    """The name under which scores are reported; the type's name when empty."""


class SingleGrader(GraderConfig, Buildable):
    """A grader that is one piece of code, built in worker processes."""

    time_limit: Annotated[float, Field(gt=0)] = 10.0
    """Seconds one grade may take before its worker is killed."""

    place: ClassVar[Literal["jail", "process", "parent"]] = "jail"
    """Where it runs. `jail`: our own code, in a jail; a crash or time-out is the completion's fault. `process`: the
    operator's own code, with the operator's rights. `parent`: here, for it runs foreign code in jails of its own."""


class StringCheck(SingleGrader):
    """OpenAI's `string_check`: 1 when the comparison holds, else 0."""

    type: Literal["string_check"] = "string_check"
    runtime: ClassVar[str] = "sharpen.graders.string_check:StringCheckGrader"

    input: Template = "{{ sample.output_text }}"
    """What is checked."""

    reference: Template = "{{ item.answer }}"
    """What it is compared with."""

    operation: Literal["eq", "ne", "like", "ilike"] = "eq"
    """`eq`, `ne`: (not) equal; `like`, `ilike`: contains the reference, with or without case."""


class MathAnswer(SingleGrader):
    r"""1 when the last number, formula or \boxed{...} is mathematically equal to the reference."""

    type: Literal["math"] = "math"
    runtime: ClassVar[str] = "sharpen.graders.math:MathGrader"

    reference: Template = "{{ item.answer }}"
    """Where the expected answer stands in the example."""


class ReasoningGymScore(SingleGrader):
    """The verifier of the example's own reasoning-gym generator, strict: 1 for full marks, else 0."""

    type: Literal["reasoning_gym"] = "reasoning_gym"
    runtime: ClassVar[str] = "sharpen.graders.reasoning_gym:ReasoningGymGrader"

    pattern: str = ""
    r"""Regular expression that the whole completion must match, such as `-?\d+`; its first group,
    if it has one, is the answer. Empty: the whole completion is the answer."""


class Plugin(SingleGrader):
    """The operator's own Python function, `fn(sample: dict, item: dict) -> float | dict`."""

    type: Literal["plugin"] = "plugin"
    runtime: ClassVar[str] = "sharpen.graders.plugin:PluginGrader"
    place: ClassVar[Literal["jail", "process", "parent"]] = "process"

    use: str
    """`package.module:function`. It is trusted code: it runs with the operator's rights, in no sandbox."""


class Python(SingleGrader):
    """OpenAI's `python`: a program with `def grade(sample: dict, item: dict) -> float`, run in the sandbox.

    It has the standard library, the packages it imports (extra `graders`: those of OpenAI's image), 2 GB of memory,
    1 GB of disk, and no network.
    """

    type: Literal["python"] = "python"
    runtime: ClassVar[str] = "sharpen.graders.python:PythonGrader"
    place: ClassVar[Literal["jail", "process", "parent"]] = "parent"

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
    place: ClassVar[Literal["jail", "process", "parent"]] = "parent"

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


class Regex(SingleGrader):
    """1 when the completion matches a regular expression (and its group is the reference, if one is named)."""

    type: Literal["regex"] = "regex"
    runtime: ClassVar[str] = "sharpen.graders.regex:RegexGrader"

    pattern: str
    """Python's regular expression."""

    flags: tuple[Literal["ignorecase", "multiline", "dotall", "verbose", "ascii"], ...] = ()
    """Python's flags."""

    mode: Literal["fullmatch", "search"] = "search"
    """`fullmatch`: the whole completion, but for white space around it; `search`: the first match in it."""

    group: int | str | None = None
    """A group of the pattern, by number (0: the whole match) or name, whose text must be the reference."""

    reference: Template = "{{ item.answer }}"
    """What the group is compared with; white space around either does not count."""

    def compiled(self) -> re.Pattern[str]:
        """The pattern with its flags."""
        return re.compile(self.pattern, sum(re.RegexFlag[flag.upper()] for flag in self.flags))

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        try:
            pattern = self.compiled()
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"not a regular expression: {error} (got {self.pattern!r:.120})") from error
        groups = [*range(pattern.groups + 1), *pattern.groupindex]
        if self.group is not None and self.group not in groups:
            raise ValueError(f"the pattern has no group {self.group!r}; its groups are {groups}")
        return self


class Numeric(SingleGrader):
    """1 when the completion's number is within a tolerance of the reference's, else 0.

    Read are 1234, 1,234.5, -.5, 1.2e-3, 3/4 and 12.5% (which is 0.125); a unit may follow.
    """

    type: Literal["numeric"] = "numeric"
    runtime: ClassVar[str] = "sharpen.graders.numeric:NumericGrader"

    reference: Template = "{{ item.answer }}"
    """Where the expected number stands; in a longer text it is the last one."""

    take: Literal["last", "only"] = "last"
    """`last`: the last number of the completion; `only`: the completion must be a number and nothing else."""

    abs_tolerance: Annotated[float, Field(ge=0)] = 0.0
    """So far from the reference is still right."""

    rel_tolerance: Annotated[float, Field(ge=0)] = 0.0
    """So far is still right, as a share of the reference; the larger of the two counts."""


with warnings.catch_warnings():  # pydantic's own `schema`, deprecated, is shadowed on purpose
    warnings.filterwarnings("ignore", 'Field name "schema"')

    class JsonSchema(SingleGrader):
        """1 when the completion, or its last ```json block, is JSON of a schema, else 0."""

        type: Literal["json_schema"] = "json_schema"
        runtime: ClassVar[str] = "sharpen.graders.json_schema:JsonSchemaGrader"

        schema: dict[str, Any]  # type: ignore[assignment]
        """A JSON Schema (2020-12, or the draft its `$schema` names). References stay within it."""

        match: tuple[str, ...] = ()
        """Fields whose values must equal those of the reference."""

        reference: Template = "{{ item.answer }}"
        """An object, or its JSON text; read only where `match` names fields."""

        @model_validator(mode="after")
        def _holds(self) -> Self:
            from sharpen.config.json_schema import check  # imports jsonschema

            check(self.schema)
            return self


Part = Annotated[
    StringCheck | MathAnswer | ReasoningGymScore | Regex | Numeric | JsonSchema | Python | CodeTests | Plugin,
    Field(discriminator="type"),
]
"""A grader that may stand alone, or in a `multi`."""


class Multi(GraderConfig):
    """OpenAI's `multi`: a formula over the scores of several graders."""

    type: Literal["multi"] = "multi"

    graders: Annotated[dict[str, Part], Field(min_length=1)]
    """The graders by the names that the formula and the metrics use; each has its own time limit."""

    calculate_output: str
    """The score: numbers, the graders' names, `+ - * / ^`, parentheses, min max abs floor ceil exp sqrt log."""

    def formula(self) -> formula.Formula:
        """`calculate_output`, ready to be computed."""
        return formula.parse(self.calculate_output, self.graders)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        taken = ("score", self.name or self.type, *formula.FUNCTIONS)
        for name, part in self.graders.items():
            if not formula.NAME.fullmatch(name):
                raise ValueError(f"a grader's name is letters, digits and _, as the formula needs it (got {name!r})")
            if name in taken:
                raise ValueError(f"the name {name!r} is taken; call the grader something else")
            if part.name not in ("", name):
                raise ValueError(f"the grader {name!r} is known by that name; leave its own out (got {part.name!r})")
        try:
            self.formula()
        except formula.FormulaError as error:
            raise ValueError(f"calculate_output, {error}") from error
        return self


def parts(config: SingleGrader | Multi) -> dict[str, SingleGrader]:
    """The single graders that a grader consists of, by the names under which they report."""
    own = config.name or getattr(config, "type", type(config).__name__)
    return dict(config.graders) if isinstance(config, Multi) else {own: config}


Grader = Annotated[
    StringCheck | MathAnswer | ReasoningGymScore | Regex | Numeric | JsonSchema | Python | CodeTests | Plugin | Multi,
    Field(discriminator="type"),
]
"""Any grader."""
