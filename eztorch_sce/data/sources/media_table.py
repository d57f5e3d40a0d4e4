"""`manifest.parquet`: what `data doctor` found below a folder, so that a run needs to look at no file to start."""

import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.errors import ConfigError
from eztorch_sce.files import replacing

NAME = "manifest.parquet"


class MediaRow(NamedTuple):
    """A row of the table.

    Attributes:
        path: Relative to the folder of the table, with forward slashes.
        kind: "video", "image" or "frames".
        usable: Whether clips can be read from its beginning, middle and end; after `full=true`, from all of it.
        findings: What is odd, "kind" or "kind: details" each.
        bytes: Size of the file; of a frame folder the sum.
        digest: Of the content, where another file has the same size; else "".
        duration_s, fps, width, height, codec: As `MediaInfo`; 0 and "" where nothing can be read.
        num_frames, num_keys: Images in the file, and those that decoding can start at.
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
    """What of the table a run needs: all three in the same order.

    Attributes:
        file: The table.
        paths: Absolute.
        kinds: "video", "image" or "frames".
        usable: Whether clips can be read.
    """

    file: Path
    paths: list[str]
    kinds: list[str]
    usable: list[bool]


def check_writable(folder: Path) -> None:
    """Raise ConfigError unless the folder is there and its table can be written."""
    if not folder.is_dir():
        raise ConfigError([f"FOLDER={folder}: there is no such folder"])
    if not os.access(folder, os.W_OK):
        cure = "make it writable, or make a folder of links to its sub-folders and name that one"
        raise ConfigError([f"FOLDER={folder} cannot be written to, and what is found is kept in it: {cure}"])


def write_table(folder: Path, rows: list[MediaRow]) -> Path:
    """Write the table of a folder, atomically; return its path.

    Raises:
        ConfigError: If a name is not UTF-8, as Parquet needs it.
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns = {name: [getattr(row, name) for row in rows] for name in MediaRow._fields}
    file = folder / NAME
    try:
        table = pa.table(columns)
    except UnicodeEncodeError as error:
        raise ConfigError([f"{folder}: a name in it is not UTF-8 ({error.object!r}): rename it"]) from error
    with replacing(file) as partial:  # the shards of a job array may finish at the same time
        parquet.write_table(table, partial)
    return file


def find_table(folder: str | Path) -> MediaTable | None:
    """Return what the table of a folder, or of the folder above it, says of all below the folder.

    Raises:
        ConfigError: If the table cannot be read.
    """
    folder = Path(os.path.abspath(folder))
    for place in (folder, folder.parent):
        if (place / NAME).is_file():
            return _read(place / NAME, folder, (place / NAME).stat().st_mtime_ns)
    return None


@lru_cache(maxsize=4)  # a run asks twice: what there is, and what is unusable
def _read(file: Path, folder: Path, written_ns: int) -> MediaTable:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(file, columns=["path", "kind", "usable"])
    except (pa.ArrowException, OSError) as error:
        cure = f"remove it, or write it anew with `eztorch-sce data doctor {file.parent}`"
        raise ConfigError([f"{file} cannot be read as a table of the doctor ({error}); {cure}"]) from error
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
