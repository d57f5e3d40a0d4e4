"""Unpacking of CIFAR-10, CIFAR-100 and STL-10 into folders of PNG files, the only form training reads.

The number in a file name is the index of the image in its published split, from 0, as the publishers' lists of indices
count. The class is in the name too, so that no two files of a set have the same name.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eztorch_sce import signals
from eztorch_sce.curation.archive import extract_tar
from eztorch_sce.data.sources.packed import Block, open_packed
from eztorch_sce.errors import ConfigError
from eztorch_sce.files import remove_partials, replacing, temporary_folder, write_text
from eztorch_sce.progress import track

_SET_FILE = "unpack.json"  # in the folder of the images: the name of the set
_COMPRESSION = 3  # zlib level; higher levels take twice as long and do not shrink files this small


class Unpacked(NamedTuple):
    """Outcome of `unpack`.

    Attributes:
        layout: The `data.layout` of the set.
        num_written: Images written by this call.
        num_kept: Images that were already there.
        seconds: Duration of writing.
    """

    layout: str
    num_written: int
    num_kept: int
    seconds: float


def unpack(source: Path, out: Path) -> Unpacked:
    """Write the images of a packed set as `out`/<split>/<class>/<class>_00000.png, skipping images that already exist.

    The whole source is read and checked before the first image is written. An image gets its final name only when
    it is complete.

    Args:
        source: CIFAR-10 or CIFAR-100 (Python or binary version) or STL-10: its folder, the folder that contains it, or
            the publisher's tar archive, which is extracted beside `out` meanwhile.
        out: New folder, or the folder of an interrupted call.

    Raises:
        ConfigError: If a folder or the archive is invalid, a file is missing or not as published, or `out` contains
            images of another set.
    """
    source, out = (Path(os.path.abspath(os.path.expanduser(path))) for path in (source, out))
    if messages := _invalid_folders(source, out):
        raise ConfigError(messages)
    if source.is_dir():
        return _unpack_folder(source, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_partials([out])
    with temporary_folder(out) as extracted:
        extract_tar(source, extracted)
        try:
            return _unpack_folder(extracted, out)
        except ConfigError as error:
            raise ConfigError([line.replace(str(extracted), str(source)) for line in error.problems]) from error


def _unpack_folder(source: Path, out: Path) -> Unpacked:
    packed = open_packed(source)
    blocks = list(packed.blocks())
    _record_set(out, packed.format.layout)
    signals.keep(lambda: "images that are written are kept")
    started = time.perf_counter()
    images = list(_images(out, blocks))
    missing = [(file, pixels) for file, pixels in images if not file.exists()]
    remove_partials(file for file, _ in missing)
    for file, pixels in track(missing, len(missing), "unpack"):
        _write_png(file, pixels)
    _check_counts(out, blocks)
    seconds = time.perf_counter() - started
    return Unpacked(packed.format.layout, len(missing), len(images) - len(missing), seconds)


def _invalid_folders(source: Path, out: Path) -> list[str]:
    real_source, real_out = source.resolve(), out.resolve()
    if not source.is_file() and not source.is_dir():
        return [f"SOURCE={source} does not exist"]
    if real_source == real_out or real_source in real_out.parents or real_out in real_source.parents:
        return [f"OUT={out} must be outside SOURCE={source}, which is left as published"]
    if out.is_dir() and any(out.iterdir()) and not (out / _SET_FILE).is_file():
        return [f"OUT={out} contains files not made by `data unpack`; choose a new or an empty folder"]
    return []


def _record_set(out: Path, layout: str) -> None:
    """Write the name of the set into the folder of its images, or compare it with the one recorded there."""
    file = out / _SET_FILE
    recorded = json.loads(file.read_text()).get("set") if file.is_file() else layout
    if recorded != layout:
        raise ConfigError([f"OUT={out} contains {recorded}, but SOURCE is {layout}; choose another folder"])
    out.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"set": layout}) + "\n")


def _images(out: Path, blocks: Sequence[Block]) -> Iterator[tuple[Path, np.ndarray]]:
    """Yield the file and the pixels of each image."""
    index = dict.fromkeys((block.split for block in blocks), 0)
    for split, pixels, class_names in blocks:
        for number in range(len(pixels)):
            folder = out / split if class_names is None else out / split / class_names[number]
            yield folder / f"{folder.name}_{index[split]:05d}.png", pixels[number]
            index[split] += 1


def _write_png(file: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        Image.fromarray(np.ascontiguousarray(pixels)).save(partial, format="PNG", compress_level=_COMPRESSION)


def _check_counts(out: Path, blocks: Sequence[Block]) -> None:
    """Raise ConfigError if the number of images in a split is wrong."""
    expected = dict.fromkeys((block.split for block in blocks), 0)
    for block in blocks:
        expected[block.split] += len(block.pixels)
    messages = []
    for split, num_expected in expected.items():
        num_images = sum(1 for _ in (out / split).rglob("*.png"))
        if num_images != num_expected:
            cure = "remove images that are not of this set"
            messages.append(f"OUT={out / split} contains {num_images} images, but SOURCE has {num_expected}; {cure}")
    if messages:
        raise ConfigError(messages)
