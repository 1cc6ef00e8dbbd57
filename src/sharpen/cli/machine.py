"""Facts about this machine, without torch where that is possible."""

from __future__ import annotations

import os
import platform
import shutil
import time
from pathlib import Path
from typing import NamedTuple

UNITS = ("amx_bf16", "avx512_bf16", "avx2")  # in falling order of use; /proc/cpuinfo's names
BF16_UNITS = ("amx_bf16", "avx512_bf16")
SHAPE = (4096, 576, 1536)  # an MLP of SmolLM2-135M over 4,096 tokens, as in NUMBERS.md


class Memory(NamedTuple):
    """In bytes."""

    total: int
    free: int


class Speed(NamedTuple):
    """How fast this machine multiplies matrices."""

    dtype: str
    flops: float  # floating-point operations per second

    def __str__(self) -> str:
        return f"{self.flops / 1e12:.2f} TFLOP/s in {self.dtype}"


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def busy() -> float | None:
    """The load average of the last minute, where the system keeps one."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def memory() -> Memory | None:
    """Main memory, within a container's limit; None where the system does not say."""
    return within(Path("/proc/meminfo"), Path("/sys/fs/cgroup")) or _memory_of_sysconf()


def within(meminfo: Path, groups: Path) -> Memory | None:
    """Main memory as Linux says it, within the limit of a control group of either version; None without `meminfo`."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    values = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    total, free = values["MemTotal"], values.get("MemAvailable", values["MemFree"])
    for most, now in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        limit, used = _number(groups / most), _number(groups / now)
        if limit is not None and limit < total:
            return Memory(limit, min(free, max(0, limit - (used or 0))))
    return Memory(total, free)


def disk_free(folder: Path) -> int:
    """Bytes free where `folder` is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def matrix_units() -> tuple[str, ...]:
    """The vector and matrix units that count here, the best first."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ("neon",) if platform.machine() in ("arm64", "aarch64") else ()
    flags = next((set(line.split()) for line in text.splitlines() if line.startswith("flags")), set())
    return tuple(unit for unit in UNITS if unit in flags)


def matmul_speed(seconds: float = 2.0) -> Speed:
    """The best speed of one matrix product, timed over about so many seconds, in the type training computes in.

    The best, not the median: short disturbances only ever slow a product down (0.8 to 2.4 TFLOP/s within
    minutes were seen on one shared machine), and the training averages over them.
    """
    import torch  # heavy

    from sharpen.models.load import compute_dtype

    rows, inner, columns = SHAPE
    dtype = compute_dtype("auto")
    left, right = torch.ones((rows, inner), dtype=dtype), torch.ones((inner, columns), dtype=dtype)
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < 4 or time.monotonic() < end:
        began = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - began)
    flops = 2 * rows * inner * columns / min(times[2:])  # the first two warm up
    return Speed(str(dtype).removeprefix("torch."), flops)


def _memory_of_sysconf() -> Memory | None:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return Memory(page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such limit, or the word "max"
        return None
