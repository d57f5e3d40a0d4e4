"""Data sets of images in trees: ImageNet and its subsets, CIFAR, STL-10."""

import os
from pathlib import Path

from eztorch_sce.data.sources.manifest import Manifest, from_folder, shorten
from eztorch_sce.data.sources.packed import find_packed
from eztorch_sce.data.sources.splits import (
    Entry,
    Places,
    Splits,
    collect,
    keep_listed_classes,
    matching_lines,
    on_disk,
    part_folders,
)
from eztorch_sce.errors import ConfigError


def open_imagenet(places: Places) -> Splits:
    """Open train/<wnid>/ and val/<wnid>/."""
    train, val = _both_parts(places)
    return _trees(train, val, places)


def open_imagenet100(places: Places) -> Splits:
    """Open those classes of ImageNet that a list names, the same in both parts."""
    return keep_listed_classes(open_imagenet(places), places)


def open_tiny_imagenet(places: Places) -> Splits:
    """Open train/<wnid>/images/, and val/images/ by val_annotations.txt, or val/<wnid>/ if someone sorted it."""
    train, val = _both_parts(places)
    file = val / "val_annotations.txt"
    if not file.is_file() or not (val / "images").is_dir():
        return _trees(train, val, places)
    lines = matching_lines(file, r"(\S+)\s+(\S+)(?:\s+\d+){0,4}")  # val_0.JPEG n03444034 0 32 44 62
    entries = [Entry((name,), wnid) for name, wnid in lines]
    found = {path.name: (os.path.abspath(path), "image") for path in (val / "images").iterdir()}
    least = 0 if places.missing_ok else max(1, len(entries))
    all_classes = sorted({*_folders(train), *(wnid for _, wnid in lines)}) if places.missing_ok else None
    return collect(
        lambda: from_folder(train, all_classes),
        lambda classes: on_disk(found, entries, classes, val / "images", str(file), least),
    )


def open_unpacked(places: Places) -> Splits:
    """Open train/<class>/ and test/<class>/, as `data unpack` writes them."""
    train, test = _both_parts(places)
    return _trees(train, test, places)


def open_stl10_unlabeled(places: Places) -> Splits:
    """Open the unlabeled and the training images of STL-10 as one part without labels, to pretrain on."""
    train, _ = _both_parts(places)
    parts = [from_folder(folder) for folder in (train, train.parent / "unlabeled")]
    records = [record._replace(label=None) for part in parts for record in part.records]
    return Splits(Manifest(records, [], f"{parts[0].source} and {parts[1].source}, without labels"), None)


def _both_parts(places: Places) -> tuple[Path, Path]:
    """Return the folders of the training and the test part."""
    root = places.root or Path()
    train, test = part_folders(root)
    if train is not None and test is not None:
        return train, test
    if packed := find_packed(root):
        layout, folder = packed[0].format.layout, packed[0].folder
        cure = f"run `eztorch-sce data unpack {folder} OUT`, then set data.root=OUT"
        raise ConfigError([f"data.root={root}: holds {layout} as it is published, images packed in arrays; {cure}"])
    if not root.is_dir():
        raise ConfigError([f"data.root={root}: there is no such folder"])
    inside = shorten(sorted(path.name for path in root.iterdir()), num=10) or "nothing"
    cure = "set data.root to the folder of both, or data.layout=auto to do without a test part"
    raise ConfigError([f"data.root={root}: must hold the folders train and val (or test), and holds {inside}; {cure}"])


def _trees(train: Path, test: Path, places: Places) -> Splits:
    # a class that lacks in the training part is a mistake in the test part, and for `data check` a finding
    classes = _folders(train, test) if places.missing_ok else None
    splits = collect(
        lambda: from_folder(train, classes),
        lambda known: from_folder(test, known, setting="data.root"),
    )
    bare = [folder for folder, part in zip((train, test), splits, strict=True) if part and not part.classes]
    if bare:
        cure = "sort them into a folder for each class, or set data.layout=auto"
        raise ConfigError([f"data.root={folder}: its images do not lie in class folders; {cure}" for folder in bare])
    return splits


def _folders(*parents: Path) -> list[str]:
    """Return the names of the folders below, which are the classes."""
    inside = (path for parent in parents for path in parent.iterdir())
    return sorted({path.name for path in inside if path.is_dir() and not path.name.startswith(".")})
