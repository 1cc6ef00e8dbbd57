"""The system calls that jailed code may make, and the seccomp filter that holds it to them. Pure; no ctypes.

An *allow-list*: whatever is not named here fails with EPERM, which Python raises as PermissionError. Numbers are those
of the kernel's `asm/unistd_64.h` (x86-64) and `asm-generic/unistd.h` (aarch64; `-` where a call does not exist).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence

ALWAYS = """
read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev 296 70
lseek 8 62; open 2 -; openat 257 56; openat2 437 437; creat 85 -; close 3 57; stat 4 -
fstat 5 80; lstat 6 -; newfstatat 262 79; statx 332 291; statfs 137 43; fstatfs 138 44; access 21 -; faccessat 269 48
faccessat2 439 439; readlink 89 -; readlinkat 267 78; getdents 78 -; getdents64 217 61; getcwd 79 17; chdir 80 49
fchdir 81 50; mkdir 83 -; mkdirat 258 34; rmdir 84 -; unlink 87 -; unlinkat 263 35; rename 82 -; renameat 264 38
renameat2 316 276; link 86 -; linkat 265 37; symlink 88 -; symlinkat 266 36; truncate 76 45; ftruncate 77 46
fallocate 285 47; fadvise64 221 223; umask 95 166; sync_file_range 277 84; fsync 74 82; fdatasync 75 83; flock 73 32
sendfile 40 71; copy_file_range 326 285; dup 32 23; dup2 33 -; dup3 292 24; pipe 22 -; pipe2 293 59; poll 7 -
ppoll 271 73; select 23 -; pselect6 270 72; epoll_create 213 -; epoll_create1 291 20; epoll_ctl 233 21
epoll_wait 232 -; epoll_pwait 281 22; epoll_pwait2 441 441; eventfd 284 -; eventfd2 290 19; mmap 9 222; munmap 11 215
mprotect 10 226; mremap 25 216; madvise 28 233; brk 12 214; msync 26 227; membarrier 324 283; rt_sigaction 13 134
rt_sigprocmask 14 135; rt_sigreturn 15 139; rt_sigpending 127 136; rt_sigtimedwait 128 137; rt_sigsuspend 130 133
sigaltstack 131 132; restart_syscall 219 128; pause 34 -; alarm 37 -; setitimer 38 103; getitimer 36 102
timer_create 222 107; timer_settime 223 110; timer_gettime 224 108; timer_getoverrun 225 109; timer_delete 226 111
timerfd_create 283 85; timerfd_settime 286 86; timerfd_gettime 287 87; nanosleep 35 101; clock_nanosleep 230 115
clock_gettime 228 113; clock_getres 229 114; gettimeofday 96 169; time 201 -; times 100 153; getrusage 98 165
sysinfo 99 179; uname 63 160; futex 202 98; futex_waitv 449 449; set_robust_list 273 99; rseq 334 293
set_tid_address 218 96; sched_yield 24 124; sched_getaffinity 204 123; sched_getparam 143 121
sched_getscheduler 145 120; sched_get_priority_max 146 125; sched_get_priority_min 147 126; getcpu 309 168
getpid 39 172; gettid 186 178; getppid 110 173; getuid 102 174; geteuid 107 175; getgid 104 176; getegid 108 177
getresuid 118 148; getresgid 120 150; getgroups 115 158; getpgid 121 155; getpgrp 111 -; getsid 124 156
getpriority 140 141; getrlimit 97 163; capget 125 90; getrandom 318 278; exit 60 93; exit_group 231 94; wait4 61 260
waitid 247 95; recvfrom 45 207; shutdown 48 210; getsockname 51 204; getpeername 52 205
"""
"""Name, number on x86-64, number on aarch64. Sockets are only ever a `socketpair`."""

OWN_FILES = """
chmod 90 -; fchmod 91 52; fchmodat 268 53; utimensat 280 88; utime 132 -; utimes 235 -; futimesat 261 -
"""
"""These change what Landlock does not guard, so they are for a jail whose every writable file is its own."""

RULED = """
clone 56 220; clone3 435 435; fcntl 72 25; ioctl 16 29; kill 62 129; tgkill 234 131; prlimit64 302 261
socketpair 53 199; sendto 44 206; close_range 436 436; getsockopt 55 209
"""
"""Allowed with some arguments only: see `_ruled`."""

AUDIT_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The value of `seccomp_data.arch`, by `platform.machine()`."""

