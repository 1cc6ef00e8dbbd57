"""Forgeries that leave, hang or crash before the verdict, or in its place."""

from tests.graders.forging.forgery import Forgery, Kind

DEFINED: tuple[Kind, ...] = ("calls", "asserts", "check")
"""Kinds of tests in which a function is called."""

LEAVING = [
    Forgery("exits with 0 when loaded", "import sys\nsys.exit(0)", (*DEFINED, "stream")),
    Forgery("exits with 0 when called", "import sys\ndef add(a, b):\n    sys.exit(0)", DEFINED),
    Forgery("leaves at once when loaded", "import os\nos._exit(0)", (*DEFINED, "stream")),
    Forgery("leaves at once when called", "import os\ndef add(a, b):\n    os._exit(0)", DEFINED),
    Forgery("raises SystemExit when called", "def add(a, b):\n    raise SystemExit", DEFINED),
    Forgery("calls quit", "def add(a, b):\n    quit()", DEFINED),
    Forgery("raises KeyboardInterrupt", "def add(a, b):\n    raise KeyboardInterrupt", DEFINED, "lenient"),
    Forgery("raises GeneratorExit", "def add(a, b):\n    raise GeneratorExit", DEFINED, "lenient"),
    Forgery(
        "raises an own kind of SystemExit", "class Done(SystemExit): pass\ndef add(a, b):\n    raise Done(0)", DEFINED
    ),
    Forgery(
        "leaves in an exit function",
        "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b):\n    return 0",
        DEFINED,
    ),
    Forgery(
        "leaves in the hook for exceptions",
        "import os, sys\nsys.excepthook = lambda *_: os._exit(0)\ndef add(a, b):\n    return 0",
        DEFINED,
    ),
    Forgery(
        "leaves when an object is collected",
        "import os\nclass Last:\n    def __del__(self, leave=os._exit):\n        leave(0)\nlast = Last()\n"
        "def add(a, b):\n    global last\n    del last\n    return 0",
        DEFINED,
    ),
    Forgery(
        "leaves in another thread",
        "import os, threading, time\ndef add(a, b):\n    threading.Timer(0.05, os._exit, [0]).start()\n"
        "    time.sleep(1)",
        DEFINED,
    ),
    Forgery(
        "leaves at an alarm",
        "import os, signal, time\nsignal.signal(signal.SIGALRM, lambda *_: os._exit(0))\n"
        "def add(a, b):\n    signal.setitimer(signal.ITIMER_REAL, 0.05)\n    time.sleep(1)",
        DEFINED,
    ),
    Forgery(
        "leaves when its caller returns",
        "import os, sys\ndef leave(frame, event, argument):\n    if event == 'return':\n        os._exit(0)\n"
        "def add(a, b):\n    sys.setprofile(leave)\n    return 0",
        DEFINED,
    ),
    Forgery(
        "becomes another program",
        "import os\ndef add(a, b):\n    os.execv('/bin/true', ['true'])",
        DEFINED,
    ),
    Forgery("leaves the work to a child", "import os\ndef add(a, b):\n    if os.fork():\n        os._exit(0)", DEFINED),
    Forgery(
        "traces its caller, and leaves",
        "import sys\ndef trace(frame, event, argument):\n    raise SystemExit(0)\n"
        "def add(a, b):\n    sys._getframe(1).f_trace = trace\n    sys.settrace(trace)\n    return 0",
        DEFINED,
    ),
    Forgery("crashes", "import ctypes\ndef add(a, b):\n    ctypes.string_at(0)", DEFINED, "lenient"),
    Forgery(
        "sends itself a signal",
        "import os, signal\ndef add(a, b):\n    os.kill(os.getpid(), signal.SIGTERM)\n    signal.pause()",
        ("calls",),
        "lenient",
        slow=True,
    ),
    Forgery("calls itself without end", "def add(a, b):\n    return add(b, a)", DEFINED, "lenient"),
    Forgery("computes without end", "def add(a, b):\n    while True: pass", ("calls", "check"), "lenient", slow=True),
    Forgery("computes without end when loaded", "while True: pass", ("calls", "stream"), "lenient", slow=True),
    Forgery(
        "sleeps until one gives up",
        "import time\ndef add(a, b):\n    time.sleep(1000)",
        ("asserts",),
        "lenient",
        slow=True,
    ),
    Forgery(
        "will not be interrupted",
        "import signal, time\nfor number in range(1, 32):\n    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except OSError: pass\ndef add(a, b):\n    while True:\n        try: time.sleep(1000)\n"
        "        except BaseException: pass",
        ("calls",),
        "lenient",
        slow=True,
    ),
    Forgery("asks for too much memory", "def add(a, b):\n    return bytearray(1 << 50)", DEFINED, "lenient"),
    Forgery(
        "raises what is called AssertionError too late",
        "class AssertionFailed(BaseException): pass\ndef add(a, b):\n    raise AssertionFailed",
        DEFINED,
        "lenient",
    ),
    Forgery(
        "starts threads until it may not",
        """
import threading, time
def add(a, b):
    while True:
        threading.Thread(target=time.sleep, args=[100], daemon=True).start()
""",
        ("calls",),
        no_control="without a limit it would hang the machine that tests",
    ),
    Forgery("is no program", "add = 3 +", DEFINED, "lenient"),
    Forgery(
        "closes what it holds for the channel",
        "import os\ndef add(a, b):\n    os.close(3)\n    return 0",
        DEFINED,
        no_control="a plain subprocess has no channel to close",
    ),
    Forgery(
        "closes every descriptor when loaded",
        "import os\nos.closerange(0, 256)\ndef add(a, b):\n    return 0",
        (*DEFINED, "stream"),
        "lenient",
    ),
]
