"""Image data sets in folders: ImageNet and its subsets, CIFAR, STL-10."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.media_kinds import MediaChoice
from eztorch_sce.data.sources.packed import find_packed
from eztorch_sce.data.sources.publisher_lists import Entry, ListedFiles, keep_listed_classes, matching_lines
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.split_folders import split_folders
from eztorch_sce.data.sources.splits import Location, Splits, open_both
from eztorch_sce.data.sources.walk import list_root
from eztorch_sce.errors import ConfigError, shorten


def open_imagenet(location: Location) -> Splits:
    """Open train/<wnid>/ and val/<wnid>/."""
    train, val = _both_folders(location)
    return _open_class_folders(train, val, location)


def open_imagenet100(location: Location) -> Splits:
    """Open ImageNet with only the classes that a list names."""
    return keep_listed_classes(open_imagenet(location), location)


def open_tiny_imagenet(location: Location) -> Splits:
    """Open train/<wnid>/images/, and val/images/ with val_annotations.txt, or val/<wnid>/ if it has been sorted."""
    train, val = _both_folders(location)
    file = val / "val_annotations.txt"
    if not file.is_file() or not (val / "images").is_dir():
        return _open_class_folders(train, val, location)
    lines = matching_lines(file, r"(\S+)\s+(\S+)(?:\s+\d+){0,4}")  # val_0.JPEG n03444034 0 32 44 62
    entries = [Entry((name,), wnid) for name, wnid in lines]
    files = {path.name: (os.path.abspath(path), "image") for path in (val / "images").iterdir()}
    min_files = 0 if location.missing_ok else max(1, len(entries))
    all_classes = sorted({*_subfolders(train), *(wnid for _, wnid in lines)}) if location.missing_ok else None
    return open_both(
        lambda: _class_folders(train, all_classes),
        lambda split: ListedFiles(entries, split.classes, val / "images", str(file), min_files).manifest(files),
    )


def open_unpacked(location: Location) -> Splits:
    """Open train/<class>/ and test/<class>/, as written by `data unpack`."""
    train, test = _both_folders(location)
    return _open_class_folders(train, test, location)


def open_stl10_unlabeled(location: Location) -> Splits:
    """Open the unlabeled and the training images of STL-10 as one split without labels, for pretraining."""
    train, _ = _both_folders(location)
    folders = (train, train.parent / "unlabeled")
    manifests = [from_folder(folder, choice=MediaChoice("image"), classes="none") for folder in folders]
    records = Records.concatenate([manifest.records for manifest in manifests])
    return Splits(Manifest(records, [], f"{manifests[0].source} and {manifests[1].source}, without labels"), None)


def _both_folders(location: Location) -> tuple[Path, Path]:
    """Return the folders of the train and test splits.

    Raises:
        ConfigError: If one is missing; the message lists the content of the root.
    """
    root = location.folder
    inside, files = list_root(root, "data.root")
    train, test, _, _ = split_folders(root, published=True)
    if train is not None and test is not None:
        return train, test
    if packed := find_packed(root):
        layout, folder = packed[0].format.layout, packed[0].folder
        cure = f"run `eztorch-sce data unpack {shlex.quote(str(folder))} OUT`, then set data.root=OUT"
        raise ConfigError([f"data.root={root} contains {layout} in its published form, packed arrays; {cure}"])
    names = shorten(sorted([*inside, *files]), num=10) or "nothing"
    cure = "set data.root to the folder that contains both, or data.layout=auto to use no test split"
    raise ConfigError([f"data.root={root} must contain the folders train and val (or test), not {names}; {cure}"])


def _open_class_folders(train: Path, test: Path, location: Location) -> Splits:
    # A class that only the test split has is an error, but `data check` reports it as a finding.
    classes = sorted({*_subfolders(train), *_subfolders(test)}) if location.missing_ok else None
    splits = open_both(lambda: _class_folders(train, classes), lambda split: _class_folders(test, split.classes))
    messages = [
        f"data.root={folder}: its images are not in class folders; sort them by class, or set data.layout=auto"
        for folder, manifest in zip((train, test), splits[:2], strict=True)
        if manifest and not manifest.classes
    ]
    if messages:
        raise ConfigError(messages)
    return splits


def _class_folders(folder: Path, classes: Sequence[str] | None) -> Manifest:
    return from_folder(folder, classes, "data.root", MediaChoice("image"), classes="folders")


def _subfolders(parent: Path) -> list[str]:
    """Return the names of the sub-folders, which are the classes."""
    return list_root(parent, "data.root")[0]
