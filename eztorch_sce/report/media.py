"""Images of a report: thumbnails of the records of a sample in atlases, and animation strips of some records."""

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from eztorch_sce.files import replacing
from eztorch_sce.report.samples import Sample

TILE_PX = 64
"""Side of a thumbnail in pixels."""
STRIP_PX, STRIP_FRAMES = 96, 8
"""Side of a frame of a strip in pixels, and the frames of a video's strip; an image has one."""

_ATLAS_TILES = 32  # tiles per row and column: 2048 pixels, which phones decode in one piece
_TILE_QUALITY = 60
_STRIP_QUALITIES = (72, 60, 48, 36, 24)
_TRIED = 24  # strips encoded to choose the quality

RecordKey = tuple[int, int]
"""Split (0 train, 1 test) and row in that split of a record."""

Pixels = npt.NDArray[np.uint8]


class Place(NamedTuple):
    """Place of a tile.

    Attributes:
        atlas: Index of the atlas.
        column: Tiles to its left.
        row: Tiles above it.
    """

    atlas: int
    column: int
    row: int


def place_of(tile: int) -> Place:
    """Return the place of a tile: atlases are filled row by row, 32 tiles each.

    >>> place_of(0), place_of(33), place_of(1024)
    (Place(atlas=0, column=0, row=0), Place(atlas=0, column=1, row=1), Place(atlas=1, column=0, row=0))
    """
    atlas, number = divmod(tile, _ATLAS_TILES**2)
    return Place(atlas, number % _ATLAS_TILES, number // _ATLAS_TILES)


@dataclass
class Images:
    """Images of the records of a sample.

    Attributes:
        num_tiles: Number of rows of the sample. Tile k of the atlases is row k.
        atlases: WebP images of tiles, see `place_of`.
        strips: Frames of a record beside each other, WebP, by record.
        digests: Digest of the pixels of each tile, uint64 (N,), equal for equal images; 0 without an image.
        unreadable: Why rows of the sample have no image.
        labels: Class index of records outside of the sample that have strips.
        note: Why there are no images at all; empty if there are.
    """

    num_tiles: int
    atlases: list[bytes] = field(default_factory=list)
    strips: dict[RecordKey, bytes] = field(default_factory=dict)
    digests: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    unreadable: dict[int, str] = field(default_factory=dict)
    labels: dict[RecordKey, int] = field(default_factory=dict)
    note: str = ""

    @property
    def num_bytes(self) -> int:
        """Bytes of all images."""
        return sum(map(len, self.atlases)) + sum(map(len, self.strips.values()))

    def with_strips(self, budget: int) -> "Images":
        """Return the same images with as many of the first strips as fit into a number of bytes."""
        sizes = np.cumsum([len(strip) for strip in self.strips.values()])
        fitting = int(np.searchsorted(sizes, budget, side="right"))
        return replace(self, strips=dict(list(self.strips.items())[:fitting]))

    def has_tile(self, row: int) -> bool:
        """Return whether a row of the sample has an image."""
        return 0 <= row < self.num_tiles and bool(self.atlases) and row not in self.unreadable

    def save(self, file: Path, key: str) -> None:
        """Write all images to a zip file.

        Args:
            file: The file.
            key: What the images were made from, which `load` compares.
        """
        index = {
            "key": key,
            "num_tiles": self.num_tiles,
            "atlases": len(self.atlases),
            "strips": list(self.strips),
            "unreadable": list(self.unreadable.items()),
            "labels": list(self.labels.items()),
        }
        with replacing(file) as partial, zipfile.ZipFile(partial, "w") as archive:
            archive.writestr("index.json", json.dumps(index))
            archive.writestr("digests.bin", self.digests.astype("<u8").tobytes())
            for number, atlas in enumerate(self.atlases):
                archive.writestr(f"tiles_{number}.webp", atlas)
            for (split, row), strip in self.strips.items():
                archive.writestr(f"strip_{split}_{row}.webp", strip)

    @classmethod
    def load(cls, file: Path, key: str) -> "Images | None":
        """Read what `save` wrote; None if there is no such file, or if its key does not start with `key`."""
        try:
            with zipfile.ZipFile(file) as archive:
                index: dict[str, Any] = json.loads(archive.read("index.json"))
                if not index["key"].startswith(key):
                    return None
                return cls(
                    index["num_tiles"],
                    [archive.read(f"tiles_{number}.webp") for number in range(index["atlases"])],
                    {(split, row): archive.read(f"strip_{split}_{row}.webp") for split, row in index["strips"]},
                    np.frombuffer(archive.read("digests.bin"), "<u8").astype(np.uint64),
                    dict(index["unreadable"]),
                    {(split, row): label for (split, row), label in index["labels"]},
                )
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            return None  # made again


@dataclass
class Media:
    """What a page shows of records.

    Attributes:
        samples: The records with their features, one sample per network.
        images: Images of each sample; the same object for samples of the same records.
        coordinates: Further coordinates on the map of each sample, float32 (N, 2), by name, such as "t-SNE".
    """

    samples: list[Sample]
    images: list[Images]
    coordinates: list[dict[str, npt.NDArray[np.float32]]]


class AtlasWriter:
    """Atlases that are filled tile by tile, in any order. Tiles that are never set stay black.

    Args:
        num_tiles: Number of tiles.
    """

    def __init__(self, num_tiles: int) -> None:
        rows = math.ceil(num_tiles / _ATLAS_TILES)
        self._canvas = np.zeros((rows * TILE_PX, _ATLAS_TILES * TILE_PX, 3), np.uint8)

    def put(self, tile: int, pixels: Pixels) -> None:
        """Set a tile, uint8 (64, 64, 3)."""
        atlas, column, row = place_of(tile)
        top, left = (atlas * _ATLAS_TILES + row) * TILE_PX, column * TILE_PX
        self._canvas[top : top + TILE_PX, left : left + TILE_PX] = pixels

    def encode(self) -> list[bytes]:
        """Return the atlases as WebP."""
        height = _ATLAS_TILES * TILE_PX
        tops = range(0, len(self._canvas), height)
        return [_webp(self._canvas[top : top + height], _TILE_QUALITY) for top in tops]


def encode_strips(strips: Mapping[RecordKey, Pixels], budget: int) -> dict[RecordKey, bytes]:
    """Return strips as WebP, in the best quality in which all of them fit.

    Args:
        strips: Frames, uint8 (T, 96, 96, 3), by record, the most important first.
        budget: Bytes of all strips. If they do not fit even in the lowest quality, the last ones are left out.
    """
    tried = list(strips.values())[:: max(1, len(strips) // _TRIED)]
    quality = _STRIP_QUALITIES[-1]
    for quality in _STRIP_QUALITIES:
        mean_bytes = sum(len(_webp(_side_by_side(frames), quality)) for frames in tried) / max(1, len(tried))
        if mean_bytes * len(strips) <= 0.95 * budget:  # the strips that were tried may be small ones
            break
    encoded: dict[RecordKey, bytes] = {}
    left = budget
    for key, frames in strips.items():
        strip = _webp(_side_by_side(frames), quality)
        left -= len(strip)
        if left < 0:
            break
        encoded[key] = strip
    return encoded


def num_frames(strip: bytes) -> int:
    """Return the number of frames of a strip."""
    with Image.open(io.BytesIO(strip)) as image:
        return int(image.width // image.height)


def _side_by_side(frames: Pixels) -> Pixels:
    """Return frames (T, H, W, 3) as one image (H, T * W, 3)."""
    return np.concatenate(list(frames), axis=1)


def _webp(pixels: Pixels, quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", quality=quality, method=4)
    return stream.getvalue()
