"""The jail's own harness and protocol, which a program can reach: they must gain it nothing, and never cost the parent.

That a program forges its own answer is not an attack: it could as well return it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.sandbox.attacks.base import HASTY, ITSELF, ROOMY, Attack, attack, enchanted

HASTY_BUT_ROOMY = replace(ROOMY, seconds=HASTY.seconds)

SETUP = """
import json, struct
import socket

def say(body):
    message = struct.pack(">I", len(body)) + body
    sent = 0
    while sent < len(message):
        sent += os.write(3, message[sent : sent + (1 << 20)])

def forge(value, number=1, kind="value"):
    say(json.dumps(["tuple", [number, kind, value]]).encode())

def wait():
    while True:
        time.sleep(1)
"""


def _at(name: str, body: str, setup: str = "", **options: Any) -> Attack:
    return attack(name, body, enchanted, SETUP + setup, no_control=ITSELF, **options)


HARNESS = [
    _at("announce_four_gigabytes", "os.write(3, b'\\xff\\xff\\xff\\xff')\nwait()"),
    _at("announce_and_say_nothing", "os.write(3, struct.pack('>I', 1000))\nwait()", limits=HASTY),
    _at(
        "drip",
        "os.write(3, struct.pack('>I', 1 << 15))\nwhile True:\n    os.write(3, b'x')\n    time.sleep(0.01)",
        limits=HASTY,
    ),
    _at(
        "drip_as_fast_as_the_machine_can",  # write(3, a byte, 1), for ever
        """
        os.write(3, struct.pack(">I", 16 << 20))
        flow = machine("bf03000000 488d3500000000 ba01000000 b801000000 0f05 ebe6")
        for _ in range(3):
            threading.Thread(target=flow, daemon=True).start()
        flow()
        """,
        limits=HASTY_BUT_ROOMY,
    ),
    _at(
        "drip_out_of_band",  # sendto(3, a byte, 1, MSG_OOB), for ever
        """
        os.write(3, struct.pack(">I", 16 << 20))
        flow = machine("bf03000000 488d3500000000 ba01000000 41ba01000000 4d31c0 4d31c9 b82c000000 0f05 ebda")
        for _ in range(3):
            threading.Thread(target=flow, daemon=True).start()
        flow()
        """,
        limits=HASTY_BUT_ROOMY,
    ),
    _at("say_garbage", "os.write(3, os.urandom(1000))\nwait()", limits=HASTY),
    _at("say_what_is_no_json", "say(b'\\x00\\xff nothing')\nwait()"),
    _at("say_what_is_no_triple", "say(b'17')\nwait()"),
    _at("say_an_object", 'say(b\'{"number": 1, "kind": "value"}\')\nwait()'),
    _at("say_a_kind_that_is_none", "forge(None, kind='timeout')\nwait()"),
    _at("say_a_kind_that_is_a_list", "forge(None, kind=['list', []])\nwait()"),
    _at("say_another_number", "forge('x', number=7)\nwait()"),
    _at("say_true_for_a_number", "forge('x', number=True)\nwait()"),
    _at("say_a_number_of_many_digits", "say(b'[\"tuple\",[1,\"value\",' + b'9' * 50_000 + b']]')\nwait()"),
    _at("say_a_deep_value", "say(b'[' * 60_000 + b']' * 60_000)\nwait()"),
    _at("say_a_deep_value_of_the_right_form", "say(b'[\"list\",[' * 5000 + b']]' * 5000)\nwait()"),
    _at("say_a_type_of_its_own", "forge(['sharpen.errors.GraderError', ['x']])\nwait()"),
    _at("say_what_cannot_be_hashed", "forge(['set', [['list', []]]])\nwait()"),
    _at(
        "say_numbers_that_collide",
        "forge(['set', [['int', hex(number * ((1 << 61) - 1))] for number in range(1, 40_000)]])\nwait()",
        limits=ROOMY,
    ),
    _at(
        "say_keys_that_collide",
        "forge(['dict', [[['int', hex(number * ((1 << 61) - 1))], 0] for number in range(1, 40_000)]])\nwait()",
        limits=ROOMY,
    ),
    _at(
        "say_a_million_lists",
        'say(b\'["tuple",[1,"value",["list",[\' + b\'["list",[]],\' * 1_300_000 + b\'0]]]]\')\nwait()',
        limits=ROOMY,
    ),
    _at("say_many_frames", "for number in range(1000):\n    forge('x', number)\nwait()"),
    _at("answer_before_being_asked", "forge('x', 1)\nforge('x', 2)\nreturn 1"),
    _at("close_the_channel", "os.close(3)\nwait()", limits=HASTY),
    _at("shut_the_channel", "socket.socket(fileno=os.dup(3)).shutdown(socket.SHUT_RDWR)\nwait()", limits=HASTY),
    _at("close_everything", "os.closerange(0, 64)\nwait()", limits=HASTY),
    _at("leave", "os._exit(0)"),
    _at("leave_in_a_thread", "threading.Thread(target=os._exit, args=(0,)).start()\nwait()"),
    _at("leave_in_the_first_thread_only", "threading.Thread(target=wait).start()\nlibc.syscall(60, 0)", limits=HASTY),
    _at("crash", "ctypes.string_at(0)"),
    _at("abort", "os.abort()"),
    _at("call_what_is_forbidden", "return machine('b8ffffff7f 0f05 c3')()"),
    _at(
        "replace_how_values_leave",
        "from sharpen.sandbox import values\nvalues.dumps = lambda value: b'no value'\nreturn 1",
    ),
    _at(
        "replace_every_module",
        "for name in list(sys.modules):\n    sys.modules[name] = None\nsys.path[:] = []\nreturn 1",
    ),
    _at(
        "replace_what_is_built_in",
        "import builtins\nfor name in ('len', 'isinstance', 'type', 'int', 'bytes'):\n"
        "    setattr(builtins, name, lambda *rest: attack)\nreturn [1]",
    ),
    _at(
        "answer_a_text_that_is_more",
        "return Text('x')",
        "class Text(str):\n    def __str__(self): return wait()\n    def __eq__(self, other): return True\n"
        "    __hash__ = str.__hash__\n",
    ),
    _at(
        "answer_a_list_without_end",
        "return Endless([1])",
        "class Endless(list):\n    def __iter__(self):\n        while True:\n            yield self\n",
    ),
    _at(
        "answer_a_number_that_hangs",
        "return Slow(1)",
        "class Slow(int):\n    def __int__(self): wait()\n",
        limits=HASTY,
    ),
    _at(
        "answer_an_array_of_itself",
        "return Array()",
        "class Array:\n    dtype = 1\n    def tolist(self): return self\n",
    ),
    _at("answer_itself", "value = []\nvalue.append(value)\nreturn value"),
    _at("answer_deeply", "value = 1\nfor _ in range(100_000):\n    value = [value]\nreturn value"),
    _at(
        "raise_what_cannot_be_shown",
        "raise Hidden",
        "class Hidden(Exception):\n    def __str__(self): wait()\n",
        limits=HASTY,
    ),
    _at("hang_at_the_end", "import atexit\natexit.register(wait)\nsys.exit(0)"),
    _at(
        "trace_the_harness",
        "sys.settrace(follow)\nthreading.settrace(follow)\nframe = sys._getframe()\n"
        "while frame:\n    frame.f_trace = follow\n    frame = frame.f_back\nreturn 1",
        "def follow(frame, event, value):\n    for name in frame.f_locals:\n        frame.f_locals[name] = attack\n"
        "    return follow\n",
    ),
    _at(
        "hang_when_forgotten",
        "global keeper\nkeeper = Clinging()\ndel keeper\nreturn 1",
        "class Clinging:\n    def __del__(self): wait()\n",
        limits=HASTY,
    ),
    _at("answer_late_from_a_thread", "threading.Timer(0.01, forge, ('late', 2)).start()\nreturn 1"),
]
