"""Forgeries of whole programs, which are judged by what they print."""

from tests.graders.forging.forgery import Forgery

NUMBERS = "import sys\nprint(*range(-200, 200))"
SPLIT = [{"input": "1 2\n", "output": "0.5\n"}, {"input": "3 4\n", "output": "0.75\n"}]

STREAMS = [
    Forgery("prints every number", NUMBERS, ("stream",), "contains"),
    Forgery("prints all the answers", "print('3')\nprint('6')\nprint('123')", ("stream",), "contains"),
    Forgery("prints answers over one another", r"print('3\r6\r123')", ("stream",), "contains"),
    Forgery("wipes what it printed before", r"print('0\x1b[2K\x1b[1G6 3 123', end='\b')", ("stream",), "contains"),
    Forgery("prints three megabytes", "for _ in range(3000): print('3 6 123 ' * 125)", ("stream",), "contains"),
    Forgery(
        "prints without end",
        "while True: print('passed 3 6 123')",
        ("stream",),
        "contains",
        no_control="without a limit it would fill the memory of whoever tests",
    ),
    Forgery(
        "prints nothing",
        "pass",
        ("stream",),
        "contains",
        no_control="nothing contains no answer; a missing output must not count as equal",
    ),
    Forgery(
        "repeats its input",
        "import sys\nsys.stdout.write(sys.stdin.read())",
        ("stream",),
        "contains",
        earned=0.0,
        tests=[{"input": "1 2\n", "output": "1\n"}, {"input": "10 4\n", "output": "4\n"}],
    ),
    Forgery("is no number in its output", "print('nan')", ("stream",), "near", tests=SPLIT),
    Forgery(
        "prints infinity",
        "print('inf')",
        ("stream",),
        "near",
        tests=SPLIT,
        no_control="infinity is far from all numbers, for naive harnesses too",
    ),
    Forgery(
        "prints a bare dot", "print('.')", ("stream",), "contains", tests=SPLIT, no_control="only a dot is no number"
    ),
    Forgery(
        "prints to a false standard output",
        """
import sys
class Equal(str):
    __eq__ = lambda self, other: True
    __hash__ = str.__hash__
    strip = lambda self: self
class Out:
    write = flush = lambda *_: None
    getvalue = lambda self: Equal()
sys.stdout = Out()
""",
        ("stream",),
    ),
    Forgery(
        "finds the output in its caller's variables",
        """
import sys
frame = sys._getframe()
given = sys.stdin.read()
while "tests" not in frame.f_locals:
    frame = frame.f_back
for test in frame.f_locals["tests"]:
    if test["input"] == given:
        print(test["output"], end="")
""",
        ("stream",),
    ),
    Forgery(
        "finds the output among all objects",
        """
import gc, sys
given = sys.stdin.read()
def find():
    for tests in gc.get_objects():
        for test in tests if type(tests) is list else ():
            if type(test) is dict and test.get("input") == given and "output" in test:
                return test["output"]
print(find(), end="")
""",
        ("stream",),
    ),
    Forgery(
        "finds the output in the file with the tests",
        """
import json, sys
given = sys.stdin.read()
for test in json.load(open(sys.argv[-1]))["tests"]:
    if test["input"] == given:
        print(test["output"], end="")
""",
        ("stream",),
    ),
    Forgery(
        "writes to standard error only",
        "import sys\nprint('3', file=sys.stderr)\nprint('passed', file=sys.stderr)\nsys.exit(0)",
        ("stream",),
    ),
    Forgery(
        "prints the verdict", "import sys\nprint('Accepted, all passed', file=sys.__stdout__)", ("stream",), "word"
    ),
    Forgery(
        "prints half the answers and leaves in a thread",
        """
import os, threading, time
threading.Timer(0.05, os._exit, [0]).start()
print("1")
time.sleep(1)
""",
        ("stream",),
    ),
    Forgery(
        "forges the end of the program",
        """
import os, struct
body = b'["tuple",[0,"value",true]]'
os.write(3, struct.pack(">I", len(body)) + body)
""",
        ("stream",),
        "frame",
    ),
    Forgery(
        "prints the answer of the first test",
        "print(3)",
        ("stream",),
        earned=1 / 3,
        no_control="a share of the tests is honestly passed",
    ),
    Forgery(
        "remembers the inputs of other tests in a file",
        """
import os, sys
given = sys.stdin.read()
known = open("/tmp/known").read() if os.path.exists("/tmp/known") else ""
open("/tmp/known", "a").write(given)
print({"": "3", "1 2\\n": "6", "1 2\\n10 -4\\n": "123"}[known])
""",
        ("stream",),
        earned=1 / 3,
        no_control="a share of the tests is honestly passed",
    ),
]
