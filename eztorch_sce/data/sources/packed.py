"""CIFAR-10, CIFAR-100 and STL-10, published as packed arrays, as trees of PNG files: a run reads only files.

The number in a file's name is the place of the image in its part as published, from 0, as the publishers' lists of
indices count. The class is in the name too: no two files of a set have the same name.
"""

import json
import os
import pickle
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eztorch_sce.data.sources.manifest import shorten
from eztorch_sce.errors import ConfigError
from eztorch_sce.files import replacing, write_text
from eztorch_sce.progress import track

_NOTE = "unpack.json"  # which set it is, beside the parts
_CIFAR_SIDE, _STL_SIDE = 32, 96
_EFFORT = 3  # of zlib: more takes twice the time, and files this small get no smaller


class Block(NamedTuple):
    """The images of one published file.

    Attributes:
        part: "train", "test" or "unlabeled".
        pixels: uint8 RGB (N, H, W, 3), in their published order.
        names: The class of each, None where there is none.
    """

    part: str
    pixels: np.ndarray
    names: Sequence[str] | None


class Kind(NamedTuple):
    """A packed set.

    Attributes:
        layout: What it is called, here too as `data.layout`.
        folder: As the publisher's archive calls it.
        names_file: The file of the class names.
        parts: The part that each file of images belongs to.
        read: Yields the blocks of a folder.
    """

    layout: str
    folder: str
    names_file: str
    parts: dict[str, str]
    read: Callable[[Path, "Kind"], Iterator[Block]]

    def missing(self, folder: Path) -> list[str]:
        """Return the files that a folder of this kind would have, and this has not."""
        return [name for name in (self.names_file, *self.parts) if not (folder / name).is_file()]


class Packed(NamedTuple):
    """A packed set that was found."""

    kind: Kind
    folder: Path


class Unpacked(NamedTuple):
    """What `unpack` did.

    Attributes:
        layout: Of the set.
        num_made, num_kept: Images written now, and those that were there.
        seconds: That it took.
    """

    layout: str
    num_made: int
    num_kept: int
    seconds: float


def find_packed(folder: Path) -> list[Packed]:
    """Return the packed sets in a folder, or in folders below it that are called as published."""
    places = [Packed(kind, place) for kind in KINDS for place in (folder, folder / kind.folder)]
    return [packed for packed in places if not packed.kind.missing(packed.folder)]


def unpack(source: Path, out: Path) -> Unpacked:
    """Write the images of a packed set as `out`/<part>/<class>/<class>_00000.png; what is there already stays.

    A file appears under its name only when it is whole. All of the source is read and checked before the first is
    written.

    Args:
        source: The folder of CIFAR-10 or CIFAR-100 (Python or binary version) or STL-10, or the one that it lies in.
        out: A new folder, or the one that an interrupted call has begun.

    Raises:
        ConfigError: With all that is wrong: folders, files that are missing or not as published, images in `out`
            that are not of this set.
    """
    source, out = (Path(os.path.abspath(os.path.expanduser(path))) for path in (source, out))
    if problems := _folder_problems(source, out):
        raise ConfigError(problems)
    packed = _sole_packed(source)
    blocks = list(packed.kind.read(packed.folder, packed.kind))
    _note_kind(out, packed.kind)
    started, num_made, num_kept = time.perf_counter(), 0, 0
    for file, pixels in track(_files(out, blocks), sum(len(block.pixels) for block in blocks), "unpack"):
        if file.exists():
            num_kept += 1
        else:
            _write_png(file, pixels)
            num_made += 1
    _check_counts(out, blocks)
    return Unpacked(packed.kind.layout, num_made, num_kept, time.perf_counter() - started)


def _folder_problems(source: Path, out: Path) -> list[str]:
    real_source, real_out = source.resolve(), out.resolve()
    if not source.is_dir():
        cure = "unpack the archive first (tar xf), and give its folder" if source.is_file() else "there is none"
        return [f"SOURCE={source}: must be a folder; {cure}"]
    if real_source == real_out or real_source in real_out.parents or real_out in real_source.parents:
        return [f"OUT={out}: must lie outside SOURCE={source}, which stays as it was published"]
    if out.is_dir() and any(out.iterdir()) and not (out / _NOTE).is_file():
        return [f"OUT={out}: holds files that were not made by `data unpack`; choose a new or an empty folder"]
    return []