CLONE_THREAD = 0x00010000
CLONE_FILES = 0x00000400
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)
"""Copying descriptors, flags; not owners and signals (F_SETOWN, F_SETSIG), leases, pipe sizes, nor locks (each takes
memory of the kernel, without a limit)."""
SOCKET_OPTIONS = (3, 4, 7, 8, 38, 39)
"""SO_TYPE, SO_ERROR, SO_SNDBUF, SO_RCVBUF, SO_PROTOCOL, SO_DOMAIN; not who is at the other end."""
SEND_FLAGS = (0, 0x40, 0x4000, 0x4040)
"""MSG_DONTWAIT, MSG_NOSIGNAL; not MSG_OOB."""
IOCTL_REQUESTS = (0x5421, 0x5451, 0x5450, 0x541B)
"""FIONBIO, FIOCLEX, FIONCLEX, FIONREAD: what a file of any kind knows. Nothing here is a terminal."""

ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUAL, ABOVE, BITS, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
X32 = 0x3FFFFFFF
"""Numbers above are another way to make the same calls on x86-64."""

Instruction = tuple[int, int, int, int]
"""Operation, jump if true, jump if false, operand."""


def numbers(table: str, machine: str) -> dict[str, int]:
    """The calls of a table that exist on this machine, by name."""
    column = list(AUDIT_ARCHES).index(machine) + 1
    rows = [entry.split() for entry in table.replace("\n", ";").split(";") if entry.strip()]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def program(machine: str, own_files: bool, pid: int) -> bytes:
    """The filter as an array of `struct sock_filter`, for a process whose number is `pid` in its own namespace."""
    allowed = sorted(numbers(ALWAYS + (OWN_FILES if own_files else ""), machine).values())
    steps: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, AUDIT_ARCHES[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (ABOVE, 0, 1, X32),
        (RETURN, 0, 0, KILL),
    ]
    for number in allowed:
        steps += _when(number, [(RETURN, 0, 0, ALLOW)])
    for name, number in numbers(RULED, machine).items():
        steps += _when(number, list(_ruled(name, pid)))
    steps.append(_refuse(errno.EPERM))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _ruled(name: str, pid: int) -> Iterator[Instruction]:
    """What becomes of a call that depends on its arguments. Ends with a return."""
    if name == "clone3":  # its flags lie in memory, where no filter can look: glibc then takes clone
        yield _refuse(errno.ENOSYS)
        return
    if name == "clone":  # threads, no processes; and descriptors are counted together
        yield from (
            (LOAD, 0, 0, ARGUMENTS),
            (BITS, 0, 2, CLONE_THREAD),
            (BITS, 0, 1, CLONE_FILES),
            (RETURN, 0, 0, ALLOW),
        )
    elif name == "sendto":  # no address: both halves of the pointer are 0
        yield from (
            (LOAD, 0, 0, ARGUMENTS + 4 * 8),
            (EQUAL, 0, 3 + 2 * len(SEND_FLAGS), 0),
            (LOAD, 0, 0, ARGUMENTS + 4 * 8 + 4),
            (EQUAL, 0, 1 + 2 * len(SEND_FLAGS), 0),
            *_among(3, SEND_FLAGS),
        )
    else:
        argument, values = {
            "fcntl": (1, FCNTL_COMMANDS),
            "ioctl": (1, IOCTL_REQUESTS),
            "kill": (0, (pid,)),
            "tgkill": (0, (pid,)),
            "prlimit64": (0, (0,)),  # of this process
            "socketpair": (0, (1,)),  # AF_UNIX
            "close_range": (2, (0, 4)),  # now or at exec; no table of descriptors for each thread
            "getsockopt": (2, SOCKET_OPTIONS),
        }[name]
        yield from _among(argument, values)
    yield _refuse(errno.ENOTTY if name == "ioctl" else errno.EPERM)


def _among(argument: int, values: Sequence[int]) -> Iterator[Instruction]:
    """Allow when the low half of the argument is one of the values."""
    yield (LOAD, 0, 0, ARGUMENTS + argument * 8)
    for value in values:
        yield from ((EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW))


def _when(number: int, then: Sequence[Instruction]) -> list[Instruction]:
    return [(EQUAL, 0, len(then), number), *then]


def _refuse(code: int) -> Instruction:
    return (RETURN, 0, 0, REFUSE | code)
