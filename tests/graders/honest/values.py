"""Honest functions: values of every kind."""

from tests.graders.honest.honest import Honest, calls

VALUES = [
    Honest("big integers", "def solve(n):\n    return n ** 200", calls(([10], 10**200)), "** 200", "** 200 + 1"),
    Honest(
        "factorial",
        "import math\ndef solve(n):\n    return math.factorial(n)",
        calls(([50], 30414093201713378043612608166064768844377641568960512000000000000)),
        "factorial(n)",
        "factorial(n) + 1",
    ),
    Honest(
        "floats with rounding",
        "def solve(a, b):\n    return 0.0 + a + b",
        calls(([0.1, 0.2], 0.3)),
        "0.0 + a",
        "0.001 + a",
    ),
    Honest(
        "sum in another order",
        "import math\ndef solve(items):\n    return sum(items) / len(items)",
        calls(([[0.1] * 10], 0.1), ([[1, 2]], 1.5)),
        "/ len",
        "// len",
    ),
    Honest("infinity", "def solve():\n    return float('inf')", calls(([], float("inf"))), "'inf'", "'-inf'"),
    Honest(
        "an int where a fraction is expected", "def solve(a):\n    return a // 2", calls(([4], 2.0)), "// 2", "// 3"
    ),
    Honest("a fraction where an int is expected", "def solve(a):\n    return a / 2", calls(([4], 2)), "/ 2", "/ 3"),
    Honest("none", "def solve(x):\n    return None if x else 0", calls(([1], None), ([0], 0)), "None if", "False if"),
    Honest("bools", "def solve(x):\n    return x % 2 == 0", calls(([2], True), ([3], False)), "== 0", "== 1"),
    Honest("empty text", "def solve(x):\n    return x.strip()", calls((["  "], ""), ([" a "], "a")), "x.strip()", "x"),
    Honest("empty containers", "def solve():\n    return [[], {}, (), '']", calls(([], [[], {}, [], ""])), "{}", "[]"),
    Honest(
        "unicode", "def solve(text):\n    return text.upper()", calls((["straße ñ"], "STRASSE Ñ")), "upper", "title"
    ),
    Honest("emoji", "def solve(text):\n    return text[::-1]", calls((["🎉é𝔘"], "𝔘é🎉")), "[::-1]", "[:]"),
    Honest(
        "names in unicode",
        "def größe(x):\n    π = 3\n    return π * x",
        calls(([2], 6)),
        "π = 3",
        "π = 4",
        function="größe",
    ),
    Honest("half characters", "def solve(n):\n    return len(chr(n))", calls(([0xD800], 1)), "len(chr(n))", "chr(n)"),
    Honest(
        "normal forms",
        "import unicodedata\ndef solve(text):\n    return unicodedata.normalize('NFC', text)",
        calls((["e\u0301"], "\u00e9")),
        "NFC",
        "NFD",
    ),
    Honest(
        "bytes",
        "def solve(text):\n    return text.encode('utf-16-le')",
        calls((["hé"], b"h\x00\xe9\x00")),
        "utf-16-le",
        "utf-8",
    ),
    Honest(
        "bytes in",
        "def solve(raw):\n    return raw.hex()",
        calls(([b"\x00\xff"], "00ff")),
        "raw.hex()",
        "raw.hex().upper()",
    ),
    Honest(
        "byte arrays",
        "def solve(n):\n    found = bytearray(range(n))\n    found.reverse()\n    return found",
        calls(([3], b"\x02\x01\x00")),
        "reverse",
        "copy",
    ),
    Honest(
        "complex numbers", "def solve(a, b):\n    return complex(a, b) ** 2", calls(([1, 2], -3 + 4j)), "** 2", "** 3"
    ),
    Honest(
        "complex functions",
        "import cmath\ndef solve():\n    return abs(cmath.exp(1j * cmath.pi) + 1)",
        calls(([], 0.0)),
        "+ 1)",
        "+ 2)",
    ),
    Honest("sets", "def solve(a, b):\n    return set(a) & set(b)", calls(([[1, 2, 3], [2, 3, 4]], [3, 2])), "&", "|"),
    Honest(
        "frozen sets",
        "def solve(a):\n    return frozenset(a)",
        calls((["aab"], ["a", "b"])),
        "frozenset(a)",
        "frozenset(a[2:])",
    ),
    Honest(
        "sets of tuples",
        "def solve(n):\n    return {(i, i * i) for i in range(n)}",
        calls(([3], [[2, 4], [0, 0], [1, 1]])),
        "range(n)",
        "range(n + 1)",
    ),
    Honest(
        "sets in sets",
        "def solve():\n    return {frozenset({1, 2}), frozenset()}",
        calls(([], {frozenset({1, 2}), frozenset()})),
        "{1, 2}",
        "{1, 3}",
    ),
    Honest(
        "tuples in dicts",
        "def solve(a):\n    return {'pair': (a, a + 1), 'deep': {'x': [(1,)]}}",
        calls(([1], {"pair": [1, 2], "deep": {"x": [[1]]}})),
        "a + 1",
        "a + 2",
    ),
    Honest(
        "dict with keys of many types",
        "def solve():\n    return {1: 'a', (1, 2): 'b', None: 'c', 2.5: 'd'}",
        calls(([], {1: "a", (1, 2): "b", None: "c", 2.5: "d"})),
        "'c'",
        "'d'",
    ),
    Honest(
        "ninety levels",
        """
def solve(n):
    found = []
    for _ in range(n):
        found = [found]
    return len(str(found)), found
""",
        calls(([60], [122, eval("[" * 61 + "]" * 61)])),
        "[found]\n",
        "[found, 0]\n",
    ),
    Honest(
        "an answer of a megabyte",
        "def solve(n):\n    return 'ab' * n",
        calls(([500_000], "ab" * 500_000)),
        "'ab' * n",
        "'ab' * (n - 1)",
    ),
    Honest(
        "a list of a hundred thousand",
        "def solve(n):\n    return list(range(n))",
        calls(([100_000], list(range(100_000)))),
        "range(n)",
        "range(1, n + 1)",
    ),
    Honest(
        "long input",
        "def solve(items):\n    return sum(items)",
        calls(([list(range(50_000))], 1249975000)),
        "sum(items)",
        "sum(items[1:]) + 1",
    ),
]
