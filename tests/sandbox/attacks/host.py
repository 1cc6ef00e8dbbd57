"""The host that attacks are after: secrets, listeners and processes laid out as bait, and what becomes of them."""

from __future__ import annotations

import json
import os
import resource
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from sharpen.errors import GraderError
from sharpen.sandbox import plan
from sharpen.sandbox.confine import Isolation
from sharpen.sandbox.jail import Jail
from sharpen.sandbox.outcome import Kind, Limits, Outcome
from tests.sandbox.attacks.base import GROWTH, HASTY, ITSELF, PATIENCE, Attack, Seen, left

BENIGN = """
def benign(numbers, earlier):
    global kept
    kept = earlier
    try:
        open("left", "w").write(earlier)
    except OSError:
        pass
    return sorted(numbers)
"""
"""An honest program, which an earlier secret is told to and which leaves it behind."""

RUNNER = """
import json, os, sys
order = json.loads(open(0, "rb", closefd=False).read())
def main(earlier):
    scope = {"__name__": "program"}
    exec(compile(order["source"], "<program>", "exec"), scope)
    try:
        return ["value", scope["attack"](order["bait"])]
    except BaseException as error:
        return ["exception", f"{type(error).__name__}: {error}"]
found = main(order["earlier"])
sys.stdout.flush()
open(3, "w", closefd=False).write(json.dumps(found, default=repr))
os._exit(0)
"""
"""Runs an attack without any walls; it says on descriptor 3 what came of it."""

VICTIM = """
import ctypes, os
text = ctypes.create_string_buffer(os.environ["BAIT"].encode())
print(ctypes.addressof(text), os.open("secret", os.O_RDONLY), flush=True)
while asked := os.read(0, 1):
    os.write(1, asked)
"""
LOAD_LIMIT = 20.0
CONTROL_LIMIT = 20.0
"""Seconds for a program to be loaded, however busy the machine, and for a control that ends by itself."""


