"""The filter of system calls, run by an interpreter of our own, for both machines, and its numbers."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from sharpen.sandbox import syscalls
from sharpen.sandbox.syscalls import ALLOW, ALWAYS, AUDIT_ARCHES, KILL, OWN_FILES, REFUSE, RULED, numbers

MACHINES = tuple(AUDIT_ARCHES)
HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), r"#define __NR_(\w+)\s+(\d+)"),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), r"#define __NR(?:3264)?_(\w+)\s+(\d+)"),
}
OTHER_NAMES = {"newfstatat": "fstatat"}
"""What the generic header calls a call."""
DANGEROUS = {
    "x86_64": (57, 58, 59, 322, 41, 42, 101, 165, 272, 308, 319, 425, 9999),
    "aarch64": (221, 281, 198, 117, 40, 97),
}
"""fork, vfork, execve, execveat, socket, connect, ptrace, mount, unshare, setns, memfd_create, io_uring_setup, ..."""


def decide(machine: str, number: int, *arguments: int, own_files: bool = True, pid: int = 1, arch: int = 0) -> int:
    """What the filter says of a call: a classic BPF machine with the five instructions that it uses."""
    words = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=IIQ6Q", number, arch or AUDIT_ARCHES[machine], 0, *(word & (1 << 64) - 1 for word in words))
    code = syscalls.program(machine, own_files, pid)
    steps = list(struct.iter_unpack("=HBBI", code))
    place, value = 0, 0
    while True:
        operation, true, false, operand = steps[place]
        place += 1
        if operation == syscalls.LOAD:
            (value,) = struct.unpack_from("=I", data, operand)
        elif operation == syscalls.RETURN:
            return int(operand)
        else:
            holds = {
                syscalls.EQUAL: value == operand,
                syscalls.ABOVE: value > operand,
                syscalls.BITS: bool(value & operand),
            }[operation]
            place += true if holds else false


def refused(code: int) -> int:
    return REFUSE | code


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_the_kernels(machine: str) -> None:
    header, pattern = HEADERS[machine]
    if not header.exists():
        pytest.skip("the kernel's headers are not installed here")
    known = {name: int(number) for name, number in re.findall(pattern, header.read_text())}
    table = numbers(ALWAYS + OWN_FILES + RULED, machine)
    assert table == {name: known.get(name, known.get(OTHER_NAMES.get(name, ""))) for name in table}
    assert len(set(table.values())) == len(table)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_listed_calls_pass_and_all_others_do_not(machine: str) -> None:
    allowed = set(numbers(ALWAYS + OWN_FILES, machine).values())
    ruled = set(numbers(RULED, machine).values())
    for number in range(500):
        if number not in ruled:
            assert decide(machine, number) == (ALLOW if number in allowed else refused(errno.EPERM)), number
    assert not allowed & set(DANGEROUS[machine])
    assert decide(machine, 9999) == refused(errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_files_modes_change_only_where_all_writable_files_are_its_own(machine: str) -> None:
    for number in numbers(OWN_FILES, machine).values():
        assert decide(machine, number, own_files=True) == ALLOW
        assert decide(machine, number, own_files=False) == refused(errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_another_machines_calls_kill(machine: str) -> None:
    read = numbers(ALWAYS, machine)["read"]
    assert decide(machine, read, arch=0x40000003) == KILL  # i386
    assert decide(machine, read | 0x40000000) == KILL  # x32
    assert decide(machine, read) == ALLOW


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("clone", (0x003D0F00,), ALLOW),  # what a thread of glibc asks for
        ("clone", (0x003D0B00,), refused(errno.EPERM)),  # a thread with descriptors of its own
        ("clone", (17,), refused(errno.EPERM)),  # SIGCHLD: a fork
        ("clone", (0x10000000 | 17,), refused(errno.EPERM)),  # in a new user namespace
        ("clone3", (0, 88), refused(errno.ENOSYS)),
        ("fcntl", (3, 1), ALLOW),  # F_GETFD
        ("fcntl", (3, 1030), ALLOW),  # F_DUPFD_CLOEXEC
        ("fcntl", (3, 8), refused(errno.EPERM)),  # F_SETOWN
        ("fcntl", (3, 6), refused(errno.EPERM)),  # F_SETLK
        ("fcntl", (3, 1031), refused(errno.EPERM)),  # F_SETPIPE_SZ
        ("ioctl", (3, 0x5421), ALLOW),  # FIONBIO
        ("ioctl", (3, 0x5412), refused(errno.ENOTTY)),  # TIOCSTI
        ("kill", (1, 9), ALLOW),
        ("kill", (2, 9), refused(errno.EPERM)),
        ("kill", (-1, 9), refused(errno.EPERM)),
        ("tgkill", (1, 1, 9), ALLOW),
        ("tgkill", (7, 7, 9), refused(errno.EPERM)),
        ("prlimit64", (0, 7), ALLOW),
        ("prlimit64", (2, 7), refused(errno.EPERM)),
        ("socketpair", (1, 1), ALLOW),
        ("socketpair", (2, 1), refused(errno.EPERM)),
        ("sendto", (3, 4096, 1, 0, 0), ALLOW),
        ("sendto", (3, 4096, 1, 0x4040, 0), ALLOW),
        ("sendto", (3, 4096, 1, 1, 0), refused(errno.EPERM)),  # MSG_OOB
        ("close_range", (3, 9, 0), ALLOW),
        ("close_range", (3, 9, 2), refused(errno.EPERM)),  # CLOSE_RANGE_UNSHARE
        ("getsockopt", (3, 1, 4), ALLOW),
        ("getsockopt", (3, 1, 77), refused(errno.EPERM)),  # SO_PEERPIDFD
        ("sendto", (3, 4096, 1, 0, 0x7F0000000000), refused(errno.EPERM)),  # an address whose low half is 0
        ("sendto", (3, 4096, 1, 0, 0x1000), refused(errno.EPERM)),
    ],
)
def test_some_calls_depend_on_their_arguments(name: str, arguments: tuple[int, ...], answer: int) -> None:
    for machine in MACHINES:
        assert decide(machine, numbers(RULED, machine)[name], *arguments) == answer


def test_a_process_may_signal_itself_whatever_its_number() -> None:
    kill = numbers(RULED, "x86_64")["kill"]
    assert decide("x86_64", kill, 4321, pid=4321) == ALLOW
    assert decide("x86_64", kill, 1, pid=4321) == refused(errno.EPERM)
