"""Names of the images of a video stored as frames: which of them form one sequence, and in which order."""

import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TypeAlias

from eztorch_sce.data.leftovers import skipped_as
from eztorch_sce.data.media import IMAGE_SUFFIXES, suffix_of

_Numbers: TypeAlias = dict[str, tuple[int, ...]]  # the numbers in each name, by name

_NUMBER = re.compile(r"([0-9]+)")
_FRAME_TEXT = re.compile(r"(?:frame|image|img|im|f)?[-_]?\*", re.IGNORECASE)
_WORDS = re.compile(r"[^a-z]+")
_CHANNELS = frozenset(
    ("cam", "depth", "disparity", "flow", "ir", "left", "mask", "normal", "right", "rgb", "thermal", "u", "v", "x", "y")
)
_MIN_DENSITY = 0.25  # fraction of the numbers between the first and the last that a sequence has at least


def image_names(names: Iterable[str]) -> list[str]:
    """Return the names of images, without those that other programs leave behind."""
    return [name for name in names if suffix_of(name) in IMAGE_SUFFIXES and skipped_as(name) is None]


def frames_path(folder: str, pattern: str | None) -> str:
    """Return the path of a record of kind "frames": the folder, or the images in it that match a pattern."""
    return os.path.join(folder, pattern) if pattern else folder


def split_frames_path(path: str) -> tuple[str, str | None]:
    """Return the folder and the pattern of `frames_path`."""
    folder, name = os.path.split(path)
    if any(mark in name for mark in "*?[") and not os.path.isdir(path):
        return folder, name
    return path, None


def in_order(names: Iterable[str]) -> list[str]:
    """Return names sorted as people number them.

    >>> in_order(["frame_10.jpg", "frame_9.jpg"])
    ['frame_9.jpg', 'frame_10.jpg']
    """
    return sorted(names, key=_natural)


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Return the names that match a pattern such as `img_*.jpg`."""
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def frame_sequence(names: Sequence[str], pattern: str | None = None) -> list[str]:
    """Return the images of one video in order.

    Args:
        names: Names of all images in the folder.
        pattern: Pattern that chooses some of them; None takes all.

    Raises:
        ValueError: If no image matches, or there are several sequences. The message describes them.
    """
    chosen = matching(names, pattern) if pattern else list(names)
    if not chosen:
        found = describe(names)
        raise ValueError(f"contains no image that matches {pattern}, only {found}" if names else "contains no image")
    parsed = ImageNames(chosen)
    # The user may choose names with several numbers, such as dates; names of different text are never one video.
    if len(parsed.by_text) > 1 or (pattern is None and len(parsed.groups) > 1):
        raise ValueError(f"contains several image sequences: {describe(chosen)}")
    return in_order(chosen)


def sequences(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the images of each sequence, by a pattern that matches no other name.

    >>> list(sequences(["img_1.jpg", "img_2.jpg", "flow_x_1.jpg", "flow_x_2.jpg"]))
    ['img_*.jpg', 'flow_x_*.jpg']
    """
    names = list(names)
    return {_pattern(group, names): list(group) for group in ImageNames(names).groups}


def describe(names: Iterable[str], num: int = 5) -> str:
    """Return the patterns of the sequences with the number of their images, for messages."""
    counts = [f"{pattern} ({len(group)})" for pattern, group in sequences(names).items()]
    more = f" and {len(counts) - num} more" if len(counts) > num else ""
    return ", ".join(counts[:num]) + more