class Host:
    """Bait of every kind. Use it in the first thread: it listens for a signal."""

    def __init__(self) -> None:
        self.token = f"token:{secrets.token_hex(12)}"
        self._root = Path(tempfile.mkdtemp(prefix="host"))
        self._folder = self._root / "folder"
        self._listeners: dict[str, socket.socket] = {}
        self._signalled = False
        self._jails: dict[Isolation, Jail] = {}

    def __enter__(self) -> Host:
        os.environ["BAIT"] = self.token
        os.chmod(self._root, 0o755)
        self._before = signal.signal(signal.SIGUSR1, self._notice)
        self._listen()
        self._lay_out()
        return self

    def __exit__(self, *error: object) -> None:
        for jail in self._jails.values():
            jail.kill()
        self._clear()
        for listener in self._listeners.values():
            listener.close()
        signal.signal(signal.SIGUSR1, self._before)
        del os.environ["BAIT"]
        shutil.rmtree(self._root)

    def control(self, attack: Attack) -> Seen:
        """What the attack does where there are no walls."""
        work = self._root / "work"
        work.mkdir()
        (work / "left").write_text(self.token)
        mark = secrets.token_hex(8)
        most = attack.limits.seconds + 0.2 if attack.limits is HASTY else CONTROL_LIMIT
        order = {"source": attack.source, "bait": self._bait(), "earlier": self.token}
        with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as said:
            file.write(json.dumps(order).encode())
            file.seek(0)
            command = [
                sys.executable,
                "-I",
                "-S",
                "-c",
                f"import os; os.dup2({said.fileno()}, 3)\n{RUNNER}",
                self.token,
            ]
            process = subprocess.Popen(
                command,
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[*self._descriptors, said.fileno()],
                start_new_session=True,
                cwd=work,
                env={"BAIT": self.token, "MARK": mark, "PATH": os.environ.get("PATH", "/bin"), "LANG": "C.UTF-8"},
            )
            killed = False
            try:
                out, err = process.communicate(timeout=most)
            except subprocess.TimeoutExpired:
                killed = True
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
            said.seek(0)
            answer = said.read()
        kind: Kind
        kind, value = json.loads(answer) if answer else ("exit", None)
        remains = [pid for pid in _pids() if f"MARK={mark}".encode() in _read(pid, "environ")]
        for pid in remains:
            os.kill(pid, signal.SIGKILL)
        outcome = Outcome(
            kind,
            value if kind == "value" else None,
            "" if kind == "value" else str(value),
            out.decode(errors="replace"),
            err.decode(errors="replace"),
        )
        shutil.rmtree(work)
        return self._seen(attack, outcome, killed=killed, left=bool(remains))

    def assault(self, attack: Attack, tier: Isolation) -> list[str]:
        """What is wrong when the attack has been made in a jail of this tier: nothing, if the sandbox is one."""
        jail = self._jail(tier)
        before = _family(jail) | _orphans() if attack.won is left else set()
        memory = _peak(fresh=True)
        try:
            with jail.run(attack.source, attack.limits, stdin=b"input") as run:
                loaded, start = run.loaded(LOAD_LIMIT), time.monotonic()
                outcome = run.call("attack", self._bait())
                late = run.call("attack", self._bait()) if attack.name == "answer_late_from_a_thread" else None
        except GraderError as error:
            return [f"the jail broke: {error}"]
        seconds, grown = time.monotonic() - start, _peak() - memory
        lives = attack.won is left and _lives_on(jail, before)
        seen = self._seen(attack, outcome, seconds=seconds, grown=grown, left=lives)
        wrong = []
        if loaded.kind != "value":
            wrong.append(f"it was not even loaded: {loaded}")
        if attack.no_control != ITSELF and outcome.detail.startswith(("ModuleNotFound", "NameError", "SyntaxError")):
            wrong.append(f"it is broken: {outcome.detail}")
        if late is not None and late.kind == "value" and late.value == "late":
            wrong.append("a late answer was taken for the next one")
        if attack.won(seen) and not (tier == "reduced" and attack.reduced):
            wrong.append(f"it won: {_short(outcome)}")
        if seconds > attack.limits.seconds + PATIENCE:
            wrong.append(f"it took {seconds:.1f} s of {attack.limits.seconds:g}")
        if grown > GROWTH:
            wrong.append(f"the parent grew by {grown >> 20} MB")
        return wrong + self._aftermath(jail)

    def _aftermath(self, jail: Jail) -> list[str]:
        """What is wrong when an honest program runs in the same jail."""
        try:
            with jail.run(BENIGN, Limits(seconds=20, memory=256 << 20, disk=1 << 20)) as run:
                run.loaded(LOAD_LIMIT)
                outcome = run.call("benign", [3, 1, 2], self.token)
        except (GraderError, OSError) as error:
            return [f"afterwards the jail was broken: {error}"]
        return [] if outcome.value == [1, 2, 3] else [f"afterwards an honest program failed: {_short(outcome)}"]

    def _jail(self, tier: Isolation) -> Jail:
        jail = self._jails.get(tier)
        if jail is None or not jail.alive():
            jail = self._jails[tier] = Jail(plan.blueprint(tier))
            assert not self._aftermath(jail)
        return jail

    def _seen(self, attack: Attack, outcome: Outcome, **more: Any) -> Seen:
        changed, disturbed = self._shape() != self._laid_out, self._disturbed()
        contacted = self._contacted()
        if changed or disturbed:
            self._clear()
            self._lay_out()
        return Seen(
            outcome,
            attack.limits,
            self.token,
            changed=changed,
            contacted=contacted,
            disturbed=disturbed,
            host=os.uname().nodename,
            **more,
        )

    def _bait(self) -> dict[str, Any]:
        return {
            "secret": str(self._folder / "secret"),
            "folder": str(self._folder),
            "victim": self._victim.pid,
            "processes": sorted(_pids()),
            "address": self._address,
            "held": self._held,
            "tester": os.getpid(),
            "group": os.getpgrp(),
            "port": self._listeners["tcp"].getsockname()[1],
            "port6": self._listeners["tcp6"].getsockname()[1],
            "udp": self._listeners["udp"].getsockname()[1],
            "unix": str(self._root / "unix"),
            "datagrams": str(self._root / "datagrams"),
            "abstract": f"sharpen-bait-{self._root.name}",
        }

    def _lay_out(self) -> None:
        self._folder.mkdir()
        os.chmod(self._folder, 0o777)
        (self._folder / "secret").write_text(self.token)
        os.chmod(self._folder / "secret", 0o666)
        (self._folder / "empty").mkdir()
        (self._folder / self.token).touch()
        os.symlink(self.token, self._folder / "link")
        self._descriptors = [os.open(self._folder / "secret", os.O_RDWR), os.open(self._folder, os.O_RDONLY)]
        for descriptor in self._descriptors:
            os.set_inheritable(descriptor, True)
        self._laid_out = self._shape()
        self._victim = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", VICTIM, self.token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=self._folder,
            start_new_session=True,
        )
        assert self._victim.stdout is not None
        self._address, self._held = map(int, self._victim.stdout.readline().split())
        self._state = self._victim_state()

    def _clear(self) -> None:
        self._victim.kill()
        self._victim.communicate()
        for descriptor in self._descriptors:
            os.close(descriptor)
        shutil.rmtree(self._folder)
        self._signalled = False

    def _shape(self) -> list[tuple[object, ...]]:
        return sorted(_shape(path) for path in (self._folder, *self._folder.iterdir()))

    def _victim_state(self) -> tuple[object, ...]:
        pid = self._victim.pid
        limits = resource.prlimit(pid, resource.RLIMIT_CORE)
        return os.sched_getscheduler(pid), os.sched_getaffinity(pid), limits

    def _disturbed(self) -> bool:
        return self._signalled or not self._victim_answers() or self._victim_state() != self._state

    def _victim_answers(self) -> bool:
        """Whether it lives, with no signal on its way: such a one would be taken before an answer is."""
        asked, answers = self._victim.stdin, self._victim.stdout
        assert asked is not None and answers is not None
        try:
            asked.write(b".")
        except BrokenPipeError:
            return False
        return bool(select.select([answers], [], [], LOAD_LIMIT)[0] and answers.read(1))

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    def _listen(self) -> None:
        places: dict[str, tuple[int, int, Any]] = {
            "tcp": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "tcp6": (socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)),
            "udp": (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "unix": (socket.AF_UNIX, socket.SOCK_STREAM, str(self._root / "unix")),
            "datagrams": (socket.AF_UNIX, socket.SOCK_DGRAM, str(self._root / "datagrams")),
            "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, f"\0sharpen-bait-{self._root.name}"),
        }
        for name, (family, kind, place) in places.items():
            listener = socket.socket(family, kind)
            listener.bind(place)
            if kind == socket.SOCK_STREAM:
                listener.listen()
            if family == socket.AF_UNIX and name != "abstract":
                os.chmod(place, 0o777)
            self._listeners[name] = listener

    def _contacted(self) -> bool:
        ready = select.select(list(self._listeners.values()), [], [], 0)[0]
        for listener in ready:
            if listener.type == socket.SOCK_STREAM:
                listener.accept()[0].close()
            else:
                listener.recv(100)
        return bool(ready)


