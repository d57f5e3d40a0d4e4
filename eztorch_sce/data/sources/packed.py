"""CIFAR-10, CIFAR-100 and STL-10 in the packed form in which they are published."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eztorch_sce.data.sources.array_pickles import as_text, load_arrays
from eztorch_sce.errors import ConfigError, shorten

_CIFAR_SIZE, _STL_SIZE = 32, 96  # pixels


class Block(NamedTuple):
    """Images of one published file.

    Attributes:
        split: "train", "test" or "unlabeled".
        pixels: uint8 RGB (N, H, W, 3), in published order.
        class_names: Class of each image; None if unlabeled.
    """

    split: str
    pixels: np.ndarray
    class_names: Sequence[str] | None


class PackedFormat(NamedTuple):
    """A published form of a packed set.

    Attributes:
        layout: Name of the set, and the `data.layout` of its unpacked images.
        folder: Folder name in the publisher's archive.
        class_file: File of the class names.
        splits: Split of each file of images or labels.
        read: Function that yields the blocks of a folder.
    """

    layout: str
    folder: str
    class_file: str
    splits: dict[str, str]
    read: Callable[[Path, "PackedFormat"], Iterator[Block]]

    def missing(self, folder: Path) -> list[str]:
        """Return the files of this format that a folder lacks."""
        return [name for name in (self.class_file, *self.splits) if not (folder / name).is_file()]


class PackedSet(NamedTuple):
    """A packed set on disk."""

    format: PackedFormat
    folder: Path

    def blocks(self) -> Iterator[Block]:
        """Yield the images, file by file.

        Raises:
            ConfigError: If a file is not as published.
        """
        return self.format.read(self.folder, self.format)


def find_packed(folder: Path) -> list[PackedSet]:
    """Return the packed sets in a folder, and in its sub-folders that are named as published."""
    candidates = [PackedSet(form, place) for form in FORMATS for place in (folder, folder / form.folder)]
    return [packed for packed in candidates if not packed.format.missing(packed.folder)]


def open_packed(source: Path) -> PackedSet:
    """Return the only packed set in a folder.

    Raises:
        ConfigError: If there is no set or more than one, or files are missing.
    """
    packed_sets = find_packed(source)
    if len(packed_sets) == 1:
        return packed_sets[0]
    if packed_sets:
        folders = ", ".join(str(packed.folder) for packed in packed_sets)
        raise ConfigError([f"SOURCE={source} contains several packed sets: {folders}; choose one of them"])
    for form in FORMATS:
        for folder in (source, source / form.folder):
            missing = form.missing(folder)
            if len(missing) <= len(form.splits) // 2:  # most of its files are present
                raise ConfigError([f"SOURCE={folder} is {form.layout} without {shorten(missing)}; download it again"])
    content = shorten(sorted(path.name for path in source.iterdir()), num=10) or "nothing"
    known = ", ".join(form.folder for form in FORMATS)
    cure = "choose one of these folders, the one that contains it, or the publisher's archive"
    raise ConfigError([f"SOURCE={source} contains no packed set, only {content}; known folders are {known}; {cure}"])


def _read_pickles(folder: Path, form: PackedFormat) -> Iterator[Block]:
    """Yield the blocks of the Python version of CIFAR, with the fine classes of CIFAR-100."""
    meta = load_arrays(folder / form.class_file)
    classes = _checked_classes(meta.get("fine_label_names", meta.get("label_names", [])), folder / form.class_file)
    for name, split in form.splits.items():
        batch = load_arrays(folder / name)
        labels = np.asarray(batch.get("fine_labels", batch.get("labels", [])))
        yield _cifar_block(folder / name, split, batch.get("data"), labels, classes)


def _read_binary(folder: Path, form: PackedFormat, num_labels: int) -> Iterator[Block]:
    """Yield the blocks of the binary version of CIFAR.

    Each image is stored as one byte per label (the last is the fine label), followed by its pixels.
    """
    classes = _read_classes(folder / form.class_file)
    for name, split in form.splits.items():
        records = _read_records(folder / name, num_labels + 3 * _CIFAR_SIZE**2)
        yield _cifar_block(folder / name, split, records[:, num_labels:], records[:, num_labels - 1], classes)


def _read_stl10(folder: Path, form: PackedFormat) -> Iterator[Block]:
    """Yield the blocks of STL-10, whose pixels are stored column by column and whose labels start at 1."""
    classes = _read_classes(folder / form.class_file)
    for name, split in form.splits.items():
        if name.endswith("_y.bin"):
            continue  # read with its images
        records = _read_records(folder / name, 3 * _STL_SIZE**2)
        pixels = records.reshape(-1, 3, _STL_SIZE, _STL_SIZE).transpose(0, 3, 2, 1)  # (N, C, W, H) -> (N, H, W, C)
        class_names = None
        if split != "unlabeled":
            label_file = folder / name.replace("_X", "_y")
            labels = np.fromfile(label_file, np.uint8).astype(int) - 1
            class_names = _class_names(label_file, labels, classes, len(pixels))
        yield Block(split, pixels, class_names)


def _cifar_block(file: Path, split: str, data: Any, labels: np.ndarray, classes: list[str]) -> Block:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * _CIFAR_SIZE**2,):
        raise ConfigError([f"{file} contains no images of 32 x 32 pixels as published; download it again"])
    pixels = data.reshape(-1, 3, _CIFAR_SIZE, _CIFAR_SIZE).transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    return Block(split, pixels, _class_names(file, labels, classes, len(pixels)))


def _class_names(file: Path, labels: np.ndarray, classes: list[str], num_images: int) -> list[str]:
    """Return the class name of each label."""
    if len(labels) != num_images:
        raise ConfigError([f"{file} has {len(labels)} labels for {num_images} images; download it again"])
    if len(labels) and not (labels.dtype.kind in "iu" and labels.min() >= 0 and labels.max() < len(classes)):
        raise ConfigError([f"{file} has labels outside its {len(classes)} classes; download it again"])
    return [classes[label] for label in labels.tolist()]


def _read_classes(file: Path) -> list[str]:
    return _checked_classes(file.read_text().split(), file)


def _checked_classes(names: Any, file: Path) -> list[str]:
    """Return class names as text, after checking that each is valid as a folder name."""
    texts = [as_text(name) for name in names] if isinstance(names, list) else []
    if not texts or not all(isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name) for name in texts):
        shown = shorten([repr(name) for name in texts]) or "none"
        raise ConfigError([f"{file} has class names that are not as published: {shown}; download it again"])
    return texts


def _read_records(file: Path, num_bytes: int) -> np.ndarray:
    """Return a file of records of `num_bytes` bytes as uint8 (N, num_bytes), mapped into memory."""
    size = file.stat().st_size
    if size == 0 or size % num_bytes:
        raise ConfigError([f"{file} has {size} bytes, not a whole number of images of {num_bytes}; download it again"])
    return np.memmap(file, np.uint8, "r").reshape(-1, num_bytes)


_BATCHES = {f"data_batch_{number}": "train" for number in range(1, 6)} | {"test_batch": "test"}

FORMATS = (
    PackedFormat("cifar10", "cifar-10-batches-py", "batches.meta", _BATCHES, _read_pickles),
    PackedFormat(
        "cifar10",
        "cifar-10-batches-bin",
        "batches.meta.txt",
        {f"{name}.bin": split for name, split in _BATCHES.items()},
        partial(_read_binary, num_labels=1),
    ),
    PackedFormat("cifar100", "cifar-100-python", "meta", {"train": "train", "test": "test"}, _read_pickles),
    PackedFormat(
        "cifar100",
        "cifar-100-binary",
        "fine_label_names.txt",
        {"train.bin": "train", "test.bin": "test"},
        partial(_read_binary, num_labels=2),
    ),
    PackedFormat(
        "stl10",
        "stl10_binary",
        "class_names.txt",
        {
            "train_X.bin": "train",
            "train_y.bin": "train",
            "test_X.bin": "test",
            "test_y.bin": "test",
            "unlabeled_X.bin": "unlabeled",
        },
        _read_stl10,
    ),
)
