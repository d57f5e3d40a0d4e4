"""`manifest.parquet`: the table written by `data doctor`, which lets a run start without walking the folder."""

import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.errors import ConfigError
from eztorch_sce.files import replacing

TABLE_NAME = "manifest.parquet"


class MediaRow(NamedTuple):
    """A row of the table.

    Attributes:
        path: Path relative to the folder of the table, with forward slashes.
        kind: "video", "image" or "frames".
        usable: Whether clips at the start, middle and end can be read; with `full=true`, whether all frames can.
        findings: Irregularities, each as "kind" or "kind: details".
        bytes: Size of the file, or total size of the frame folder.
        digest: Hash of the content if another file has the same size, else "".
        duration_s, fps, width, height, codec: As in `MediaInfo`; 0 and "" if the file cannot be read.
        num_frames: Number of frames.
        num_keys: Number of key frames, at which decoding can start.
    """

    path: str
    kind: str
    usable: bool
    findings: list[str]
    bytes: int
    digest: str
    duration_s: float
    fps: float
    width: int
    height: int
    codec: str
    num_frames: int
    num_keys: int


class MediaTable(NamedTuple):
    """The columns of the table that a run needs, in the same order.

    Attributes:
        file: Path of the table.
        paths: Absolute paths.
        kinds: "video", "image" or "frames".
        usable: Whether clips can be read.
    """

    file: Path
    paths: list[str]
    kinds: list[str]
    usable: list[bool]


def check_writable(folder: Path) -> None:
    """Raise ConfigError unless the folder exists and its table can be written."""
    if not folder.is_dir():
        raise ConfigError([f"FOLDER={folder} does not exist"])
    if not os.access(folder, os.W_OK):
        cure = "make it writable, or create a folder of links to its sub-folders and use that"
        raise ConfigError([f"FOLDER={folder} must be writable, since the results are stored in it; {cure}"])


def write_table(folder: Path, rows: list[MediaRow]) -> Path:
    """Write the table of a folder atomically and return its path.

    Raises:
        ConfigError: If a file name is not valid UTF-8, which Parquet requires.
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns = {name: [getattr(row, name) for row in rows] for name in MediaRow._fields}
    file = folder / TABLE_NAME
    try:
        table = pa.table(columns)
    except UnicodeEncodeError as error:
        raise ConfigError([f"{folder}: the file name {error.object!r} is not valid UTF-8; rename the file"]) from error
    with replacing(file) as partial:  # the jobs of a job array may finish at the same time
        parquet.write_table(table, partial)
    return file


def find_table(folder: str | Path) -> MediaTable | None:
    """Return the rows of all media below a folder, from its table or its parent's; None if neither has a table.

    Raises:
        ConfigError: If the table cannot be read.
    """
    folder = Path(os.path.abspath(folder))
    for candidate in (folder, folder.parent):
        file = candidate / TABLE_NAME
        if file.is_file():
            return _read(file, folder, file.stat().st_mtime_ns)
    return None


@lru_cache(maxsize=4)  # a run reads it twice: to list the media and to leave out the unusable ones
def _read(file: Path, folder: Path, written_ns: int) -> MediaTable:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(file, columns=["path", "kind", "usable"])
    except (pa.ArrowException, OSError) as error:
        cure = f"delete it, or write it again with `eztorch-sce data doctor {file.parent}`"
        raise ConfigError([f"{file} cannot be read as a table of `data doctor` ({error}); {cure}"]) from error
    columns = (table[name].to_pylist() for name in ("path", "kind", "usable"))
    prefix = "" if folder == file.parent else os.path.relpath(folder, file.parent).replace(os.sep, "/") + "/"
    rows = [row for row in zip(*columns, strict=True) if row[0].startswith(prefix)]
    start = os.path.join(file.parent, "")
    return MediaTable(
        file,
        [start + path.replace("/", os.sep) for path, _, _ in rows],
        [kind for _, kind, _ in rows],
        [usable for _, _, usable in rows],
    )
