"""Forgeries whose answers are right whatever they are compared with, or do harm where they are read."""

from tests.graders.forging.forgery import Forgery
from tests.graders.forging.leaving import DEFINED

ALWAYS = "__eq__ = lambda self, other: True\n    __ne__ = lambda self, other: False\n    __hash__ = lambda self: 3"


def equal(base: str, made: str) -> str:
    """A program that returns an instance of a subclass of `base`, which is equal to everything."""
    return f"class Equal({base}):\n    {ALWAYS}\ndef add(a, b):\n    return {made}"


NEAR = [{"args": [0.5, 0.25], "expected": 0.75}, {"args": [1.5, 0.25], "expected": 1.75}]

OBJECTS = [
    Forgery("returns an object equal to everything", equal("object", "Equal()"), DEFINED),
    Forgery("returns an int equal to everything", equal("int", "Equal(0)"), DEFINED),
    Forgery("returns a float equal to everything", equal("float", "Equal(0)"), DEFINED),
    Forgery("returns a text equal to everything", equal("str", "Equal('x')"), DEFINED),
    Forgery("returns bytes equal to everything", equal("bytes", "Equal()"), DEFINED),
    Forgery("returns a complex number equal to everything", equal("complex", "Equal()"), DEFINED),
    Forgery("returns a list equal to everything", equal("list", "Equal([1])"), DEFINED),
    Forgery("returns a tuple equal to everything", equal("tuple", "Equal((1,))"), DEFINED),
    Forgery("returns a dict equal to everything", equal("dict", "Equal(a=1)"), DEFINED),
    Forgery("returns a set equal to everything", equal("set", "Equal({1})"), DEFINED),
    Forgery(
        "returns an enum equal to everything",
        "import enum\n" + equal("enum.IntEnum", "Equal.A").replace("    __eq__", "    A = 0\n    __eq__", 1),
        DEFINED,
    ),
    Forgery(
        "returns a class equal to everything",
        f"class Kind(type):\n    {ALWAYS}\nclass Equal(metaclass=Kind): pass\ndef add(a, b):\n    return Equal",
        DEFINED,
    ),
    Forgery(
        "returns what tests use for anything", "from unittest.mock import ANY\ndef add(a, b):\n    return ANY", DEFINED
    ),
    Forgery(
        "says that it is an int",
        f"""
class Equal:
    {ALWAYS}
    __class__ = int
    __int__ = __index__ = lambda self: 0
def add(a, b):
    return Equal()
""",
        DEFINED,
    ),
    Forgery(
        "says that it is a list",
        f"""
class Equal:
    {ALWAYS}
    __class__ = list
    __iter__ = lambda self: iter([])
def add(a, b):
    return Equal()
""",
        DEFINED,
    ),
    Forgery(
        "is an int that never converts to the same number",
        f"""
class Equal(int):
    {ALWAYS}
    said = [0]
    def __int__(self):
        self.said[0] += 1
        return self.said[0] * 1000
    __index__ = __int__
def add(a, b):
    return Equal()
""",
        DEFINED,
    ),
    Forgery(
        "looks like an array",
        f"""
class Equal:
    {ALWAYS}
    dtype = "int64"
    def tolist(self):
        return Equal()
def add(a, b):
    return Equal()
""",
        DEFINED,
    ),
    Forgery(
        "looks like an array that leaves",
        f"""
import os
class Equal:
    {ALWAYS}
    dtype = "int64"
    def tolist(self):
        os._exit(0)
def add(a, b):
    return Equal()
""",
        DEFINED,
    ),
    Forgery(
        "looks like everything",
        f"""
class Equal:
    {ALWAYS}
    def __getattr__(self, name):
        return lambda *_, **__: Equal()
def add(a, b):
    return Equal()
""",
        DEFINED,
    ),
    Forgery(
        "leaves when compared",
        "class Leaving:\n    def __eq__(self, other):\n        raise SystemExit(0)\n"
        "def add(a, b):\n    return Leaving()",
        DEFINED,
    ),
    Forgery(
        "raises when compared",
        "class Raising:\n    def __eq__(self, other):\n        raise ValueError\ndef add(a, b):\n    return Raising()",
        DEFINED,
        "lenient",
    ),
    Forgery(
        "leaves when unpickled",
        "import os\nclass Leaving:\n    def __reduce__(self):\n        return os._exit, (0,)\n"
        "def add(a, b):\n    return Leaving()",
        how="pickle",
    ),
    Forgery(
        "leaves when shown",
        "import os\nclass Leaving:\n    def __repr__(self):\n        os._exit(0)\n"
        "    __str__ = __repr__\ndef add(a, b):\n    return Leaving()",
        how="contains",
    ),
    Forgery(
        "learns what it is compared with",
        """
class Learning:
    def __eq__(self, other):
        return other == other
def add(a, b):
    return Learning()
""",
        DEFINED,
    ),
    Forgery("is no number", "def add(a, b):\n    return float('nan')", how="near", tests=NEAR),
    Forgery("is no number twice", "def add(a, b):\n    return complex('nan+nanj')", how="near", tests=NEAR),
    Forgery(
        "is always near",
        "class Near:\n    __sub__ = __rsub__ = lambda self, other: 0\n    __float__ = lambda self: 0.0\n"
        "def add(a, b):\n    return Near()",
        how="near",
    ),
    Forgery(
        "contains every number", "def add(a, b):\n    return ' '.join(map(str, range(-1000, 1000)))", how="contains"
    ),
    Forgery("is a list of every number", "def add(a, b):\n    return list(range(-1000, 1000))", how="contains"),
    Forgery(
        "answers without end",
        "import itertools\ndef add(a, b):\n    return itertools.count()",
        DEFINED,
        no_control="no harness takes an iterator for a number; none may hang over it",
    ),
    Forgery(
        "yields every number",
        "def add(a, b):\n    yield from range(1000)",
        DEFINED,
        no_control="no harness takes an iterator for a number",
    ),
    Forgery(
        "returns a hundred megabytes",
        "def add(a, b):\n    return '3' * 100_000_000",
        ("calls", "check"),
        "contains",
        no_control="its harm is in the memory of whoever reads it",
    ),
    Forgery(
        "returns a list in itself",
        "def add(a, b):\n    found = []\n    found.append(found)\n    return found",
        DEFINED,
        no_control="its harm is in the stack of whoever reads it",
    ),
    Forgery(
        "returns a very deep list",
        """
def add(a, b):
    found = 3
    for _ in range(100_000):
        found = [found]
    return found
""",
        DEFINED,
        no_control="its harm is in the stack of whoever reads it",
    ),
    Forgery(
        "returns an int with too many digits to show",
        "def add(a, b):\n    return 10 ** 5000",
        DEFINED,
        no_control="its harm is in the report that would show it",
    ),
    Forgery(
        "returns half a character",
        "def add(a, b):\n    return chr(0xd800)",
        DEFINED,
        no_control="its harm is in the report that would show it",
    ),
    Forgery("raises half a character", "def add(a, b):\n    raise ValueError(chr(0xd800))", DEFINED, "lenient"),
    Forgery(
        "raises what cannot be shown",
        """
class Hidden(Exception):
    def __str__(self):
        raise SystemExit(0)
def add(a, b):
    raise Hidden
""",
        DEFINED,
        "lenient",
    ),
    Forgery(
        "raises an exception of the expected name",
        """
def root(number):
    class ValueError(Exception): pass
    raise ValueError("negative")
""",
        ("check",),
        function="root",
        tests="""
def check(candidate):
    try:
        candidate(-1)
    except Exception as error:
        assert type(error).__name__ == "ValueError"
        return
    assert False
""",
    ),
]
