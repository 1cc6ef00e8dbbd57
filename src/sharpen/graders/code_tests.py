"""`code_tests`: the program in a completion, against unit tests it never sees.

Inputs go into the program's jail, plain values come out, and what is expected stays outside: with a comparator here,
or, where the tests are a program themselves, in a second jail that calls the first one through us. So the program
cannot find, patch or forge what decides, and what is left to it is to be right.
"""

from __future__ import annotations

import ast
import builtins
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sharpen.config.graders import LARGEST_SOURCE, CodeTests, parsed
from sharpen.graders import compare
from sharpen.graders.base import completion_fault, grader_fault
from sharpen.graders.template import InvalidVariable, look_up, render
from sharpen.sandbox import plan
from sharpen.sandbox.jail import Jail
from sharpen.sandbox.outcome import Limits, Outcome
from sharpen.sandbox.run import Run
from sharpen.types import Example, Grade, Sample

FENCED = re.compile(r"^[ \t]*```(?:python3?|py)?[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE)
OPEN = re.compile(r"^[ \t]*```(?:python3?|py)[ \t]*\n", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Call:
    """The program's function is called."""

    arguments: Sequence[Any]
    named: Mapping[str, Any]
    expected: Any


@dataclass(frozen=True, slots=True)
class Stream:
    """The whole program runs once."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Check:
    """A program decides, with functions to call, the first also as `candidate`; it passes when it does not raise."""

    source: str
    functions: tuple[str, ...]


Test = Call | Stream | Check


@dataclass
class Bench:
    """The jails for one attempt at a time: the program's, and, once it is needed, that of programs that check."""

    packages: Sequence[str]
    jails: dict[str, Jail] = field(default_factory=dict)

    def jail(self, harness: str) -> Jail:
        """The jail of this kind. Raises SandboxUnavailable."""
        if harness not in self.jails:
            packages = self.packages if harness == "program" else ()
            preload = [name.replace("-", "_") for name in packages]
            self.jails[harness] = Jail(plan.blueprint(plan.isolation(), packages, preload, harness))
        return self.jails[harness]

    def alive(self) -> bool:
        """Whether no jail has died."""
        return all(jail.alive() for jail in self.jails.values())

    def terminate(self) -> None:
        """Kill the jails and all in them."""
        for jail in list(self.jails.values()):
            jail.terminate()

    def kill(self) -> None:
        """`terminate`, and close their files."""
        for jail in self.jails.values():
            jail.kill()


class CodeTestsGrader:
    """1 or 0, or the share of tests passed; `metrics["format"]`: there is a program."""

    def __init__(self, config: CodeTests) -> None:
        self._config = config

    def worker(self) -> Bench:
        """The program's jail, its packages loaded. Raises GraderError."""
        bench = Bench(self._config.packages)
        bench.jail("program")
        return bench

    def grade(self, worker: Bench, example: Example, sample: Sample) -> Grade:
        """Find the program, and try the tests until the first that fails, or all where there is partial credit."""
        config = self._config
        try:
            function = render(config.function, example, sample)
            tests = list(read_tests(look_up(config.tests, example, sample), function))
            prefix = render(config.prefix, example, sample)
        except (InvalidVariable, ValueError) as error:
            return grader_fault("invalid_variable_error", str(error))
        program = find_program(sample.text)
        if program is None:
            return completion_fault("sample_parse_error", "there is no program", {"format": 0.0, "passed": 0.0})
        source = f"{prefix}{program}"
        if len(source.encode(errors="replace")) > LARGEST_SOURCE:
            detail = f"a program of more than {LARGEST_SOURCE:,} bytes"
            return completion_fault("sample_parse_error", detail, {"format": 0.0, "passed": 0.0})
        trial = _Trial(worker, source, function, config)
        try:
            failed = trial.run(tests)
        finally:
            trial.close()
        passed = 1 - len(failed) / len(tests)
        if not config.partial_credit and failed:
            passed = 0.0
        metrics = {"format": 1.0, "passed": passed}
        if not failed:
            return Grade(1.0, metrics, f"{len(tests)} of {len(tests)} tests passed")
        number, kind, why = failed[0]
        said = f"test {number} of {len(tests)}: {why}"
        if kind != "wrong" and not passed:
            return completion_fault(kind, said, metrics)
        return Grade(passed, metrics, said)


@dataclass
class _Trial:
    """One program before its tests."""

    bench: Bench
    source: str
    function: str
    config: CodeTests
    called: Run | None = None

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.config.time_limit

    def run(self, tests: Sequence[Test]) -> list[tuple[int, str, str]]:
        """The tests that failed: number (from 1), kind and why."""
        failed = []
        for number, test in enumerate(tests, 1):
            if found := self._fails(test):
                failed.append((number, *found))
                if not self.config.partial_credit:
                    break
        return failed

    def close(self) -> None:
        """End the program."""
        if self.called:
            self.called.kill()
            self.called = None

    def _fails(self, test: Test) -> tuple[str, str] | None:
        """Kind and reason of a failure, None for a pass."""
        match test:
            case Call(arguments, named, expected):
                outcome = self._call(self.function, arguments, named)
                if outcome.kind != "value":
                    return outcome.kind, outcome.detail
                if not compare.equal(outcome.value, expected, self.config.rel_tolerance):
                    return "wrong", f"expected {expected!r:.200}, got {outcome.value!r:.200}"
            case Stream(given, wanted):
                with self.bench.jail("program").run(
                    self.source, self._limits(), name="__main__", stdin=given.encode(errors="surrogateescape")
                ) as run:
                    outcome = run.loaded()
                if outcome.kind != "value" and (outcome.kind, outcome.detail) != ("exit", "exit status 0"):
                    return outcome.kind, outcome.detail
                if not compare.same_output(outcome.stdout, wanted, self.config.rel_tolerance):
                    return "wrong", f"expected the output {wanted!r:.200}, got {outcome.stdout!r:.200}"
            case Check():
                return self._checked(test)
        return None

    def _checked(self, test: Check) -> tuple[str, str] | None:
        with self.bench.jail("checks").start(self._limits()) as checks:
            checks.send({"source": test.source, "functions": test.functions})
            outcome = checks.loaded()
            while outcome.kind == "asks":
                answer = self._call(*outcome.value)
                if answer.kind not in ("value", "exception"):
                    return answer.kind, answer.detail
                outcome = checks.ask((answer.kind, answer.value, answer.detail), self._left())
        if outcome.kind == "value":
            return None
        return ("wrong" if outcome.kind == "exception" else outcome.kind), outcome.detail

    def _call(self, function: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Outcome:
        """A call of a function of the program; a program that has died is started again."""
        if self.called is None or self.called.ended:
            self.close()
            self.called = self.bench.jail("program").run(self.source, self._limits())
            loaded = self.called.loaded()
            if loaded.kind != "value":
                self.close()
                return loaded
        frame = {"function": function, "args": list(arguments), "kwargs": dict(named)}
        return self.called.ask(frame, self._left())

    def _limits(self) -> Limits:
        return Limits(seconds=self._left())

    def _left(self) -> float:
        """Seconds until the whole attempt has used up its time."""
        return max(self.deadline - time.monotonic(), 0.001)


def find_program(text: str) -> str | None:
    """The last ```python block, also one that was cut off; the whole text where it has none; None if empty."""
    if blocks := FENCED.findall(text):
        found = str(blocks[-1])
    elif opening := list(OPEN.finditer(text)):
        found = text[opening[-1].end() :]
    else:
        found = text
    return found if found.strip() else None


def read_tests(value: Any, function: str) -> Iterator[Test]:
    """The tests that a row names, in any of the shapes of `CodeTests.tests`. Raises ValueError for others, and none."""
    if isinstance(value, str):
        yield _check(value, function)
    elif isinstance(value, Mapping) and {"inputs", "outputs"} <= value.keys():
        if len(value["inputs"]) != len(value["outputs"]):
            raise ValueError(f"there are {len(value['inputs'])} inputs and {len(value['outputs'])} outputs")
        for given, wanted in zip(value["inputs"], value["outputs"], strict=True):
            yield Call(given, {}, wanted) if value.get("fn_name") else Stream(_text(given), _text(wanted))
    elif isinstance(value, Sequence) and value:
        yield from (_read_test(test, number, function) for number, test in enumerate(value, 1))
    else:
        raise ValueError(f"no tests: {value!r:.200}")


def _read_test(test: Any, number: int, function: str) -> Test:
    if isinstance(test, str):
        return _check(test, function)
    if isinstance(test, Mapping):
        if {"input", "output"} <= test.keys():
            return Stream(_text(test["input"]), _text(test["output"]))
        if "expected" in test and ("args" in test or "kwargs" in test):
            if not function:
                raise ValueError(f"test {number} calls a function, but the grader's `function` names none")
            return Call(test.get("args", ()), test.get("kwargs", {}), test["expected"])
    raise ValueError(
        f"test {number} is neither a text nor has it input and output, or args and expected: {test!r:.200}"
    )


def _check(source: str, function: str) -> Check:
    """A test that is a program. What it calls and does not have itself are functions of the program under test."""
    nodes = list(ast.walk(parsed(source)))
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    own = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {(node.asname or node.name).partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    others = sorted(called - own - set(dir(builtins)) - {"candidate", function})
    if not (functions := (function, *others) if function else tuple(others)):
        raise ValueError(f"the grader's `function` names none, and the test calls none: {source!r:.200}")
    return Check(source, functions)


def _text(value: Any) -> str:
    """Input or output as text; TACO has them as lists of lines too."""
    return value if isinstance(value, str) else "\n".join(map(str, value))
