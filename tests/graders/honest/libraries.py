"""Honest functions: what the standard library has."""

from tests.graders.honest.honest import Honest, calls

LIBRARIES = [
    Honest(
        "regular expressions",
        r"""
import re
def solve(text):
    return [m.groupdict() for m in re.finditer(r"(?P<key>\w+)=(?P<value>\d+)", text)]
""",
        calls((["a=1, b=22"], [{"key": "a", "value": "1"}, {"key": "b", "value": "22"}])),
        r"\d+)",
        r"\d)",
    ),
    Honest(
        "substitution",
        r"import re" "\n" r"def solve(text): return re.sub(r'(\w+) (\w+)', r'\2 \1', text)",
        calls((["hello world"], "world hello")),
        r"\2 \1",
        r"\1 \2",
    ),
    Honest(
        "dates",
        """
from datetime import date, timedelta
def solve(y, m, d):
    return (date(y, m, d) + timedelta(days=1)).isoformat()
""",
        calls(([2024, 2, 28], "2024-02-29"), ([2023, 12, 31], "2024-01-01")),
        "days=1",
        "days=2",
    ),
    Honest(
        "times",
        """
from datetime import datetime
def solve(text):
    return datetime.strptime(text, '%d/%m/%Y %H:%M').strftime('%A %j')
""",
        calls((["04/07/2023 12:30"], "Tuesday 185")),
        "%d/%m",
        "%m/%d",
    ),
    Honest(
        "time zones",
        """
from zoneinfo import ZoneInfo
from datetime import datetime, timezone
def solve(h):
    return datetime(2024, 7, 1, h, tzinfo=timezone.utc).astimezone(timezone.max).hour
""",
        calls(([0], 23)),
        "timezone.max",
        "timezone.utc",
    ),
    Honest(
        "calendar",
        "import calendar\ndef solve(y):\n    return calendar.isleap(y)",
        calls(([2000], True), ([1900], False)),
        "isleap(y)",
        "isleap(y + 1)",
    ),
    Honest(
        "decimals",
        """
from decimal import Decimal, getcontext
getcontext().prec = 30
def solve(a, b):
    return str(Decimal(a) / Decimal(b))
""",
        calls(([1, 7], "0.142857142857142857142857142857")),
        "prec = 30",
        "prec = 29",
    ),
    Honest(
        "fractions",
        """
from fractions import Fraction
def solve(a, b):
    f = Fraction(a, b) + Fraction(1, 6)
    return f.numerator, f.denominator
""",
        calls(([1, 3], [1, 2])),
        "Fraction(1, 6)",
        "Fraction(1, 3)",
    ),
    Honest(
        "statistics",
        """
import statistics
def solve(items):
    return [statistics.mean(items), statistics.median(items), statistics.pstdev(items)]
""",
        calls(([[1, 2, 3, 4]], [2.5, 2.5, 1.118033988749895])),
        "pstdev",
        "stdev",
    ),
    Honest(
        "mathematics",
        """
import math
def solve(x):
    return [math.sqrt(x), math.log2(x), math.hypot(3, 4), math.gcd(12, 18), math.comb(5, 2)]
""",
        calls(([16], [4.0, 4.0, 5.0, 6, 10])),
        "log2",
        "log10",
    ),
    Honest(
        "random with a seed",
        "import random\ndef solve(seed):\n    random.seed(seed)\n    return random.randint(1, 1000)",
        calls(([7], 332)),
        "(1, 1000)",
        "(1, 10)",
    ),
    Honest(
        "enumerations",
        """
from enum import IntEnum, auto
class Colour(IntEnum):
    RED = auto()
    BLUE = auto()
def solve(name):
    return Colour[name]
""",
        calls((["BLUE"], 2)),
        "RED = auto()\n",
        "RED = auto()\n    GREEN = auto()\n",
    ),
    Honest(
        "enumeration of texts",
        "from enum import Enum\nclass Size(str, Enum):\n    SMALL = 's'\ndef solve():\n    return Size.SMALL",
        calls(([], "s")),
        "'s'",
        "'m'",
    ),
    Honest(
        "formats",
        "def solve(x):\n    return f'{x:>8.2f}|{x:08.3e}|{int(x):,}|{int(x):#x}|%d' % x",
        calls(([1234.5], " 1234.50|1.234e+03|1,234|0x4d2|1234")),
        "8.2f",
        "8.1f",
    ),
    Honest(
        "templates",
        "from string import Template\ndef solve(who):\n    return Template('Hello, $who').substitute(who=who)",
        calls((["you"], "Hello, you")),
        "Hello,",
        "Hello",
    ),
    Honest(
        "wrapped text",
        "import textwrap\ndef solve(text, n):\n    return textwrap.wrap(text, n)",
        calls((["the quick brown fox", 10], ["the quick", "brown fox"])),
        "wrap(text, n)",
        "wrap(text, n - 4)",
    ),
    Honest(
        "types in annotations",
        """
from typing import Dict, List, Optional, Tuple
def solve(a: List[int], b: Optional[int] = None) -> Tuple[int, Dict[str, int]]:
    return max(a), {'n': len(a)}
""",
        calls(([[1, 5, 2]], [5, {"n": 3}])),
        "max(a)",
        "min(a)",
    ),
    Honest(
        "generic types",
        """
from typing import Generic, TypeVar, Protocol
T = TypeVar('T')
class Box(Generic[T]):
    def __init__(self, x: T) -> None: self.x = x
def solve(x):
    return Box[int](x).x + 1
""",
        calls(([1], 2)),
        "+ 1",
        "+ 2",
    ),
    Honest(
        "future annotations",
        "from __future__ import annotations\ndef solve(a: Nowhere) -> Nothing:\n    return a + 1",
        calls(([1], 2)),
        "+ 1",
        "+ 2",
    ),
    Honest(
        "hashes",
        "import hashlib\ndef solve(text):\n    return hashlib.sha256(text.encode()).hexdigest()[:8]",
        calls((["abc"], "ba7816bf")),
        "sha256",
        "sha512",
    ),
    Honest(
        "base 64",
        "import base64\ndef solve(text):\n    return base64.b64encode(text.encode()).decode()",
        calls((["hello"], "aGVsbG8=")),
        "b64encode",
        "b32encode",
    ),
    Honest(
        "packed",
        "import struct\ndef solve(n):\n    return list(struct.pack('>H', n))",
        calls(([258], [1, 2])),
        ">H",
        "<H",
    ),
    Honest(
        "copies",
        "import copy\ndef solve(a):\n    b = copy.deepcopy(a)\n    b[0].append(9)\n    return a, b",
        calls(([[[1]]], [[[1]], [[1, 9]]])),
        "deepcopy",
        "copy",
    ),
    Honest(
        "sorted by key",
        "from operator import itemgetter\ndef solve(rows):\n    return sorted(rows, key=itemgetter('age', 'name'))",
        calls(
            (
                [[{"age": 2, "name": "b"}, {"age": 2, "name": "a"}, {"age": 1, "name": "c"}]],
                [{"age": 1, "name": "c"}, {"age": 2, "name": "a"}, {"age": 2, "name": "b"}],
            )
        ),
        "'age', 'name'",
        "'name', 'age'",
    ),
    Honest(
        "json texts",
        "import json\ndef solve(text):\n    return json.dumps(json.loads(text), sort_keys=True, indent=1)",
        calls((['{"b": [1, null], "a": true}'], '{\n "a": true,\n "b": [\n  1,\n  null\n ]\n}')),
        "indent=1",
        "indent=2",
    ),
    Honest(
        "bits",
        "def solve(n):\n    return [n.bit_length(), bin(n).count('1'), n ^ 5, n << 3, ~n]",
        calls(([10], [4, 2, 15, 80, -11])),
        "n << 3",
        "n << 2",
    ),
    Honest(
        "roman numbers",
        """
def solve(n):
    out = ""
    values = (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1)
    for value, sign in zip(values, "M CM D CD C XC L XL X IX V IV I".split()):
        while n >= value:
            out, n = out + sign, n - value
    return out
""",
        calls(([1994], "MCMXCIV"), ([9], "IX")),
        "n >= value",
        "n > value",
    ),
    Honest(
        "lambda", "solve = lambda *items, key=abs: max(items, key=key)", calls(([1, -5, 3], -5)), "key=abs", "key=int"
    ),
    Honest(
        "a callable object",
        "class Adder:\n    def __call__(self, a): return a + 1\nsolve = Adder()",
        calls(([1], 2)),
        "a + 1",
        "a + 2",
    ),
    Honest(
        "asynchronous inside",
        """
import asyncio
async def later(x):
    await asyncio.sleep(0.001)
    return x * 2
def solve(items):
    async def all_of():
        return await asyncio.gather(*map(later, items))
    return asyncio.run(all_of())
""",
        calls(([[1, 2]], [2, 4])),
        "x * 2",
        "x * 3",
    ),
    Honest(
        "threads inside",
        """
from concurrent.futures import ThreadPoolExecutor
def solve(items):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda x: x * x, items))
""",
        calls(([[1, 2, 3]], [1, 4, 9])),
        "x * x",
        "x + x",
    ),
    Honest(
        "a database in memory",
        """
import sqlite3
def solve(items):
    with sqlite3.connect(':memory:') as db:
        db.execute('create table t (n int)')
        db.executemany('insert into t values (?)', [(n,) for n in items])
        return db.execute('select sum(n), max(n) from t').fetchone()
""",
        calls(([[1, 5, 3]], [9, 5])),
        "max(n)",
        "min(n)",
    ),
    Honest(
        "files in the working directory",
        """
import os
def solve(text):
    with open('note.txt', 'w') as file:
        file.write(text)
    with open('note.txt') as file:
        lines = file.readlines()
    os.remove('note.txt')
    return len(lines)
""",
        calls((["a\nb\nc"], 3)),
        "len(lines)",
        "len(lines) - 1",
    ),
    Honest(
        "temporary files",
        """
import tempfile, pathlib
def solve(text):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'x'
        path.write_text(text)
        return path.stat().st_size
""",
        calls((["abc"], 3)),
        "st_size",
        "st_size + 1",
    ),
    Honest(
        "tables",
        "import csv, io\ndef solve(text):\n    return [row['b'] for row in csv.DictReader(io.StringIO(text))]",
        calls((['a,b\n1,"x, y"\n2,z\n'], ["x, y", "z"])),
        "row['b']",
        "row['a']",
    ),
    Honest(
        "pickles of its own",
        """
import pickle
class Point:
    def __init__(self, x): self.x = x
def solve(x):
    return pickle.loads(pickle.dumps(Point(x))).x
""",
        calls(([4], 4)),
        "Point(x)",
        "Point(x + 1)",
    ),
    Honest(
        "random names of modules",
        """
import collections.abc as abc, operator as op
from math import *
def solve(x):
    return floor(x), op.neg(3), isinstance([], abc.Sequence)
""",
        calls(([2.7], [2, -3, True])),
        "floor(x)",
        "ceil(x)",
    ),
    Honest(
        "hash seed",
        "def solve(words):\n    return sorted(set(words))",
        calls(([["b", "a", "b"]], ["a", "b"])),
        "sorted(set(words))",
        "sorted(words)",
    ),
    Honest(
        "exec and eval of its own",
        "def solve(text):\n    return eval(compile(text, 'x', 'eval'), {})",
        calls((["2 * (3 + 4)"], 14)),
        "eval(compile",
        "1 + eval(compile",
    ),
]
