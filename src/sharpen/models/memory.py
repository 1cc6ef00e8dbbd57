"""Keep freed memory in the process: large temporaries of a forward pass then cost no page faults at the next one."""

from __future__ import annotations

import ctypes
import sys

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # glibc's names for mallopt
_KEPT = 2**30
"""So many unused bytes at the heap's end may stay with the process."""


def keep_freed_memory() -> None:
    """Ask glibc to take large blocks from its heap and to give freed ones back late; elsewhere nothing happens.

    By default every tensor over some megabytes is mapped anew, and the kernel clears its pages again and again.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, _KEPT)
