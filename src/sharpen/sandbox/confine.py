"""The walls: what a zygote does once (`Walls.build`), and each of its children before it runs foreign code.

Two tiers on Linux. `full`: user, mount, pid, network, ipc, uts and cgroup namespaces; a root of a few read-only
folders; in each run a pid and a mount namespace of its own with a quota'd scratch folder. `reduced`, where namespaces
cannot be had: the same but for them, and nothing can be written. Both: limits (rlimits), no capabilities, Landlock, an
allow-list of system calls, and no processes, only threads. On macOS `reduced` is Apple's sandbox (seatbelt) and limits.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from typing import Literal

from sharpen.sandbox import linux, syscalls
from sharpen.sandbox.outcome import Limits

Isolation = Literal["full", "reduced", "none"]
"""`none`: limits only, for an operator who has said that he wants it so."""

BOX = "/box"
"""Landlock's rule is on this folder; the run's scratch folder is mounted in it."""
SCRATCH = f"{BOX}/tmp"
FIRST = 1
"""The number of the first process in a pid namespace."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
INSIDE = 1000
"""The user's and group's number inside."""
NOBODY = 65534
SCRATCH_FLAGS = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
BYTES_PER_FILE = 8192
"""Of the disk limit: so much the kernel may need for an empty file or a link, beside its content."""

SEATBELT = """(version 1)(deny default)(allow sysctl-read)(allow file-read-metadata)
(allow file-read* (literal "/dev/null") (literal "/dev/urandom") {})"""


