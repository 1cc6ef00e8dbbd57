"""Honest functions: algorithms, and what Python has for them."""

from tests.graders.honest.honest import Honest, calls

ALGORITHMS = [
    Honest("adds", "def solve(a, b):\n    return a + b", calls(([1, 2], 3), ([-1, 1], 0)), "a + b", "a - b"),
    Honest(
        "euclid",
        "def solve(a, b):\n    while b:\n        a, b = b, a % b\n    return a",
        calls(([12, 18], 6), ([7, 13], 1)),
        "return a",
        "return b",
    ),
    Honest(
        "sieve",
        """
def solve(n):
    prime = [True] * (n + 1)
    prime[:2] = [False, False]
    for p in range(2, int(n ** 0.5) + 1):
        if prime[p]:
            prime[p * p :: p] = [False] * len(prime[p * p :: p])
    return [i for i, yes in enumerate(prime) if yes]
""",
        calls(([30], [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]), ([4], [2, 3])),
        "n ** 0.5) + 1",
        "n ** 0.5)",
    ),
    Honest(
        "binary search",
        """
def solve(items, wanted):
    low, high = 0, len(items)
    while low < high:
        middle = (low + high) // 2
        if items[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < len(items) and items[low] == wanted else -1
""",
        calls(([[1, 3, 5, 7], 7], 3), ([[1, 3, 5, 7], 4], -1), ([[], 1], -1)),
        "[middle] < wanted",
        "[middle] <= wanted",
    ),
    Honest(
        "bubble sort",
        """
def solve(items):
    items = list(items)
    for end in range(len(items) - 1, 0, -1):
        for i in range(end):
            if items[i] > items[i + 1]:
                items[i], items[i + 1] = items[i + 1], items[i]
    return items
""",
        calls(([[3, 1, 2]], [1, 2, 3]), ([[]], []), ([[2, 2, 1]], [1, 2, 2])),
        "items[i] > items",
        "items[i] < items",
    ),
    Honest(
        "quick sort by recursion",
        """
def solve(items):
    if len(items) < 2:
        return items
    pivot, *rest = items
    return solve([x for x in rest if x < pivot]) + [pivot] + solve([x for x in rest if x >= pivot])
""",
        calls(([[3, 1, 2, 3, 0]], [0, 1, 2, 3, 3])),
        "x >= pivot",
        "x > pivot",
    ),
    Honest(
        "fibonacci with a cache",
        """
from functools import lru_cache
@lru_cache(maxsize=None)
def solve(n):
    return n if n < 2 else solve(n - 1) + solve(n - 2)
""",
        calls(([10], 55), ([90], 2880067194370816120)),
        "n < 2",
        "n < 3",
    ),
    Honest(
        "recursion nine hundred deep",
        "def solve(n):\n    return 0 if n == 0 else 1 + solve(n - 1)",
        calls(([900], 900)),
        "0 if",
        "1 if",
    ),
    Honest(
        "recursion with a higher limit",
        "import sys\nsys.setrecursionlimit(20_000)\ndef solve(n):\n    return 0 if n == 0 else n + solve(n - 1)",
        calls(([5000], 12502500)),
        "n + solve",
        "1 + solve",
    ),
    Honest(
        "edit distance",
        """
def solve(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]
""",
        calls((["kitten", "sitting"], 3), (["", "abc"], 3), (["flaw", "lawn"], 2)),
        "(x != y)",
        "2 * (x != y)",
    ),
    Honest(
        "breadth first",
        """
from collections import deque
def solve(graph, start, end):
    waiting, seen = deque([(start, 0)]), {start}
    while waiting:
        node, steps = waiting.popleft()
        if node == end:
            return steps
        for other in graph.get(node, []):
            if other not in seen:
                seen.add(other)
                waiting.append((other, steps + 1))
""",
        calls(([{"a": ["b", "c"], "b": ["d"], "c": ["d"]}, "a", "d"], 2), ([{"a": []}, "a", "x"], None)),
        "steps + 1",
        "steps + 2",
    ),
    Honest(
        "dijkstra",
        """
import heapq
def solve(graph, start):
    best, heap = {}, [(0, start)]
    while heap:
        cost, node = heapq.heappop(heap)
        if node not in best:
            best[node] = cost
            for other, weight in graph.get(node, {}).items():
                heapq.heappush(heap, (cost + weight, other))
    return best
""",
        calls(([{"a": {"b": 5, "c": 1}, "c": {"b": 2}}, "a"], {"a": 0, "b": 3, "c": 1})),
        "heappush(heap, (cost + weight",
        "heappush(heap, (weight",
    ),
    Honest(
        "permutations",
        "from itertools import permutations\ndef solve(items):\n    return list(permutations(items))",
        calls(([[1, 2, 3]], [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]])),
        "(items))",
        "(items[::-1]))",
    ),
    Honest(
        "queens",
        """
def solve(n):
    def place(row, columns, up, down):
        if row == n:
            return 1
        return sum(place(row + 1, columns | {c}, up | {row + c}, down | {row - c})
                   for c in range(n) if c not in columns and row + c not in up and row - c not in down)
    return place(0, frozenset(), frozenset(), frozenset())
""",
        calls(([4], 2), ([6], 4)),
        " and row - c not in down",
        "",
    ),
    Honest(
        "knapsack",
        """
def solve(weights, values, room):
    best = [0] * (room + 1)
    for weight, value in zip(weights, values):
        for left in range(room, weight - 1, -1):
            best[left] = max(best[left], best[left - weight] + value)
    return best[room]
""",
        calls(([[1, 3, 4], [15, 50, 60], 4], 65)),
        "range(room, weight - 1, -1)",
        "range(weight, room)",
    ),
    Honest(
        "matrix product",
        "def solve(a, b):\n    return [[sum(x * y for x, y in zip(row, col)) for col in zip(*b)] for row in a]",
        calls(([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], [[19, 22], [43, 50]])),
        "x * y",
        "x + y",
    ),
    Honest(
        "transpose as tuples",
        "def solve(rows):\n    return list(zip(*rows))",
        calls(([[[1, 2], [3, 4]]], [[1, 3], [2, 4]])),
        "zip(*rows)",
        "rows",
    ),
    Honest(
        "heap of the largest",
        "import heapq\ndef solve(items, k):\n    return heapq.nlargest(k, items)",
        calls(([[5, 1, 9, 7], 2], [9, 7])),
        "nlargest",
        "nsmallest",
    ),
    Honest(
        "bisect",
        "import bisect\ndef solve(items, x):\n    return bisect.bisect_left(items, x)",
        calls(([[1, 2, 2, 3], 2], 1)),
        "bisect_left",
        "bisect_right",
    ),
    Honest(
        "counter",
        "from collections import Counter\ndef solve(text):\n    return Counter(text)",
        calls((["abca"], {"a": 2, "b": 1, "c": 1})),
        "Counter(text)",
        "Counter(text[1:])",
    ),
    Honest(
        "default dict",
        """
from collections import defaultdict
def solve(words):
    found = defaultdict(list)
    for word in words:
        found[len(word)].append(word)
    return {str(size): group for size, group in found.items()}
""",
        calls(([["a", "bb", "c"]], {"1": ["a", "c"], "2": ["bb"]})),
        "append(word)",
        "insert(0, word)",
    ),
    Honest(
        "ordered dict",
        "from collections import OrderedDict\ndef solve(pairs):\n    return OrderedDict(pairs)",
        calls(([[["b", 1], ["a", 2]]], {"a": 2, "b": 1})),
        "OrderedDict(pairs)",
        "OrderedDict(pairs[1:])",
    ),
    Honest(
        "named tuple",
        """
from collections import namedtuple
Point = namedtuple('Point', 'x y')
def solve(x, y):
    return Point(x=x, y=y)
""",
        calls(([1, 2], [1, 2])),
        "x=x, y=y",
        "x=y, y=x",
    ),
    Honest(
        "accumulate",
        "from itertools import accumulate\ndef solve(items):\n    return list(accumulate(items))",
        calls(([[1, 2, 3]], [1, 3, 6])),
        "accumulate(items)",
        "accumulate(items, max)",
    ),
    Honest(
        "groupby",
        """
from itertools import groupby
def solve(text):
    return ''.join(f'{c}{len(list(g))}' for c, g in groupby(text))
""",
        calls((["aaabcc"], "a3b1c2")),
        "len(list(g))",
        "len(list(g)) - 1",
    ),
    Honest(
        "reduce",
        "from functools import reduce\nimport operator\ndef solve(items):\n    return reduce(operator.mul, items, 1)",
        calls(([[2, 3, 7]], 42), ([[]], 1)),
        "operator.mul",
        "operator.add",
    ),
    Honest(
        "partial",
        "from functools import partial\ncube = partial(pow, exp=3)\ndef solve(x):\n    return cube(x)",
        calls(([3], 27)),
        "exp=3",
        "exp=2",
    ),
]
