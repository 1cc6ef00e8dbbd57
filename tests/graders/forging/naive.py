"""What a naive harness says of a program: the positive control of every forgery."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("naive_child.py")
UNPICKLE = "import pickle, sys; assert pickle.load(sys.stdin.buffer) == eval(sys.argv[1])"


def rewards(
    source: str, tests: Sequence[Mapping[str, Any] | str], function: str, how: str, folder: Path, seconds: float
) -> bool:
    """Whether a harness that keeps program and tests in one process gives the program a pass.

    `how` it decides. `status`: by the exit status; so do `near`, `contains` and `json`, which compare in these ways,
    and `order`, which reads the tests before the program. `word`: by a word on standard output. `frame`: by the first
    frame on descriptor 3. `lenient`: whatever is no failed assertion passes. `pickle`: answers leave pickled.
    """
    job = folder / "job.json"
    job.write_text(json.dumps({"source": source, "tests": list(tests), "function": function, "how": how}))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = f'exec 3<&{theirs.fileno()}; exec "$0" "$@"'
        child = subprocess.Popen(
            ["bash", "-c", command, sys.executable, str(CHILD), str(job)],
            cwd=folder,
            env={"TESTS": json.dumps(tests), "PATH": os.environ["PATH"]},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        try:
            out, err = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
        ours.setblocking(False)
        try:
            said = ours.recv(1 << 16)
        except OSError:
            said = b""
    return _verdict(how, child.returncode, out, err, said, tests)


def _verdict(how: str, status: int, out: bytes, err: bytes, said: bytes, tests: Sequence[Any]) -> bool:
    match how:
        case "word":
            return b"passed" in out
        case "lenient":
            return b"AssertionError" not in err
        case "frame":
            if len(said) < 4:
                return False
            (length,) = struct.unpack_from(">I", said)
            return bool(json.loads(said[4 : 4 + length])[1][1:] == ["value", True])
        case "pickle":
            expected = repr([test["expected"] for test in tests])
            return not subprocess.run(
                [sys.executable, "-c", UNPICKLE, expected], input=said, stderr=subprocess.DEVNULL
            ).returncode
    return status == 0
