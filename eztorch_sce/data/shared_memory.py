"""Shared memory (/dev/shm), in which worker processes hand their batches to the process that trains."""

import math
import os
import sys
from typing import NamedTuple

from eztorch_sce.errors import ConfigError

FOLDER = "/dev/shm"
"""Where Linux keeps shared memory."""
NUM_HELD = 2
"""Batches that the consumer of a loader holds: the one it works on, and the next, which Lightning takes ahead."""

_COLUMN_BYTES = 28  # label, record and epoch of 8 bytes each, and the aspect ratio of 4
_PAGE = 4096
_UNITS = ((2**30, "GB"), (2**20, "MB"), (2**10, "kB"))


def clip_bytes(num_frames: int, size: int) -> int:
    """Return the bytes of a clip of uint8 RGB frames (3, T, S, S), the form in which loaders deliver every view."""
    return 3 * num_frames * size * size


def batch_bytes(num_samples: int, sample_bytes: int) -> int:
    """Return the bytes of shared memory that a batch takes.

    Args:
        num_samples: Samples in the batch.
        sample_bytes: Bytes of the frames of one sample, see `Clips.sample_bytes`.
    """
    return num_samples * (sample_bytes + _COLUMN_BYTES) + _PAGE


class Supply(NamedTuple):
    """Worker processes of a loader, and the number of batches that each prepares ahead."""

    num_workers: int
    prefetch: int

    def bytes_for(self, batch: int) -> int:
        """Return the most shared memory that batches of `batch` bytes each take."""
        return (self.num_workers * self.prefetch + NUM_HELD) * batch

    def largest_batch(self, sample_bytes: int, num_processes: int) -> int:
        """Return the largest number of samples per batch with which shared memory suffices; at least 1.

        Args:
            sample_bytes: Bytes of the frames of one sample.
            num_processes: Processes of the run on this machine, which share its shared memory.
        """
        free = free_bytes()
        if free is None or self.num_workers == 0:
            return sys.maxsize
        share = free // (num_processes * self.bytes_for(1))
        return max(1, (share - _PAGE) // (sample_bytes + _COLUMN_BYTES))

    def __str__(self) -> str:
        return f"data.num_workers={self.num_workers} and data.prefetch={self.prefetch}"


def free_bytes() -> int | None:
    """Return the free bytes of shared memory; None where it is not a folder of limited size."""
    if not os.path.isdir(FOLDER):
        return None
    status = os.statvfs(FOLDER)
    return status.f_bavail * status.f_frsize


def fitted(wanted: Supply, batch: int, num_processes: int, title: str) -> tuple[Supply, str]:
    """Return the workers and batches ahead that fit into shared memory, and a note if they are fewer than wanted.

    Args:
        wanted: Workers and batches ahead of each process.
        batch: Bytes of a batch, see `batch_bytes`.
        num_processes: Processes of the run on this machine, which share its shared memory.
        title: What is loaded, for the note: "training" or "evaluation".

    Raises:
        ConfigError: If not even one worker fits.
    """
    free = free_bytes()
    if free is None or wanted.num_workers == 0 or wanted.bytes_for(batch) * num_processes <= free:
        return wanted, ""
    fewer = [Supply(wanted.num_workers, ahead) for ahead in range(wanted.prefetch - 1, 0, -1)]
    fewer += [Supply(workers, 1) for workers in range(wanted.num_workers - 1, 0, -1)]
    smaller = next((supply for supply in fewer if supply.bytes_for(batch) * num_processes <= free), None)
    enlarge = f"enlarge it ({enlarging(wanted.bytes_for(batch) * num_processes)})"
    among = "" if num_processes == 1 else f" for {num_processes} processes"
    has = f"shared memory ({FOLDER}) has {in_units(free)} free{among}, and a batch takes {in_units(batch)}"
    if smaller is None:
        least = in_units(Supply(1, 1).bytes_for(batch) * num_processes)
        cures = "set data.num_workers=0 to load without it, or a smaller data.batch_size"
        raise ConfigError([f"{has}: the {title} needs {least} even for one worker; {enlarge}, or {cures}"])
    return smaller, f"{has}: the {title} uses {smaller} instead of {wanted}; to use these, {enlarge}"


def enlarging(num_bytes: int) -> str:
    """Return the commands that give shared memory room for a number of bytes, in whole units and a quarter more.

    >>> enlarging(100 * 2**20)
    'docker run --shm-size=125m, or mount -o remount,size=125m /dev/shm'
    """
    megabytes = math.ceil(1.25 * num_bytes / 2**20)
    size = f"{megabytes}m" if megabytes < 2048 else f"{math.ceil(megabytes / 1024)}g"
    return f"docker run --shm-size={size}, or mount -o remount,size={size} {FOLDER}"


def in_units(num_bytes: float) -> str:
    """Return a number of bytes in words.

    >>> in_units(64 * 2**20), in_units(1.5 * 2**30), in_units(300)
    ('64 MB', '1.5 GB', '300 bytes')
    """
    for unit, name in _UNITS:
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {name}"
    return f"{num_bytes:.0f} bytes"
