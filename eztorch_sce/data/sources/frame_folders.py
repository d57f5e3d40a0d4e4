"""Folders of numbered images: which of them are videos stored as frames."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from eztorch_sce.data.frame_names import ImageNames, sequences
from eztorch_sce.data.sources.split_folders import part_of

_IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "photos", "pictures"})  # <class>/images/0001.jpg


@dataclass
class FrameFolders:
    """The folders of images of a tree, by what their names say.

    Attributes:
        single: Folders that each hold the frames of a video.
        several: Folders that hold several sequences, or the frames of a video and other images; the names by pattern.
        numbered: Folders of numbered images that are more likely images than frames.
    """

    single: list[str] = field(default_factory=list)
    several: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    numbered: list[str] = field(default_factory=list)


def find_frame_folders(root: str, images: dict[str, list[str]], videos: Iterable[str]) -> FrameFolders:
    """Return which folders of images are videos stored as frames.

    They lie at least two levels down (`<class>/<video>/`), hold no other media, and number their images
    (`00000001.jpg`, `frame_1.png`) without large gaps: in at least one of them, the numbers are close to each other or
    mostly evenly spaced. Class folders of numbered images are images.

    Args:
        root: Folder of the tree.
        images: Names of the images by folder.
        videos: Folders that hold videos.
    """
    found = FrameFolders()
    others = set(videos)
    above = ancestors([*images, *others])
    is_certain = False
    start = len(os.path.join(root, ""))
    for folder, names in images.items():
        if folder in above or folder in others or len(folder) < start:
            continue
        parts = folder[start:].split(os.sep)
        level = len(parts) - (part_of(parts[0]) is not None)
        if level < 1:
            continue
        parsed = ImageNames(names)
        is_class = level == 1 or (level == 2 and parts[-1].lower() in _IMAGE_FOLDERS)
        has_several = parsed.are_synchronized or parsed.are_mostly_numbered
        if has_several and (not is_class or (parsed.are_synchronized and parsed.name_channels)):
            found.several[folder] = sequences(names)
        elif parsed.are_numbered and not is_class:
            found.single.append(folder)
            is_certain = is_certain or parsed.is_sequence
        elif parsed.is_sequence:
            found.numbered.append(folder)
    if not is_certain:
        found.single = []
    return found


def ancestors(folders: Iterable[str]) -> set[str]:
    """Return all folders above some folders."""
    above: set[str] = set()
    for folder in folders:
        parent = os.path.dirname(folder)
        while parent not in above and parent != folder:
            above.add(parent)
            folder, parent = parent, os.path.dirname(parent)
    return above
