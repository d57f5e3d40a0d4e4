"""Helpers of the tests of data sets: trees of empty files, and what is opened from them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from eztorch_sce.data.sources.layouts import open_splits
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.splits import Location, Splits
from eztorch_sce.types import MediaRecord


def touch(root: Path, *names: str) -> Path:
    """Create empty files below a folder, and return the folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(file: Path, text: str) -> Path:
    """Write a text file and its folder, and return the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def summary(manifest: Manifest, root: Path) -> list[tuple[str, int | None, str]]:
    """Return the path below a folder, the label and the kind of each record."""
    return [(os.path.relpath(record.path, root), record.label, record.kind) for record in manifest.records]


def labeled(counts: dict[str, int]) -> Manifest:
    """Return the records of a folder with `counts` videos of each class. The files do not exist."""
    classes = sorted(counts)
    names = [(name, i) for name in classes for i in range(counts[name])]
    records = [MediaRecord(f"/data/{name}/{i}.mp4", classes.index(name), "video") for name, i in names]
    return Manifest(Records.of(records), classes, "/data")


def open_layout(layout: str, root: Path | None = None, split: int = 1, **paths: Path | None) -> Splits:
    """Open a data set by its layout; `paths` are the other path settings of `Location`."""
    texts = {name: str(path) for name, path in paths.items() if path}
    lists = (texts.get("list"), texts.get("test_root"), texts.get("test_list"), texts.get("annotations"))
    return open_splits(Location(str(root) if root else None, *lists, split), layout)


def labels(splits: Splits) -> list[dict[str, int | None]]:
    """Return the label of each file by its stem, for the train and the test split."""
    assert splits.test is not None
    return [{Path(record.path).stem: record.label for record in split.records} for split in (splits.train, splits.test)]


def class_names(splits: Splits) -> list[dict[str, str]]:
    """Return the class name of each file by its stem, for the train and the test split."""
    assert splits.test is not None
    return [
        {Path(record.path).stem: split.classes[record.label] for record in split.records if record.label is not None}
        for split in (splits.train, splits.test)
    ]


@contextmanager
def without_permission(*folders: Path) -> Iterator[None]:
    """Take away the permission to list some folders, also from root, who may otherwise list everything.

    The folders above must be open to all users, as a new folder in the system's folder for temporary files is.
    """
    is_root = os.geteuid() == 0
    for folder in folders:
        folder.chmod(0)
    if is_root:
        os.seteuid(65534)  # nobody
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for folder in folders:
            folder.chmod(0o755)


@contextmanager
def open_folder_for_all() -> Iterator[Path]:
    """Return a temporary folder that all users may list."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
