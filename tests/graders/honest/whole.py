"""Honest whole programs, and functions whose tests are programs themselves."""

from tests.graders.honest.honest import Honest, streams

SUM = streams(("1 2\n", "3\n"), ("10 -4\n", "6\n"))
LINES = streams(("3\n1\n2\n3\n", "6\n"), ("1\n5\n", "5\n"))

WHOLE = [
    Honest("input", "a, b = map(int, input().split())\nprint(a + b)", SUM, "a + b", "a - b"),
    Honest("reads all", "import sys\nprint(sum(map(int, sys.stdin.read().split())))", SUM, "sum(map", "max(map"),
    Honest("opens descriptor 0", "print(sum(map(int, open(0).read().split())))", SUM, "sum(map", "max(map"),
    Honest(
        "goes through the lines",
        "import sys\nfor line in sys.stdin:\n    print(sum(map(int, line.split())))",
        SUM,
        "sum(map",
        "max(map",
    ),
    Honest(
        "reads bytes",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.readline().split())))",
        SUM,
        "sum(map",
        "max(map",
    ),
    Honest(
        "reads line after line",
        "import sys\nread = sys.stdin.readline\nn = int(read())\nprint(sum(int(read()) for _ in range(n)))",
        LINES,
        "range(n)",
        "range(n - 1)",
    ),
    Honest(
        "reads until the end",
        "total = 0\ninput()\ntry:\n    while True:\n        total += int(input())\nexcept EOFError:\n    print(total)",
        LINES,
        "print(total)",
        "print(total + 1)",
    ),
    Honest(
        "prints without line ends",
        "print(*input().split()[::-1], sep=',', end='')",
        streams(("a b c\n", "c,b,a")),
        "[::-1]",
        "[:]",
    ),
    Honest(
        "writes to standard output",
        "import sys\nsys.stdout.write(input().upper() + '\\n')",
        streams(("abc\n", "ABC\n")),
        "upper",
        "title",
    ),
    Honest(
        "writes bytes",
        "import sys\nsys.stdout.buffer.write(input().encode() * 2)",
        streams(("ab\n", "abab")),
        "* 2",
        "* 3",
    ),
    Honest(
        "writes to descriptor 1",
        "import os\nos.write(1, input().encode()[::-1])",
        streams(("abc\n", "cba\n")),
        "[::-1]",
        "[:]",
    ),
    Honest(
        "flushes",
        "import sys\nprint('a', flush=True)\nsys.stdout.flush()\nprint(input())",
        streams(("b\n", "a\nb\n")),
        "'a'",
        "'b'",
    ),
    Honest("exits", "print(int(input()) * 2)\nraise SystemExit", streams(("4\n", "8\n")), "* 2", "* 3"),
    Honest(
        "exits with 0",
        "import sys\ndef main():\n    print(int(input()) * 2)\n    sys.exit(0)\nmain()",
        streams(("4\n", "8\n")),
        "* 2",
        "* 3",
    ),
    Honest(
        "exits early",
        "import sys\nn = int(input())\nif n < 0:\n    print('negative')\n    sys.exit()\nprint(n)",
        streams(("-4\n", "negative"), ("4\n", "4")),
        "n < 0",
        "n > 0",
    ),
    Honest(
        "leaves at once",
        "import os\nprint(input(), flush=True)\nos._exit(0)",
        streams(("x\n", "x\n")),
        "print(input()",
        "print(input() + '!'",
    ),
    Honest(
        "is the main module",
        "def main():\n    print(len(input()))\n\nif __name__ == '__main__':\n    main()",
        streams(("abc\n", "3\n")),
        "len(input())",
        "len(input()) + 1",
    ),
    Honest(
        "has threads",
        """
import threading
found = []
def work(n): found.append(n * n)
threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(sorted(found))
""",
        streams(("", "[0, 1, 4, 9]\n")),
        "n * n",
        "n + n",
    ),
    Honest(
        "leaves a thread to finish",
        """
import threading, time
def late():
    time.sleep(0.05)
    print('late')
threading.Thread(target=late).start()
print('early')
""",
        streams(("", "early\nlate\n")),
        "print('early')",
        "print('soon')",
    ),
    Honest(
        "has a deep thread",
        """
import sys, threading
sys.setrecursionlimit(100_000)
threading.stack_size(64 << 20)
def deep(n): return 0 if n == 0 else 1 + deep(n - 1)
t = threading.Thread(target=lambda: print(deep(20_000)))
t.start()
t.join()
""",
        streams(("", "20000\n")),
        "0 if",
        "1 if",
    ),
    Honest(
        "runs coroutines",
        "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    print(input()[0])\nasyncio.run(main())",
        streams(("xyz\n", "x\n")),
        "[0]",
        "[1]",
    ),
    Honest(
        "prints at exit",
        "import atexit\natexit.register(print, 'bye')\nprint('hello')",
        streams(("", "hello\nbye\n")),
        "'bye'",
        "'by'",
    ),
    Honest(
        "prints to both outputs",
        "import sys\nprint('working', file=sys.stderr)\nprint(int(input()) + 1)",
        streams(("1\n", "2\n")),
        "+ 1",
        "+ 2",
    ),
    Honest(
        "prints fractions", "print(1 / int(input()))", streams(("3\n", "0.33333333\n"), ("4\n", "0.25\n")), "1 /", "2 /"
    ),
    Honest(
        "prints rounded fractions", "print('%.3f %.1f' % (2 / 3, 2.0))", streams(("", "0.667 2.0\n")), "2 / 3", "1 / 3"
    ),
    Honest("leaves white space", "print('a  ')\nprint('b')\nprint()\nprint()", streams(("", "a\nb")), "'b'", "'c'"),
    Honest(
        "prints nothing",
        "if input() == 'loud':\n    print('!')",
        streams(("quiet\n", ""), ("loud\n", "!\n")),
        "'!'",
        "'?'",
    ),
    Honest("prints unicode", "print(input()[::-1])", streams(("äß🎉\n", "🎉ßä\n")), "[::-1]", "[:]"),
    Honest(
        "draws a pyramid",
        "n = int(input())\nfor i in range(n):\n    print(' ' * (n - i - 1) + '*' * (2 * i + 1))",
        streams(("3\n", "  *\n ***\n*****\n")),
        "2 * i + 1",
        "2 * i + 2",
    ),
    Honest(
        "prints much",
        "for i in range(20_000): print(i)",
        streams(("", "\n".join(map(str, range(20_000))))),
        "print(i)",
        "print(i + 1)",
    ),
    Honest(
        "writes and reads a file",
        "import tempfile\nwith open('data.txt', 'w') as f: f.write(input())\nprint(open('data.txt').read() + '.')",
        streams(("x\n", "x.\n")),
        "'.'",
        "'!'",
    ),
    Honest(
        "reads JSON",
        "import json, sys\nprint(json.load(sys.stdin)['a'][1])",
        streams(('{"a": [1, 2]}', "2\n")),
        "[1]",
        "[0]",
    ),
    Honest(
        "replaces its own output",
        """
import io, sys
from contextlib import redirect_stdout
with redirect_stdout(io.StringIO()) as out:
    print(input())
print(out.getvalue().strip() * 2)
""",
        streams(("ab\n", "abab\n")),
        "* 2",
        "* 3",
    ),
    Honest(
        "closes its output",
        "import sys\nprint(int(input()) + 1)\nsys.stdout.close()",
        streams(("1\n", "2\n")),
        "+ 1",
        "+ 2",
    ),
    Honest(
        "solves several cases",
        "for _ in range(int(input())):\n    n = int(input())\n    print('YES' if n % 2 == 0 else 'NO')",
        streams(("3\n2\n3\n4\n", "YES\nNO\nYES\n")),
        "== 0",
        "== 1",
    ),
    Honest(
        "lines as lists",
        "print(input() + input())",
        {"inputs": [["a", "b"], "c\nd"], "outputs": [["ab"], "cd"]},
        "input() + input()",
        "input()",
    ),
]

