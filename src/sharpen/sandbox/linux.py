"""Linux's own words, through ctypes: namespaces, mounts, Landlock, seccomp, capabilities. Raises OSError.

Nothing here is looked up before it is called, so the module imports everywhere.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from functools import cache
from typing import Any

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x4000, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH = 1, 0o2000000, 4

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION = 0x20080522

PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442  # numbers from 424 on are the same everywhere
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446

LIST = 1 << 3
"""Landlock: list a folder."""
READ = 1 << 2 | LIST
"""Landlock: read a file, list a folder."""
WRITE = 1 << 1 | sum(1 << bit for bit in (4, 5, 7, 8, 12, 13, 14))
"""Landlock: write, remove, make folders, files and links, move between folders, truncate; no devices or sockets."""
FILE = 1 << 1 | 1 << 2 | 1 << 14
"""Of these, what may be said of something that is no folder."""
ABI_HANDLES = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights over files each version of Landlock knows; later ones as the last."""


@cache
def libc() -> Any:
    """The C library; errno is kept."""
    return ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave the namespaces of these kinds for new ones."""
    _check(libc().unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Enter the namespaces of these kinds of a process, given as a pidfd."""
    _check(libc().setns(descriptor, flags), "setns")


def name_host(name: str) -> None:
    """Call this machine so, in this process's namespace."""
    _check(libc().sethostname(name.encode(), ctypes.c_size_t(len(name))), "sethostname")


def prctl(option: int, *arguments: int) -> None:
    """Change something about this process."""
    words = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    _check(libc().prctl(option, *words), f"prctl {option}")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    words = [text.encode() or None for text in (source, target, kind)]
    _check(libc().mount(*words, ctypes.c_ulong(flags), options.encode() or None), f"mount {target}")


def detach(target: str) -> None:
    """Take a mount away, now or when nothing uses it any more."""
    _check(libc().umount2(target.encode(), MNT_DETACH), f"umount {target}")


def tree(path: str) -> int:
    """A descriptor of a copy of the mounts at `path`, to be `place`d elsewhere."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE
    return _call(OPEN_TREE, AT_FDCWD, path.encode(), flags, what=f"open_tree {path}")


def place(descriptor: int, target: str, attributes: int) -> None:
    """Put a tree at `target`, with attributes MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC."""
    restrict(descriptor, "", attributes, AT_EMPTY_PATH | AT_RECURSIVE)
    flags = MOVE_MOUNT_F_EMPTY_PATH
    _call(MOVE_MOUNT, descriptor, b"", AT_FDCWD, target.encode(), flags, what=f"move_mount {target}")


def restrict(folder: int, path: str, attributes: int, flags: int = 0) -> None:
    """Add attributes to a mount; those it has, it keeps."""
    change = struct.pack("=QQQQ", attributes, 0, 0, 0)
    _call(MOUNT_SETATTR, folder, path.encode(), flags, change, len(change), what=f"mount_setattr {path}")


def pivot(machine: str) -> None:
    """Make the working directory the root; the old root is gone."""
    _call(PIVOT_ROOT[machine], b".", b".", what="pivot_root")
    detach(".")
    os.chdir("/")


def bound_capabilities() -> None:
    """Give up for ever to gain any capability; those at hand stay."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # beyond the last one, or not ours to drop
            break


def drop_capabilities() -> None:
    """Give up every capability at hand."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    _check(libc().capset(header, bytes(24)), "capset")


def landlock_version() -> int:
    """Of the kernel; 0 where it has none."""
    try:
        return _call(LANDLOCK_CREATE_RULESET, None, 0, 1, what="landlock_create_ruleset")
    except OSError:
        return 0


def ruleset(rights: Mapping[str, int]) -> int:
    """A descriptor of Landlock's rules: these rights over files, at the path and below; no network."""
    version = landlock_version()
    files = (1 << ABI_HANDLES.get(version, 16)) - 1
    network = 3 if version >= 4 else 0  # bind and connect by TCP
    scopes = 3 if version >= 6 else 0  # abstract sockets, signals
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = struct.pack("=QQQ", files, network, scopes)[:size]
    rules = _call(LANDLOCK_CREATE_RULESET, attributes, size, 0, what="landlock_create_ruleset")
    for path, right in rights.items():
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = right & files & (~0 if os.path.isdir(path) else FILE)
        rule = struct.pack("=Qi", allowed, descriptor)
        _call(LANDLOCK_ADD_RULE, rules, 1, rule, 0, what=f"landlock_add_rule {path}")
        os.close(descriptor)
    return rules


def obey(rules: int) -> None:
    """Hold this process to Landlock's rules from now on."""
    _call(LANDLOCK_RESTRICT_SELF, rules, 0, what="landlock_restrict_self")


def filter_calls(program: bytes) -> None:
    """Hold this process to a seccomp filter from now on; it needs PR_SET_NO_NEW_PRIVS first."""
    buffer = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _check(libc().prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), pointer), "seccomp")


def _call(number: int, *arguments: Any, what: str) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return _check(libc().syscall(ctypes.c_long(number), *words), what)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
