"""The files of a folder as the records of a job, and whether the machine of a worker sees them."""

import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from eztorch_sce.data.frame_names import split_frames_path
from eztorch_sce.data.sources.records import KINDS, Records
from eztorch_sce.errors import ConfigError
from eztorch_sce.jobs.job import file_states


def records_of_files(records: Records, root: str) -> Any:
    """Return the records of a job on the files below a folder, as an Arrow table.

    A frame folder counts as changed when it or one of its files has changed.

    Returns:
        The columns `key` (path relative to the folder, with forward slashes), `kind`, `size` in bytes, and `mtime_ns`.
    """
    import pyarrow as pa

    paths = list(records.paths())
    sizes, times_ns = np.array(file_states(paths), np.int64).reshape(-1, 2).T
    is_folder = np.flatnonzero(records.kind_codes == KINDS.index("frames"))
    if len(is_folder):
        with ThreadPoolExecutor(16) as pool:
            states = list(pool.map(_folder_state, [paths[index] for index in is_folder]))
        sizes[is_folder], times_ns[is_folder] = np.array(states, np.int64).T
    kinds = pa.DictionaryArray.from_arrays(pa.array(records.kind_codes.astype(np.int8)), pa.array(KINDS))
    return pa.table(
        {
            "key": relative_paths(paths, root),
            "kind": kinds.cast(pa.string()),
            "size": pa.array(sizes),
            "mtime_ns": pa.array(times_ns),
        }
    )


def relative_paths(paths: Sequence[str], root: str) -> Any:
    """Return paths relative to a folder with forward slashes, as an Arrow array of bytes."""
    import pyarrow as pa

    start = os.path.join(root, "")
    names = (path[len(start) :] if path.startswith(start) else os.path.relpath(path, root) for path in paths)
    return pa.array((os.fsencode(name.replace(os.sep, "/")) for name in names), pa.large_binary(), size=len(paths))


def check_visible(folder: str, keys: Sequence[str]) -> None:
    """Raise ConfigError if this machine sees none of the files of a shard, by their paths relative to a folder."""
    if keys and not any(os.path.lexists(split_frames_path(os.path.join(folder, key))[0]) for key in keys):
        cure = "mount it under this path on every machine that works on the job"
        raise ConfigError(
            [f"{socket.gethostname()} does not see the files of FOLDER={folder}, such as {keys[0]}: {cure}"]
        )


def _folder_state(path: str) -> tuple[int, int]:
    """Return the total size of the files in a frame folder, and its latest modification time in nanoseconds."""
    folder = split_frames_path(path)[0]
    try:
        times_ns, size = [os.stat(folder).st_mtime_ns], 0
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=True)
                size += status.st_size
                times_ns.append(status.st_mtime_ns)
    except OSError:
        return 0, 0
    return size, max(times_ns)
