"""Honest functions: what the language has."""

from tests.graders.honest.honest import Honest, calls

LANGUAGE = [
    Honest(
        "generator inside",
        """
def digits(n):
    while n:
        n, digit = divmod(n, 10)
        yield digit
def solve(n):
    return sum(digits(n))
""",
        calls(([1999], 28)),
        "yield digit",
        "yield n",
    ),
    Honest(
        "generator with send",
        """
def running():
    total = 0
    while True:
        total += yield total
def solve(items):
    counter = running()
    next(counter)
    return [counter.send(item) for item in items]
""",
        calls(([[1, 2, 3]], [1, 3, 6])),
        "total += yield",
        "total = yield",
    ),
    Honest(
        "yield from",
        """
def flat(items):
    for item in items:
        if isinstance(item, list):
            yield from flat(item)
        else:
            yield item
def solve(items):
    return list(flat(items))
""",
        calls(([[1, [2, [3, []]], 4]], [1, 2, 3, 4])),
        "yield from flat(item)",
        "yield flat(item[:0]) is None",
    ),
    Honest(
        "data class",
        """
from dataclasses import dataclass, asdict
@dataclass(order=True, frozen=True)
class Point:
    x: int
    y: int = 0
def solve(pairs):
    return [asdict(point) for point in sorted(Point(*pair) for pair in pairs)]
""",
        calls(([[[2, 1], [1]]], [{"x": 1, "y": 0}, {"x": 2, "y": 1}])),
        "y: int = 0",
        "y: int = 1",
    ),
    Honest(
        "classes that inherit",
        """
from abc import ABC, abstractmethod
class Shape(ABC):
    @abstractmethod
    def area(self): ...
class Square(Shape):
    def __init__(self, side): self.side = side
    def area(self): return self.side ** 2
class Cube(Square):
    def area(self): return 6 * super().area()
def solve(side):
    return [Square(side).area(), Cube(side).area()]
""",
        calls(([3], [9, 54])),
        "6 * super",
        "5 * super",
    ),
    Honest(
        "operators",
        """
class Vector:
    __slots__ = ("parts",)
    def __init__(self, *parts): self.parts = parts
    def __add__(self, other): return Vector(*(a + b for a, b in zip(self.parts, other.parts)))
    def __matmul__(self, other): return sum(a * b for a, b in zip(self.parts, other.parts))
def solve(a, b):
    return [(Vector(*a) + Vector(*b)).parts, Vector(*a) @ Vector(*b)]
""",
        calls(([[1, 2], [3, 4]], [[4, 6], 11])),
        "a * b for",
        "a + b for",
    ),
    Honest(
        "decorator",
        """
import functools
def twice(function):
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        return function(function(*args, **kwargs))
    return wrapped
@twice
def solve(x):
    return x * 3
""",
        calls(([2], 18)),
        "function(function(*args, **kwargs))",
        "function(*args, **kwargs)",
    ),
    Honest(
        "closure",
        """
def counter():
    n = 0
    def step():
        nonlocal n
        n += 1
        return n
    return step
def solve(times):
    step = counter()
    return [step() for _ in range(times)]
""",
        calls(([3], [1, 2, 3])),
        "n = 0",
        "n = 1",
    ),
    Honest(
        "context manager",
        """
from contextlib import contextmanager, suppress
log = []
@contextmanager
def noted(name):
    log.append(f"+{name}")
    try:
        yield
    finally:
        log.append(f"-{name}")
def solve(name):
    log.clear()
    with suppress(KeyError), noted(name):
        raise KeyError(name)
    return log
""",
        calls((["a"], ["+a", "-a"])),
        'f"-{name}"',
        'f"+{name}"',
    ),
    Honest(
        "exceptions of its own",
        """
class TooSmall(ValueError): pass
def check(n):
    if n < 0:
        raise TooSmall(n)
    return n
def solve(n):
    try:
        return check(n)
    except ValueError as error:
        return f"no: {error}"
    finally:
        pass
""",
        calls(([-1], "no: -1"), ([2], 2)),
        "n < 0",
        "n < -1",
    ),
    Honest(
        "descriptor and property",
        """
class Celsius:
    def __init__(self, degrees): self.degrees = degrees
    @property
    def fahrenheit(self): return self.degrees * 9 / 5 + 32
def solve(degrees):
    return Celsius(degrees).fahrenheit
""",
        calls(([100], 212), ([-40], -40)),
        "+ 32",
        "+ 30",
    ),
    Honest(
        "match",
        """
def solve(command):
    match command.split():
        case ["go", ("north" | "south") as where]:
            return where[0]
        case ["take", *things] if things:
            return len(things)
        case _:
            return None
""",
        calls((["go north"], "n"), (["take a b"], 2), (["take"], None)),
        "len(things)",
        "len(things) + 1",
    ),
    Honest(
        "walrus and comprehensions",
        "def solve(items):\n    return [y for x in items if (y := x * x) > 5]",
        calls(([[1, 2, 3, 4]], [9, 16])),
        "> 5",
        "> 3",
    ),
    Honest(
        "state between calls",
        "seen = []\ndef solve(x):\n    seen.append(x)\n    return len(seen)",
        calls((["a"], 1), (["b"], 2), (["c"], 3)),
        "len(seen)",
        "len(set(seen[:1]))",
    ),
    Honest(
        "keyword arguments",
        "def solve(a, *, b=2, **more):\n    return a * b + sum(more.values())",
        [
            {"args": [3], "kwargs": {"b": 5, "c": 1}, "expected": 16},
            {"args": [3], "expected": 6},
            {"kwargs": {"a": 1, "b": 1}, "expected": 1},
        ],
        "+ sum",
        "- sum",
    ),
    Honest(
        "prints what it does",
        "import sys\ndef solve(a):\n    print('debug', a)\n    print('error', file=sys.stderr)\n    return a * 2",
        calls(([2], 4)),
        "a * 2",
        "a * 3",
    ),
    Honest(
        "game of life",
        """
def solve(cells):
    cells = {tuple(cell) for cell in cells}
    around = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)]
    count = {}
    for x, y in cells:
        for dx, dy in around:
            count[x + dx, y + dy] = count.get((x + dx, y + dy), 0) + 1
    return sorted(cell for cell, n in count.items() if n == 3 or (n == 2 and cell in cells))
""",
        calls(([[[0, 1], [1, 1], [2, 1]]], [[1, 0], [1, 1], [1, 2]])),
        "n == 3",
        "n == 1",
    ),
    Honest(
        "a second of computing",
        "def solve(n):\n    total = 0\n    for i in range(n):\n        total += i & 1\n    return total",
        calls(([20_000_000], 10_000_000)),
        "i & 1",
        "i & 2",
    ),
]