def _sole_packed(source: Path) -> Packed:
    found = find_packed(source)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(packed.folder) for packed in found)
        raise ConfigError([f"SOURCE={source}: holds several packed sets: {names}; give one of them"])
    for kind in KINDS:
        for folder in (source, source / kind.folder):
            gone = kind.missing(folder)
            if len(gone) <= len(kind.parts) // 2:  # most of its files are there
                raise ConfigError([f"SOURCE={folder}: is {kind.layout} without {shorten(gone)}; fetch it again"])
    known = ", ".join(kind.folder for kind in KINDS)
    inside = shorten(sorted(path.name for path in source.iterdir()), num=10) or "nothing"
    cure = "give one of these, or the folder it lies in; an archive must be unpacked first (tar xf)"
    raise ConfigError([f"SOURCE={source}: no packed set, but {inside}; known are {known}: {cure}"])


def _note_kind(out: Path, kind: Kind) -> None:
    note, now = out / _NOTE, {"set": kind.layout}
    before = json.loads(note.read_text()) if note.is_file() else now
    if before != now:
        raise ConfigError([f"OUT={out}: holds {before.get('set')}, and SOURCE is {kind.layout}; choose another folder"])
    out.mkdir(parents=True, exist_ok=True)
    write_text(note, json.dumps(now) + "\n")


def _files(out: Path, blocks: Sequence[Block]) -> Iterator[tuple[Path, np.ndarray]]:
    """Yield where each image goes, and its pixels."""
    place = dict.fromkeys((block.part for block in blocks), 0)
    for part, pixels, names in blocks:
        folders = [out / part / name for name in sorted(set(names))] if names is not None else [out / part]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for index in range(len(pixels)):
            folder = out / part if names is None else out / part / names[index]
            yield folder / f"{folder.name}_{place[part]:05d}.png", pixels[index]
            place[part] += 1


def _write_png(file: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    with replacing(file) as partial:
        Image.fromarray(np.ascontiguousarray(pixels)).save(partial, format="PNG", compress_level=_EFFORT)


def _check_counts(out: Path, blocks: Sequence[Block]) -> None:
    expected = dict.fromkeys((block.part for block in blocks), 0)
    for block in blocks:
        expected[block.part] += len(block.pixels)
    found = {part: sum(1 for _ in (out / part).rglob("*.png")) for part in expected}
    problems = [
        f"OUT={out / part}: holds {found[part]} images, and SOURCE {number}; take out what is not of this set"
        for part, number in expected.items()
        if found[part] != number
    ]
    if problems:
        raise ConfigError(problems)


def _read_pickles(folder: Path, kind: Kind) -> Iterator[Block]:
    """Yield the blocks of the Python version of CIFAR; where there are coarse and fine classes, by the fine ones."""
    meta = _load_pickle(folder / kind.names_file)
    classes = _class_names(meta.get("fine_label_names", meta.get("label_names", [])), folder / kind.names_file)
    for name, part in kind.parts.items():
        batch = _load_pickle(folder / name)
        labels = np.asarray(batch.get("fine_labels", batch.get("labels", [])))
        yield _cifar_block(folder / name, part, batch.get("data"), labels, classes)


def _read_binary(folder: Path, kind: Kind, num_labels: int) -> Iterator[Block]:
    """Yield the blocks of the binary version of CIFAR: one byte for each label, the last the fine one, then pixels."""
    names = (folder / kind.names_file).read_text().split()
    classes = _class_names(names, folder / kind.names_file)
    for name, part in kind.parts.items():
        rows = _rows(folder / name, num_labels + 3 * _CIFAR_SIDE**2)
        yield _cifar_block(folder / name, part, rows[:, num_labels:], rows[:, num_labels - 1], classes)


def _read_stl10(folder: Path, kind: Kind) -> Iterator[Block]:
    """Yield the blocks of STL-10, column by column as published, its labels from 1."""
    classes = _class_names((folder / kind.names_file).read_text().split(), folder / kind.names_file)
    labels_of = {name: folder / name.replace("_X", "_y") for name, part in kind.parts.items() if part != "unlabeled"}
    for name, part in kind.parts.items():
        if name.endswith("_y.bin"):
            continue
        rows = _rows(folder / name, 3 * _STL_SIDE**2)
        pixels = rows.reshape(-1, 3, _STL_SIDE, _STL_SIDE).transpose(0, 3, 2, 1)  # (N, C, W, H) -> (N, H, W, C)
        names = None
        if name in labels_of:
            labels = np.fromfile(labels_of[name], np.uint8).astype(int) - 1
            names = _names(labels_of[name], labels, classes, len(pixels))
        yield Block(part, pixels, names)


def _cifar_block(file: Path, part: str, data: Any, labels: np.ndarray, classes: list[str]) -> Block:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * _CIFAR_SIDE**2,):
        raise ConfigError([f"{file}: holds no images of 32 x 32 pixels as published; fetch it again"])
    pixels = data.reshape(-1, 3, _CIFAR_SIDE, _CIFAR_SIDE).transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    return Block(part, pixels, _names(file, labels, classes, len(pixels)))