class ImageNames:
    """The names of the images in a folder, as text and numbers.

    A sequence is a set of names that differ in one number, or in several if none of them is used twice, as in dates.
    Names without a number are one sequence.

    Args:
        names: The names.

    Attributes:
        by_text: The numbers in each name, by the text of the names with * for each number; "" is the text of names
            without a number.
        groups: The numbers in each name, by name, for each sequence.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.by_text: dict[str, _Numbers] = {}
        for name in names:
            pieces = _NUMBER.split(_stem(name))
            text = "*".join(pieces[::2]) if len(pieces) > 1 else ""
            self.by_text.setdefault(text, {})[name] = tuple(map(int, pieces[1::2]))
        self.groups = [group for alike in self.by_text.values() for group in _split(alike)]

    @property
    def are_numbered(self) -> bool:
        """Whether all names are those of the frames of one video, such as 00000001.jpg or frame_1.png."""
        return len(self.groups) == 1 and _FRAME_TEXT.fullmatch(next(iter(self.by_text))) is not None

    @property
    def are_mostly_numbered(self) -> bool:
        """Whether most names, but not all, are those of the frames of one video: the others may be a cover."""
        if len(self.groups) == 1:
            return False
        largest = max(self.groups, key=len)
        text = next(text for text, alike in self.by_text.items() if largest.items() <= alike.items())
        is_sequence = len(largest) > 2 and _FRAME_TEXT.fullmatch(text) is not None and _are_regular(largest)
        return is_sequence and 2 * len(largest) > sum(map(len, self.groups))

    @property
    def is_sequence(self) -> bool:
        """Whether the names are one sequence of several images, spaced as frames are, whatever their text."""
        return len(self.groups) == 1 and len(self.groups[0]) > 1 and "" not in self.by_text and self.are_regular

    @property
    def are_regular(self) -> bool:
        """Whether the numbers of the first sequence are spaced as frames are: close to each other, or mostly evenly."""
        return _are_regular(self.groups[0])

    @property
    def are_synchronized(self) -> bool:
        """Whether several sequences have the same numbers, as RGB and optical flow of one video have."""
        if len(self.groups) == 1:
            return False
        groups = [group for group in self.groups if len(group) > 2 and all(group.values())]
        numbers = [frozenset(row[-1] for row in group.values()) for group in groups]
        alike = max((sum(other == own for other in numbers) for own in numbers), default=0)
        return alike > 1 and any(map(_are_regular, groups))

    @property
    def name_channels(self) -> bool:
        """Whether names contain a word for one of several sequences of a video, such as flow or left."""
        return any(word in _CHANNELS for text in self.by_text for word in _WORDS.split(text.lower()))


def _are_regular(group: _Numbers) -> bool:
    values = sorted({row[-1] for row in group.values()})
    if len(values) < 2:
        return True
    steps = [later - earlier for earlier, later in pairwise(values)]
    [(_, most_common)] = Counter(steps).most_common(1)
    return 2 * most_common >= len(steps) or len(values) >= _MIN_DENSITY * (values[-1] - values[0] + 1)


def _split(rows: _Numbers) -> list[_Numbers]:
    """Split names of the same text into sequences: no number may occur twice in one."""
    if not all(rows.values()) or _are_distinct(rows):
        return [rows]
    if len({suffix_of(name) for name in rows}) > 1:
        return [part for group in _grouped(rows, lambda name, _: suffix_of(name)) for part in _split(group)]
    columns = list(zip(*rows.values(), strict=True))
    # The number of the frame is the one with the most values; the others tell the sequences apart.
    number = max(range(len(columns)), key=lambda column: (len(set(columns[column])), column))
    return _grouped(rows, lambda _, row: str(row[:number] + row[number + 1 :]))


def _are_distinct(rows: _Numbers) -> bool:
    """Return whether one of the numbers alone tells all names apart."""
    return any(len(set(column)) == len(rows) for column in zip(*rows.values(), strict=True))


def _grouped(rows: _Numbers, key: Callable[[str, tuple[int, ...]], str]) -> list[_Numbers]:
    groups: dict[str, _Numbers] = {}
    for name, row in rows.items():
        groups.setdefault(key(name, row), {})[name] = row
    return list(groups.values())


def _pattern(group: _Numbers, names: list[str]) -> str:
    """Return a pattern that matches the names of a group and no others."""
    first = next(iter(group))
    stem, suffix = os.path.splitext(first)
    pieces = _NUMBER.split(stem)
    if len(pieces) == 1:
        return glob.escape(first) if len(group) == 1 else "*"
    varies = [len(set(column)) > 1 for column in zip(*group.values(), strict=True)]
    if not any(varies):
        varies[-1] = True
    ending = suffix if len({os.path.splitext(name)[1] for name in group}) == 1 else ".*"
    for star in ("*", "[0-9]*"):
        texts = [
            glob.escape(piece) if index % 2 == 0 else star if varies[index // 2] else piece
            for index, piece in enumerate(pieces)
        ]
        pattern = "".join(texts) + ending
        if len(matching(names, pattern)) == len(group):
            break
    return pattern


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that compares digits by their value."""
    parts = _NUMBER.split(name)  # text and numbers alternate
    return [(int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)]
