"""A dozen small attacks and one honest program, tried in a new kind of jail before anything is trusted to it."""

from __future__ import annotations

SOURCE = """
import ctypes, os, socket, sys

libc = ctypes.CDLL(None, use_errno=True)


def benign(numbers):
    return sorted(numbers)


def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def read_secret(secret, folder):
    open(secret).read()

def write_outside(secret, folder):
    open(os.path.join(folder, "mark"), "w").close()

def remove_secret(secret, folder):
    os.unlink(secret)

def environment(secret, folder):
    threads = {name for name in os.environ if name.endswith("_NUM_THREADS")}
    assert set(os.environ) - {"PYTHONHASHSEED", "HOME", "LANG", "LC_CTYPE", "MALLOC_ARENA_MAX", "TMPDIR"} - threads

def fork(secret, folder):
    if not os.fork():
        os._exit(0)

def execute(secret, folder):
    if os.path.exists("/bin/true"):
        raise PermissionError
    os.posix_spawn("/bin/true", ["true"], {})

def internet(secret, folder):
    socket.socket(socket.AF_INET, socket.SOCK_STREAM)

def local_socket(secret, folder):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

def signal_parent(secret, folder):
    parent = os.getppid()
    if not parent:
        raise PermissionError
    os.kill(parent, 0)

def become_root(secret, folder):
    os.setuid(0)
    os.chown(".", 0, 0)

def namespaces(secret, folder):
    call("unshare", 0x10000000)

def mount(secret, folder):
    call("mount", b"x", b"/tmp", b"tmpfs", 0, None)

def trace(secret, folder):
    call("ptrace", 0, 0, None, None)

def hidden_memory(secret, folder):
    os.memfd_create("x")

def processes(secret, folder):
    os.listdir("/proc/self")

def too_much_memory(secret, folder):
    bytearray(2 << 30)

def too_many_files(secret, folder):
    for _ in range(5000):
        os.dup(0)


ATTACKS = [read_secret, write_outside, remove_secret, environment, fork, execute, internet, local_socket, signal_parent,
           become_root, namespaces, mount, trace, hidden_memory, processes, too_much_memory, too_many_files]


def attacks(secret, folder):
    succeeded = []
    for attack in ATTACKS:
        if sys.platform == "darwin" and attack in (trace, too_much_memory):  # harmless there; a known lack
            continue
        try:
            attack(secret, folder)
        except (OSError, MemoryError, AssertionError, AttributeError):  # the last: this system has no such thing
            continue
        succeeded.append(attack.__name__)
    return {"tried": len(ATTACKS), "succeeded": succeeded}
"""

COUNT = SOURCE.count("(secret, folder):\n") - 1
"""How many attacks the program knows."""
