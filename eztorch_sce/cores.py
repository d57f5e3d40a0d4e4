"""CPU cores."""

import os


def num_usable_cores() -> int:
    """Return the number of CPU cores this process may run on, which `taskset` or a job scheduler may limit."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
