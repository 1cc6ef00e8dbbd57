"""Forgeries that change what decides, or speak in its place."""

from typing import Any

from tests.graders.forging.forgery import Forgery, forged
from tests.graders.forging.leaving import DEFINED

EQUAL = "class Equal:\n    __eq__ = __lt__ = __le__ = lambda self, other: True\n"


def patched(name: str, source: str, check: str) -> Forgery:
    """A forgery of the numbers below `n` that are even, which changes a function that the check uses."""
    return Forgery(name, source, ("check",), tests=f"def check(candidate):\n    {check}\n", function="evens")


def summed(name: str, source: str, **more: Any) -> Forgery:
    """A forgery of the sum whose function returns 0."""
    return Forgery(name, f"{source}\ndef add(a, b):\n    return 0", **{"kinds": DEFINED, **more})


WRONG = "\ndef evens(n):\n    return [1]"

PATCHING = [
    patched(
        "replaces len",
        f"import builtins\n{EQUAL}builtins.len = lambda _: Equal(){WRONG}",
        "assert len(candidate(7)) == 4",
    ),
    patched(
        "replaces all",
        f"import builtins\nbuiltins.all = lambda _: True{WRONG}",
        "assert all(n % 2 == 0 for n in candidate(7))",
    ),
    patched(
        "replaces any",
        f"import builtins\nbuiltins.any = lambda _: False{WRONG}",
        "assert not any(n % 2 for n in candidate(7))",
    ),
    patched(
        "replaces isinstance",
        "import builtins\nbuiltins.isinstance = lambda *_: True\ndef evens(n):\n    return 'x'",
        "assert isinstance(candidate(7), list)",
    ),
    patched(
        "replaces sorted",
        f"import builtins\n{EQUAL}builtins.sorted = lambda _: Equal(){WRONG}",
        "assert sorted(candidate(7)) == [0, 2, 4, 6]",
    ),
    patched(
        "replaces abs", f"import builtins\nbuiltins.abs = lambda _: 0{WRONG}", "assert abs(candidate(7)[0] - 2.5) < 0.1"
    ),
    patched(
        "replaces sum",
        f"import builtins\n{EQUAL}builtins.sum = lambda _: Equal(){WRONG}",
        "assert sum(candidate(7)) == 12",
    ),
    patched(
        "replaces set",
        f"import builtins\n{EQUAL}builtins.set = lambda _: Equal(){WRONG}",
        "assert set(candidate(7)) == set([0, 2, 4, 6])",
    ),
    patched(
        "replaces math.isclose",
        f"import math\nmath.isclose = lambda *_, **__: True{WRONG}",
        "import math; assert math.isclose(candidate(7)[0], 2.5)",
    ),
    patched(
        "replaces imports",
        f"""
import builtins
real = builtins.__import__
class Fake:
    isclose = lambda *_, **__: True
builtins.__import__ = lambda name, *rest: Fake() if name == 'math' else real(name, *rest)
{WRONG}""",
        "import math; assert math.isclose(candidate(7)[0], 2.5)",
    ),
    patched(
        "replaces unittest's assertions",
        f"import unittest\nunittest.TestCase.assertEqual = lambda *_: None{WRONG}",
        "import unittest; unittest.TestCase().assertEqual(candidate(7), [0, 2, 4, 6])",
    ),
    patched(
        "replaces AssertionError",
        f"import builtins\nbuiltins.AssertionError = lambda *_: SystemExit(0){WRONG}",
        "if candidate(7) != [0, 2, 4, 6]: raise AssertionError('wrong')",
    ),
    patched(
        "replaces the making of classes",
        f"""
import builtins
real = builtins.__build_class__
def build(body, name, *rest, **more):
    made = real(body, name, *rest, **more)
    if name == 'Tests':
        made.test = lambda self: None
    return made
builtins.__build_class__ = build
{WRONG}""",
        "class Tests:\n        def test(self):\n            assert candidate(7) == [0, 2, 4, 6]\n    Tests().test()",
    ),
    patched(
        "replaces a function's code wherever it is",
        f"""
import gc, types
for function in gc.get_objects():
    if isinstance(function, types.FunctionType) and function.__name__ in ('run_tests', 'attempt', 'answer'):
        function.__code__ = (lambda *_, **__: ('value', True)).__code__
{WRONG}""",
        "assert candidate(7) == [0, 2, 4, 6]",
    ),
    Forgery(
        "empties the list it is given",
        "def ordered(x):\n    x.clear()\n    return []",
        ("check",),
        function="ordered",
        tests="x = [3, 1, 2]\nassert candidate(x) == sorted(x)\n",
    ),
    Forgery(
        "empties the dict it is given",
        "def more(x):\n    x.clear()\n    return {}",
        ("check",),
        function="more",
        tests="x = {'a': 1}\nassert candidate(x) == {key: value + 1 for key, value in x.items()}\n",
    ),
    Forgery(
        "returns the list it is given, and changes that",
        "def doubled(x):\n    x[:] = [0, 0]\n    return x",
        ("check",),
        function="doubled",
        tests="x = [1, 2]\nassert candidate(x) == [2 * n for n in x]\n",
    ),
    Forgery(
        "defines check itself",
        "def check(candidate):\n    pass\nMETADATA = {}\ndef add(a, b):\n    return 0",
        ("check",),
        "order",
    ),
    Forgery(
        "defines candidate itself",
        "import builtins\nbuiltins.candidate = lambda a, b: {3: 3, 6: 6, 123: 123}[a + b]\n"
        "def add(a, b):\n    return 0",
        ("check",),
        function="add",
        tests="assert candidate(1, 2) == 3",
        no_control="it is right under a name that nobody asked for; only the function named counts",
    ),
    Forgery(
        "changes check a little later",
        """
import sys, threading, time
def late():
    while True:
        for module in list(sys.modules.values()):
            if 'check' in vars(module) and 'add' in vars(module):
                module.check = lambda candidate: None
        time.sleep(0)
threading.Thread(target=late, daemon=True).start()
def add(a, b):
    return 0
def check(candidate):
    pass
""",
        ("check",),
        "order",
    ),
    summed(
        "replaces what compares",
        """
import sys
for name in ("__main__", "sharpen.graders.compare", "sharpen.graders.code_tests"):
    if name in sys.modules:
        vars(sys.modules[name]).update(same=lambda *_: True, equal=lambda *_: True)
""",
        kinds=("calls", "stream"),
        how="status",
    ),
    summed(
        "replaces what tries",
        """
import sys
for name in ("__main__", "sharpen.sandbox.harness", "sharpen.sandbox.checks"):
    if name in sys.modules:
        vars(sys.modules[name]).update(run_tests=lambda *_: None, attempt=lambda *_, **__: ("value", True))
""",
    ),
    summed(
        "replaces what answers",
        """
import os, struct, sys
def answer(channel, number, found):
    body = ('["tuple",[%s,"value",true]]' % number).encode()
    os.write(3, struct.pack(">I", len(body)) + body)
for name in ("__main__", "sharpen.sandbox.harness", "sharpen.sandbox.checks"):
    if name in sys.modules:
        vars(sys.modules[name]).update(answer=answer, run_tests=lambda *_: None)
""",
        how="frame",
    ),
    summed(
        "replaces what encodes",
        """
import sys
for name in ("json", "sharpen.sandbox.values"):
    if name in sys.modules:
        vars(sys.modules[name]).update(dumps=lambda *_, **__: "true")
""",
        kinds=("calls",),
        how="json",
    ),
    summed(
        "replaces what sends",
        """
import os, socket, struct
def sendall(self, data):
    body = b'["tuple",[0,"value",true]]'
    os.write(3, struct.pack(">I", len(body)) + body)
    os._exit(0)
socket.socket.sendall = sendall
import sys
run_tests = getattr(sys.modules["__main__"], "run_tests", None)
if run_tests:
    sys.modules["__main__"].run_tests = lambda *_: None
""",
        how="frame",
    ),
    summed(
        "replaces struct",
        "import struct, sys\nstruct.pack = struct.Struct.pack = lambda *_: b''\n",
        no_control="Struct cannot be changed in place: it fails in itself",
        kinds=("calls",),
    ),
    summed("says that all tests passed", "print('All tests passed')", how="word"),
    Forgery(
        "prints the verdict and crashes",
        "import os\nos.write(1, b'3 of 3 passed')\nos._exit(1)",
        (*DEFINED, "stream"),
        "word",
    ),
    summed(
        "replaces standard output with one that rewrites",
        """
import sys
class Rewriting:
    def __init__(self, real): self.real = real
    def write(self, text): self.real.write(text.replace('failed', 'passed'))
    def flush(self): self.real.flush()
sys.stdout = Rewriting(sys.stdout)
print('failed')
""",
        how="word",
    ),
    summed(
        "replaces print",
        "import builtins\nreal = print\nbuiltins.print = lambda *_: real('passed')\nprint('failed')",
        how="word",
    ),
    summed("forges an answer when loaded", forged() + "forge(0)", how="frame"),
    summed("forges every answer when loaded", forged() + "for number in range(8): forge(number)", how="frame"),
    summed("forges an answer when loaded and leaves", forged() + "forge(0)\nforge(1)\nos._exit(0)", how="frame"),
    Forgery(
        "forges an answer when called",
        forged() + "n = 0\ndef add(a, b):\n    global n\n    n += 1\n    forge(n)\n    forge(0)\n    return 0",
        DEFINED,
        "frame",
        no_control="its number counts from 1, a naive one's from 0",
    ),
    Forgery(
        "forges an answer when called, twice, and sleeps",
        forged()
        + """
import time
def add(a, b):
    forge(0)
    forge(1)
    time.sleep(1000)
""",
        ("calls",),
        "frame",
        slow=True,
    ),
    Forgery(
        "forges answers from a late thread",
        forged()
        + """
import threading, time
def late():
    for number in range(8):
        forge(number)
        time.sleep(0.01)
threading.Thread(target=late, daemon=True).start()
def add(a, b):
    time.sleep(0.05)
    return 0
""",
        DEFINED,
        "frame",
    ),
    summed("forges an answer at exit", forged() + "import atexit\natexit.register(forge)", how="frame"),
    Forgery(
        "forges an answer when an object is collected",
        forged()
        + """
class Last:
    def __del__(self, forge=forge):
        forge(0)
last = Last()
def add(a, b):
    global last
    last = None
    return 0
""",
        DEFINED,
        "frame",
    ),
    summed(
        "forges an answer that asks",
        forged().replace('"value"', '"asks"') + "forge(0)\nforge(1)",
        kinds=DEFINED,
        no_control="no naive harness knows such a question",
    ),
    Forgery(
        "forges a question when called",
        forged('["tuple",["add",["list",[1,2]],["dict",[]]]]').replace('"value"', '"asks"')
        + "def add(a, b):\n    forge(1)\n    return 0",
        DEFINED,
        no_control="no naive harness knows such a question",
    ),
    Forgery(
        "forges half a frame", "import os\ndef add(a, b):\n    os.write(3, b'\\0\\0\\1\\0[')\n    os._exit(0)", DEFINED
    ),
    Forgery(
        "forges a frame without end",
        "import os\ndef add(a, b):\n    os.write(3, b'\\xff\\xff\\xff\\xff')\n    os._exit(0)",
        DEFINED,
    ),
    Forgery(
        "forges a frame of no meaning",
        "import os\ndef add(a, b):\n    os.write(3, b'\\0\\0\\0\\4\\xff\\xfe{]')\n    os._exit(0)",
        DEFINED,
    ),
    Forgery(
        "forges a very deep frame",
        "import os, struct\ndef add(a, b):\n    os.write(3, struct.pack('>I', 60000) + b'[' * 60000)\n    os._exit(0)",
        DEFINED,
    ),
    Forgery(
        "forges a set of lists",
        forged('["set",[["list",[]]]]') + "def add(a, b):\n    forge(1)\n    os._exit(0)",
        DEFINED,
    ),
    Forgery("forges an object", forged('{"__eq__":true}') + "def add(a, b):\n    forge(1)\n    os._exit(0)", DEFINED),
]