@contextmanager
def host() -> Iterator[Host]:
    """A host with its bait."""
    with Host() as found:
        yield found


def _shape(path: Path) -> tuple[object, ...]:
    """All of a file that an attack could change."""
    status = path.lstat()
    attributes = [] if path.is_symlink() else os.listxattr(path)
    text = path.read_text() if path.is_file() and not path.is_symlink() else ""
    facts = (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, status.st_nlink)
    return str(path), facts, text, attributes


def _peak(fresh: bool = False) -> int:
    """The most memory that this process has had, in bytes; `fresh`: from now on."""
    if fresh:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _parents() -> dict[int, int]:
    lines = {pid: _read(pid, "stat").rpartition(b")")[2].split() for pid in _pids()}
    return {pid: int(words[1]) for pid, words in lines.items() if words and words[0] != b"Z"}


def _family(jail: Jail) -> set[int]:
    """The processes of a jail."""
    parents = _parents()
    family, size = {jail._process.pid}, 0
    while size < len(family):
        size = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    return family


def _orphans() -> set[int]:
    return {pid for pid, parent in _parents().items() if parent == 1 and b"sandbox.zygote" in _read(pid, "cmdline")}


def _lives_on(jail: Jail, before: set[int]) -> bool:
    """Whether a process of the last run is still there after a second."""
    for _ in range(20):
        if _family(jail) | _orphans() <= before:
            return False
        time.sleep(0.05)
    return True


def _short(outcome: Outcome) -> str:
    return f"{outcome.kind}, {outcome.value!r:.120}, {outcome.detail:.120}, {outcome.stderr:.120}"
