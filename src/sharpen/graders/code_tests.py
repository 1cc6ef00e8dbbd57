"""`code_tests`: the program in a completion, against unit tests it never sees.

Inputs go into the program's jail, plain values come out, and what is expected stays outside: with a comparator here,
or, where the tests are a program themselves, in a second jail that calls the first one through us. So the program
cannot find, patch or forge what decides, and what is left to it is to be right.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sharpen.config.graders import LARGEST_SOURCE, CodeTests, parsed
from sharpen.graders import compare
from sharpen.graders.base import completion_fault, grader_fault
from sharpen.graders.template import InvalidVariable, look_up, render
from sharpen.sandbox import plan, values
from sharpen.sandbox.jail import Jail
from sharpen.sandbox.outcome import Limits, Outcome
from sharpen.sandbox.run import Run
from sharpen.types import Example, Grade, Sample

FENCE = re.compile(r"\s*(`{3,}|~{3,})\s*([\w+#.-]*)\s*")
LINE = re.compile(r"[^\n]*\n|[^\n]+")
PYTHON = ("python", "python3", "py", "py3")


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the program is called."""

    function: str
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
            preload = [module for package in self.packages for module in plan.modules(package)]
            self.jails[harness] = Jail(plan.blueprint(plan.isolation(), self.packages, preload, harness))
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
        except InvalidVariable as error:
            return error.grade()
        except ValueError as error:
            return grader_fault("invalid_variable_error", str(error))
        program = find_program(sample.text)
        source = f"{prefix}{program}"
        if program is None or len(source.encode(errors="replace")) > LARGEST_SOURCE:
            why = f"a program of more than {LARGEST_SOURCE:,} bytes" if program else "there is no program"
            return completion_fault("sample_parse_error", why, {"format": 0.0, "passed": 0.0})
        if any(isinstance(test, Check) for test in tests):
            worker.jail("checks")  # its start is not the completion's time
        trial = _Trial(worker, source, prefix, config)
        try:
            failed = trial.run(tests)
        except ValueError as error:
            return grader_fault("invalid_variable_error", str(error))
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
    """One program before its tests. What the prefix brings along is called in a run without the program."""

    bench: Bench
    source: str
    prefix: str
    config: CodeTests
    runs: dict[str, Run] = field(default_factory=dict)

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
        """End the runs."""
        for run in self.runs.values():
            run.kill()
        self.runs.clear()

    def _fails(self, test: Test) -> tuple[str, str] | None:
        """Kind and reason of a failure, None for a pass. Raises ValueError when the test itself is at fault."""
        if time.monotonic() > self.deadline:
            return "timeout", f"the time for all tests, {self.config.time_limit:g} s, was used up before"
        match test:
            case Call(function, arguments, named, expected):
                outcome = self._call(self.source, function, arguments, named)
                if outcome.kind != "value":
                    return outcome.kind, outcome.detail
                if not compare.equal(outcome.value, expected, self.config.rel_tolerance):
                    return "wrong", f"expected {shown(expected)}, got {shown(outcome.value)}"
            case Stream(given, wanted):
                with self.bench.jail("program").run(
                    self.source, self._limits(), name="__main__", stdin=given.encode()
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
        brought = defined(self.prefix) - {test.functions[0]}
        asked = 0
        with self.bench.jail("checks").start(self._limits()) as checks:
            checks.send({"source": test.source, "functions": test.functions})
            outcome = checks.loaded()
            while outcome.kind == "asks":
                asked += 1
                if outcome.value is None:
                    raise ValueError("a test calls the program with what is no plain data")
                function, arguments, named = outcome.value
                source = self.prefix if function in brought else self.source
                answer = self._call(source, function, arguments, named)
                if answer.kind not in ("value", "exception"):
                    return answer.kind, answer.detail
                outcome = checks.ask((answer.kind, answer.value, answer.detail), self._left())
        if not asked:
            raise ValueError(f"a test never calls the program: {outcome.detail or test.source!r:.200}")
        if outcome.kind == "value":
            return None
        return ("wrong" if outcome.kind == "exception" else outcome.kind), outcome.detail

    def _call(self, source: str, function: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Outcome:
        """A call of a function of a program; one that has died is started again."""
        run = self.runs.get(source)
        if run is None or run.ended:
            if run:
                run.kill()
            run = self.runs[source] = self.bench.jail("program").run(source, self._limits())
            loaded = run.loaded()
            if loaded.kind != "value":
                self.runs.pop(source).kill()
                return loaded
        return run.ask({"function": function, "args": list(arguments), "kwargs": dict(named)}, self._left())

    def _limits(self) -> Limits:
        return Limits(seconds=self._left())

    def _left(self) -> float:
        """Seconds until the whole attempt has used up its time."""
        return max(self.deadline - time.monotonic(), 0.001)


def find_program(text: str) -> str | None:
    """The last block marked as Python, or the last that is not marked; the whole text where it has no block.

    A block may be cut off by the end of the text. None where there is nothing.
    """
    marked, unmarked, others = [], [], False
    for language, block in _blocks(text):
        if language in PYTHON:
            marked.append(block)
        elif not language:
            unmarked.append(block)
        else:
            others = True
    if marked or unmarked:
        found = (marked or unmarked)[-1]
    else:
        found = "" if others else text
    return found if found.strip() else None


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks with their languages."""
    fence, language, lines = "", "", list[str]()
    for line in LINE.findall(text):
        mark = FENCE.fullmatch(line)
        if mark and not fence:
            fence, language, lines = mark[1], mark[2].lower(), []
        elif mark and mark[1].startswith(fence) and not mark[2]:
            yield language, "".join(lines)
            fence = ""
        elif fence:
            lines.append(line)
    if fence:
        yield language, "".join(lines)


def shown(value: Any) -> str:
    """The value as Python writes it, shortened; what cannot be written, by its type."""
    try:
        return f"{value!r:.200}"
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return f"a value of type {type(value).__name__} that is too large to show"


@lru_cache(maxsize=64)
def defined(source: str) -> Set[str]:
    """The functions that a program defines."""
    try:
        return {node.name for node in parsed(source).body if isinstance(node, ast.FunctionDef)}
    except ValueError:  # half a function, which the completion ends
        return set(re.findall(r"^def (\w+)", source, re.MULTILINE))


def read_tests(value: Any, function: str) -> Iterator[Test]:
    """The tests that a row names, in any of the shapes of `CodeTests.tests`. Raises ValueError for others, and none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            pass
    if isinstance(value, str) and value.strip():
        yield _check(value, function)
    elif isinstance(value, Mapping) and {"inputs", "outputs"} <= value.keys():
        inputs, outputs = (_list(value[name], name) for name in ("inputs", "outputs"))
        if len(inputs) != len(outputs) or not inputs:
            raise ValueError(f"there are {len(inputs)} inputs and {len(outputs)} outputs")
        name = value.get("fn_name")
        for given, wanted in zip(inputs, outputs, strict=True):
            if name:
                yield Call(function or str(name), _list(given, "inputs"), {}, _plain(wanted))
            else:
                yield Stream(_text(given), _text(wanted))
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        yield from (_read_test(test, number, function) for number, test in enumerate(value, 1))
    else:
        raise ValueError(f"no tests: {shown(value)}")


def _read_test(test: Any, number: int, function: str) -> Test:
    if isinstance(test, str) and test.strip():
        return _check(test, function)
    if isinstance(test, Mapping):
        if {"input", "output"} <= test.keys():
            return Stream(_text(test["input"]), _text(test["output"]))
        if "expected" in test and ("args" in test or "kwargs" in test):
            if not function:
                raise ValueError(f"test {number} calls a function, but the grader's `function` names none")
            named = test.get("kwargs", {})
            if not isinstance(named, Mapping):
                raise ValueError(f"the kwargs of test {number} are no object: {shown(named)}")
            return Call(function, _list(test.get("args", ()), "args"), named, _plain(test["expected"]))
    raise ValueError(
        f"test {number} is neither a text nor has it input and output, or args and expected: {shown(test)}"
    )


def _list(value: Any, name: str) -> Sequence[Any]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value
    raise ValueError(f"{name} is no list: {shown(value)}")


def _plain(value: Any) -> Any:
    """An expected value. Raises ValueError where no program could answer it."""
    try:
        values.dumps(value)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"what is expected is {error}") from error
    return value


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
        raise ValueError(f"a test calls no function of the program: {source!r:.200}")
    return Check(source, functions)


def _text(value: Any) -> str:
    """Input or output as text; TACO has them as lists of lines too."""
    return value if isinstance(value, str) else "\n".join(map(str, _list(value, "input or output")))
