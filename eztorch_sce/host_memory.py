"""Memory of the host: how much a process uses, and reuse of that of large tensors by the C library."""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from glibc's malloc.h
_LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def reuse_large_buffers() -> None:
    """Let glibc keep the memory of freed tensors for those of the next batch, in this process and its later children.

    By default it returns large buffers to the system, which then hands them out again page by page: on a CPU, a fifth
    of the time of the views. Does nothing with another C library, or if the user has tuned glibc by the environment.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _VARIABLES):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def resident_bytes() -> int | None:
    """Return the resident memory of this process and of all that it has started, such as the workers of a loader.

    Memory that several of them share counts in each. None if the system does not tell, as without Linux's /proc.
    """
    total, processes = 0, ["self"]
    try:
        for process in processes:
            total += _resident_pages(process)
            processes += _children(process)
    except OSError:  # there is no /proc
        return None
    return total * os.sysconf("SC_PAGE_SIZE")


def _resident_pages(process: str) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        if process == "self":
            raise
        return 0  # it has just ended


def _children(process: str) -> list[str]:
    """Return the processes that a process has started; none if it has ended, or if the kernel does not list them."""
    children: list[str] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for file in Path(f"/proc/{process}/task").glob("*/children"):
            children += file.read_text().split()
    return children


def total_bytes() -> int:
    """Return the memory that this process may use: that of the machine, or of the container or job it runs in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _LIMIT_FILES:
        with suppress(OSError, ValueError):  # "max" is not a number
            total = min(total, int(Path(file).read_text()))
    return total
