"""Memory of the host: let the C library reuse the memory of large tensors."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from glibc's malloc.h
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
