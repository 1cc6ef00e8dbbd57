"""The harness that forgeries are made for: program and tests in one process. Run as `python naive_child.py JOB`.

It is as careless as such harnesses are: the tests lie about as a file, in the environment and in variables; what
decides is a name in a module; the verdict is an exit status, a word on standard output or a frame on descriptor 3.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import struct
import sys
import types
from typing import Any


def same(found: Any, expected: Any, how: str) -> bool:
    """Whether an answer is right, in one of the ways that such harnesses have."""
    if how == "near":
        return bool(not abs(found - expected) > 1e-6)
    if how == "contains":
        return str(expected) in str(found)
    if how == "json":
        return json.dumps(found) == json.dumps(expected)
    return bool(found == expected)


def run_tests(program: dict[str, Any], tests: list[Any], function: str, how: str, answers: list[Any]) -> None:
    """Raise AssertionError when a test fails."""
    for test in tests:
        if isinstance(test, str):
            program["candidate"] = program[function]
            exec(test, program)
            if "check" in program:
                program["check"](program[function])
        elif how == "pickle":
            answers.append(program[function](*test["args"]))
        else:
            found = program[function](*test["args"])
            assert same(found, test["expected"], how), "wrong"


def run_streams(source: str, program: dict[str, Any], tests: list[Any], how: str) -> None:
    """Run the whole program for each test, and compare what it printed."""
    for test in tests:
        real = sys.stdout
        sys.stdin, sys.stdout = io.StringIO(test["input"]), io.StringIO()
        exec(source, program)
        printed: Any = sys.stdout.getvalue().strip()
        sys.stdout = real
        wanted = test["output"].strip()
        if how == "near":
            printed, wanted = float(printed), float(wanted)
        assert same(printed, wanted, how), "wrong"


def attempt(work: Any, *arguments: Any) -> tuple[str, Any]:
    """Kind and value."""
    work(*arguments)
    return "value", True


def answer(channel: socket.socket, number: int, found: tuple[str, Any]) -> None:
    """Send one frame."""
    body = json.dumps(["tuple", [number, *found]]).encode()
    channel.sendall(struct.pack(">I", len(body)) + body)


def main() -> None:
    """Run the job."""
    text = open(sys.argv[1]).read()
    left_open = os.open(sys.argv[1], os.O_RDONLY)
    assert left_open > 3
    job = json.loads(text)
    how, tests = job["how"], job["tests"]
    if how == "frame":
        channel = socket.socket(fileno=3)
    module = types.ModuleType("program")
    sys.modules["program"] = module
    program = module.__dict__
    answers: list[Any] = []
    if "input" in tests[0]:
        found = attempt(run_streams, job["source"], program, tests, how)
    else:
        if how == "order":
            exec(tests.pop(), program)
            tests.append("")
        exec(compile(job["source"], "<program>", "exec"), program)
        found = attempt(run_tests, program, tests, job["function"], how, answers)
    if how == "pickle":
        os.write(3, pickle.dumps(answers))
    if how == "frame":
        answer(channel, 0, found)
    print("passed" if text else "failed")


if __name__ == "__main__":
    main()