CHECKED = [
    Honest(
        "check",
        "def solve(a, b):\n    return b + a",
        "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(b=1, a=5) == 6\n",
        "b + a",
        "b * a",
    ),
    Honest(
        "check that raises itself",
        "def solve(a):\n    return a",
        "def check(candidate):\n    if candidate(3) != 3:\n        raise ValueError\n",
        "return a",
        "return a + 1",
    ),
    Honest(
        "check with mathematics",
        "import math\ndef solve(r):\n    return math.pi * r * r",
        """
import math
def check(candidate):
    for r in range(5):
        assert math.isclose(candidate(r), math.pi * r ** 2)
""",
        "r * r",
        "r * 2",
    ),
    Honest(
        "check that expects an exception",
        "def solve(n):\n    if n < 0:\n        raise ValueError('negative')\n    return n",
        """
def check(candidate):
    try:
        candidate(-1)
    except ValueError as error:
        assert 'negative' in str(error)
    else:
        assert False
    assert candidate(2) == 2
""",
        "ValueError(",
        "KeyError(",
    ),
    Honest(
        "check with unittest",
        "def solve(text):\n    return ''.join(reversed(text))",
        """
import unittest
class Tests(unittest.TestCase):
    def test(self):
        self.assertEqual(candidate('ab'), 'ba')
def check(candidate):
    result = unittest.TestResult()
    Tests('test').run(result)
    assert result.wasSuccessful()
""",
        "reversed(text)",
        "text",
    ),
    Honest(
        "check with random cases",
        "def solve(items):\n    return sorted(items)",
        """
import random
def check(candidate):
    for seed in range(30):
        items = random.Random(seed).sample(range(50), 20)
        assert candidate(items) == sorted(items)
""",
        "sorted(items)",
        "list(items)",
    ),
    Honest(
        "check of the program's parts",
        "def part(n):\n    return n + 1\ndef solve(n):\n    return part(n) * 2",
        "def check(candidate):\n    assert candidate(1) == 4\n    assert part(1) == 2\n",
        "n + 1",
        "n + 2",
    ),
    Honest(
        "assertions",
        "def solve(items):\n    return max(items) - min(items)",
        ["assert solve([1, 5]) == 4", "assert solve([2]) == 0"],
        "- min",
        "+ min",
    ),
    Honest(
        "assertions without a function's name",
        "def double(n):\n    return n * 2",
        ["assert double(2) == 4", "assert double(0) == 0"],
        "* 2",
        "* 3",
        function="",
    ),
    Honest(
        "assertions about tuples and sets",
        "def solve(n):\n    return (n, {n})",
        ["assert solve(1) == (1, {1})", "assert isinstance(solve(2), tuple)"],
        "{n}",
        "[n]",
    ),
    Honest(
        "assertions in one text",
        "def solve(n):\n    return str(n)",
        "assert solve(1) == '1'\nassert solve(solve(2)) == '2'\n",
        "str(n)",
        "n",
    ),
    Honest(
        "calls in TACO's words",
        "def solve(a, b):\n    return a * b",
        {"fn_name": "solve", "inputs": [[2, 3], [4, 5]], "outputs": [6, 20]},
        "a * b",
        "a + b",
    ),
]