class Walls:
    """The walls around one zygote's runs."""

    def __init__(self, isolation: Isolation, readable: Sequence[str], hidden: Sequence[str]) -> None:
        """`readable`: folders and files that runs may read; `hidden`: folders below them that stay empty."""
        self.isolation = isolation
        self._readable = [path for path in readable if os.path.exists(path)]
        self._hidden = [path for path in hidden if os.path.isdir(path)]
        self._filter = b""
        self._rules = -1
        self._self = -1

    def build(self) -> None:
        """Leave the host. Raises OSError where the system does not let us.

        With `full` it returns in a *child*, first of a new pid namespace; this process waits and ends with it.
        """
        if sys.platform != "linux" or self.isolation == "none":
            return
        if self.isolation == "full":
            self._leave()
            self._rules = _out_of_the_way(linux.ruleset({"/": linux.READ, BOX: linux.READ | linux.WRITE}))
            self._self = _out_of_the_way(os.pidfd_open(os.getpid()))
        else:
            self._rules = _out_of_the_way(linux.ruleset(dict(self._visible())))
        linux.bound_capabilities()
        self._filter = syscalls.program(platform.machine(), self.isolation == "full", FIRST)

    def fork(self) -> int:
        """Fork a run; it is the first process of a pid namespace of its own where there are namespaces."""
        if self._self < 0:
            return os.fork()
        linux.unshare(linux.CLONE_NEWPID)
        pid = os.fork()
        if pid:
            linux.setns(self._self, linux.CLONE_NEWPID)
        return pid

    def enter(self, limits: Limits) -> None:
        """In the run: shut every door. Only descriptors 0 to 3 stay open."""
        if self.isolation == "full":
            linux.unshare(linux.CLONE_NEWNS)
            flags = SCRATCH_FLAGS if limits.disk else SCRATCH_FLAGS | linux.MS_RDONLY  # size=0 were no limit
            options = f"size={limits.disk or 4096},nr_inodes={8 + limits.disk // BYTES_PER_FILE},mode=700"
            linux.mount("scratch", SCRATCH, "tmpfs", flags, options)
            os.chdir(SCRATCH)
        else:
            os.chdir("/")
            if self.isolation == "reduced" and os.geteuid() == 0:
                if all(map(_for_everybody, self._readable)):
                    _stop_being_root()
                else:  # root's files stay readable, but limits a user are this run's
                    os.setresuid(_own_number(), 0, 0)
        die_with_parent()
        _limit(limits)
        if self.isolation == "none":
            os.closerange(4, 1 << 16)
        elif sys.platform == "linux":
            linux.drop_capabilities()
            linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
            linux.obey(self._rules)
            os.closerange(4, 1 << 16)
            own = os.getpid()
            linux.filter_calls(self._filter if own == FIRST else syscalls.program(platform.machine(), False, own))
        else:
            os.closerange(4, 1 << 16)
            _seatbelt(self._readable)

    def _visible(self) -> Iterator[tuple[str, int]]:
        """What Landlock allows where it has to hide folders by itself: of theirs, the names only."""
        for path in (*self._readable, *DEVICES):
            if not any(_within(hidden, path) for hidden in self._hidden):
                yield path, linux.READ
                continue
            yield path, linux.LIST
            for entry in os.scandir(path):
                if not any(_within(entry.path, hidden) for hidden in self._hidden):
                    yield entry.path, linux.READ

    def _leave(self) -> None:
        root = os.geteuid() == 0
        trees = {path: linux.tree(path) for path in (*self._readable, *DEVICES)} if root else {}
        spaces = (
            linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWCGROUP
        )
        process = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if root:  # the folders may be such as only root can enter: look them up first, then stop being root
            linux.unshare(linux.CLONE_NEWNS)
            self._furnish(trees)
            _stop_being_root()
            user, group = os.getuid(), os.getgid()
            linux.unshare(linux.CLONE_NEWUSER | spaces)
            _map(process, user, group)
        else:
            user, group = os.getuid(), os.getgid()
            linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS | spaces)
            _map(process, user, group)
            self._furnish({path: linux.tree(path) for path in (*self._readable, *DEVICES)})
        os.close(process)
        linux.name_host("sandbox")
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        die_with_parent()

    def _furnish(self, trees: dict[str, int]) -> None:
        """Make a root of these trees, read-only, and go there."""
        linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
        linux.mount("root", "/tmp", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,mode=755")
        os.chdir("/tmp")
        os.makedirs(f".{SCRATCH}")
        if not any(_within(path, "/tmp") for path in trees):  # a virtual environment may lie there
            os.symlink(SCRATCH.lstrip("/"), "tmp")
        inner = {path for path in trees if any(_within(path, hidden) for hidden in self._hidden)}
        for path in trees.keys() - inner:
            _put(trees[path], path)
        for path in self._hidden:
            linux.mount("hidden", f".{path}", "tmpfs", SCRATCH_FLAGS & ~linux.MS_NOEXEC, "size=1m,mode=755")
        for path in inner:
            _put(trees[path], path)
        for path in (*self._hidden, ""):
            linux.restrict(linux.AT_FDCWD, f".{path}", linux.MS_RDONLY)
        # For what libraries write when they are loaded; each run's own scratch folder is mounted over it.
        linux.mount("loading", f".{SCRATCH}", "tmpfs", SCRATCH_FLAGS, "size=16m,mode=1777")
        linux.pivot(platform.machine())


def die_with_parent() -> None:
    """Be killed when the parent ends."""
    if sys.platform == "linux":
        linux.prctl(linux.PR_SET_PDEATHSIG, 9)


def _for_everybody(path: str) -> bool:
    """Whether any user can read this file, or enter this folder and list it."""
    place = os.path.realpath(path)
    wanted = 0o005 if os.path.isdir(place) else 0o004
    if os.stat(place).st_mode & wanted != wanted:
        return False
    while place != "/":
        place = os.path.dirname(place)
        if not os.stat(place).st_mode & 0o001:
            return False
    return True


def _out_of_the_way(descriptor: int) -> int:
    """The same file under a number that no run's own files have."""
    import fcntl  # not on Windows, where this module is imported too

    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(descriptor)
    return high


def _put(tree: int, path: str) -> None:
    """A tree of mounts at its path below the working directory, read-only; it is closed."""
    target = f".{path}"
    folder = os.path.isdir(f"/proc/self/fd/{tree}")
    os.makedirs(target if folder else os.path.dirname(target), exist_ok=True)
    if not folder:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    attributes = linux.MS_RDONLY | linux.MS_NOSUID
    linux.place(tree, target, attributes | (linux.MS_NOEXEC if path in DEVICES else linux.MS_NODEV))
    os.close(tree)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _stop_being_root() -> None:
    """Become a user whom nobody else is, so that limits a user are limits of this zygote."""
    os.setgroups([])
    for number in (_own_number(), NOBODY):  # a container may not have so many users
        try:
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
        except OSError:
            continue
        linux.prctl(linux.PR_SET_DUMPABLE, 1)  # else its files in /proc belong to root
        return
    raise OSError("this container has no user but root")


def _own_number() -> int:
    return 2_000_000 + os.getpid()


def _map(process: int, user: int, group: int) -> None:
    """Say who we are in the new user namespace."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{INSIDE} {user} 1"),
        ("gid_map", f"{INSIDE} {group} 1"),
    ):
        file = os.open(f"self/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=process)
        os.write(file, text.encode())
        os.close(file)


def _limit(limits: Limits) -> None:
    import resource  # not on Windows

    for name, most in (
        ("RLIMIT_AS", limits.memory),
        ("RLIMIT_FSIZE", limits.disk),
        ("RLIMIT_NOFILE", limits.files),
        ("RLIMIT_NPROC", limits.threads),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_MEMLOCK", 0),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_SIGPENDING", limits.threads),  # and so many timers
    ):
        kind = getattr(resource, name, None)
        if kind is not None:
            _, hard = resource.getrlimit(kind)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))


def _seatbelt(readable: Sequence[str]) -> None:
    """Apple's sandbox, for this process and for good. Raises OSError."""
    import ctypes

    folders = " ".join(f'(subpath "{os.path.realpath(path)}")' for path in readable)
    library = ctypes.CDLL("/usr/lib/libsandbox.1.dylib")
    words = ctypes.c_char_p()
    if library.sandbox_init(SEATBELT.format(folders).encode(), ctypes.c_uint64(0), ctypes.byref(words)):
        raise OSError(f"sandbox_init: {words.value!r}")