def _names(file: Path, labels: np.ndarray, classes: list[str], num_images: int) -> list[str]:
    """Return the class name of each label."""
    if len(labels) != num_images:
        raise ConfigError([f"{file}: {len(labels)} labels for {num_images} images; fetch it again"])
    if len(labels) and not (labels.dtype.kind in "iu" and labels.min() >= 0 and labels.max() < len(classes)):
        raise ConfigError([f"{file}: labels that none of the {len(classes)} classes has; fetch it again"])
    return [classes[label] for label in labels.tolist()]


def _class_names(names: Any, file: Path) -> list[str]:
    """Return the names as text, after checking that each can be a folder's."""
    texts = [_text(name) for name in names] if isinstance(names, list) else []
    if not texts or not all(isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name) for name in texts):
        shown = shorten([repr(name) for name in texts]) or "none"
        raise ConfigError([f"{file}: its class names are not as published: {shown}; fetch it again"])
    return texts


def _rows(file: Path, num_bytes: int) -> np.ndarray:
    """Return a file of records of that size as uint8 (N, bytes); it stays on disk until it is looked at."""
    size = file.stat().st_size
    if size == 0 or size % num_bytes:
        raise ConfigError([f"{file}: {size} bytes are no whole number of images of {num_bytes}; fetch it again"])
    return np.memmap(file, np.uint8, "r").reshape(-1, num_bytes)


class _ArraysOnly(pickle.Unpickler):
    """Reads what packed images are made of, and nothing else: a pickle may name any function, and it would run."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.ndarray(0).__reduce__()[0]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes that Python 2 can read
            return _latin1
        raise _ForeignPickle(f"{module}.{name}")


class _ForeignPickle(pickle.UnpicklingError):
    pass


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise _ForeignPickle(f"the encoding {encoding}")
    return text.encode("latin1")


def _load_pickle(file: Path) -> dict[str, Any]:
    """Return the dictionary in a pickle, its keys as text.

    Raises:
        ConfigError: If the file asks for more than arrays, numbers and text, or cannot be read.
    """
    try:
        with open(file, "rb") as stream:
            content = _ArraysOnly(stream, encoding="bytes").load()
    except _ForeignPickle as error:
        danger = f"asks for {error}, which no packed images need, and might do harm: nothing in it was run"
        raise ConfigError([f"{file}: {danger}; fetch it from its publisher"]) from error
    except Exception as error:  # a broken pickle raises whatever its bytes happen to mean
        raise ConfigError([f"{file}: cannot be read as a pickle ({error!r}); fetch it again"]) from error
    if not isinstance(content, dict):
        raise ConfigError([f"{file}: holds a {type(content).__name__}, the publisher's a dictionary; fetch it again"])
    return {_text(key): value for key, value in content.items()}


def _text(value: Any) -> Any:
    return value.decode("latin1") if isinstance(value, bytes) else value


_BATCHES = {f"data_batch_{number}": "train" for number in range(1, 6)} | {"test_batch": "test"}

KINDS = (
    Kind("cifar10", "cifar-10-batches-py", "batches.meta", _BATCHES, _read_pickles),
    Kind(
        "cifar10",
        "cifar-10-batches-bin",
        "batches.meta.txt",
        {f"{name}.bin": part for name, part in _BATCHES.items()},
        partial(_read_binary, num_labels=1),
    ),
    Kind("cifar100", "cifar-100-python", "meta", {"train": "train", "test": "test"}, _read_pickles),
    Kind(
        "cifar100",
        "cifar-100-binary",
        "fine_label_names.txt",
        {"train.bin": "train", "test.bin": "test"},
        partial(_read_binary, num_labels=2),
    ),
    Kind(
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
