"""Hashes of the content of files, which a later run of the doctor reads from the folder of its job."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eztorch_sce import signals
from eztorch_sce.files import replacing

_FILE = "contents.arrow"
_BATCH = 64  # files that are read before a signal can end the command


def digests_of_similar(paths: Sequence[str], rows: Any, folder: Path, num_threads: int, fresh: bool) -> dict[int, str]:
    """Return a hash of the content of each file that has the size, the beginning and the end of another, by its row.

    All other files are different, and are not read.

    Args:
        paths: Absolute paths.
        rows: Arrow table with a row per path: `key`, `bytes` and `ends`, and `size` and `mtime_ns` when it was listed.
        folder: Folder in which the hashes are kept for files that do not change.
        num_threads: Files that are read at a time.
        fresh: Whether to read files again that have not changed.
    """
    indices = _similar(rows)
    states = rows.select(["key", "size", "mtime_ns"]).take(indices)
    known = {} if fresh else _read(folder / _FILE, states)
    unknown = [place for place in range(len(indices)) if place not in known]
    with ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, len(unknown), _BATCH):
            signals.poll()
            batch = unknown[start : start + _BATCH]
            known |= zip(batch, pool.map(_digest, [paths[indices[place]] for place in batch]), strict=True)
    if unknown:
        _write(folder / _FILE, states, [known[place] for place in range(len(indices))])
    return {index: known[place] for place, index in enumerate(indices.tolist())}


def _similar(rows: Any) -> npt.NDArray[np.int64]:
    """Return the indices of the files that share their size, beginning and end with another."""
    import pyarrow.compute as pc

    sizes, ends = rows["bytes"].to_numpy(), rows["ends"]
    codes = pc.index_in(ends, value_set=pc.unique(ends)).to_numpy()
    files = np.flatnonzero((sizes > 0) & pc.not_equal(ends, "").to_numpy())
    pairs = np.stack([sizes[files], codes[files]], axis=1)
    _, group, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    indices: npt.NDArray[np.int64] = files[counts[group.reshape(-1)] > 1]
    return indices


def _read(file: Path, states: Any) -> dict[int, str]:
    """Return the stored hashes of files in the same state, by the row of `states`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        with pa.OSFile(str(file)) as source:
            stored = pa.ipc.open_file(source).read_all()
        place = pc.index_in(states["key"], value_set=stored["key"])
        found = stored.take(place)
        is_same = pc.and_(pc.equal(found["size"], states["size"]), pc.equal(found["mtime_ns"], states["mtime_ns"]))
        digests = pc.if_else(pc.fill_null(is_same, False), found["digest"], "").to_pylist()
    except (OSError, pa.ArrowException, KeyError):  # there is none, or a damaged one
        return {}
    return {row: digest for row, digest in enumerate(digests) if digest}


def _write(file: Path, states: Any, digests: Sequence[str]) -> None:
    import pyarrow as pa

    table = states.append_column("digest", pa.array(digests, pa.string()))
    with replacing(file) as partial, pa.ipc.new_file(str(partial), table.schema) as writer:
        writer.write_table(table)


def _digest(path: str) -> str:
    """Return a hash of the content of a file, or "" if it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return ""  # the row of the file already says that it is unreadable
    return digest.hexdigest()
