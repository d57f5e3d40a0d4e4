"""Files of a list: where they are on disk, and under which name if not the listed one."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from eztorch_sce import signals
from eztorch_sce.data.leftovers import skipped_as
from eztorch_sce.data.media import IMAGE_SUFFIXES, KNOWN_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from eztorch_sce.data.sources.manifest import class_name
from eztorch_sce.data.sources.media_table import find_table
from eztorch_sce.data.sources.walk import list_if_readable
from eztorch_sce.errors import did_you_mean, shorten

_SPELLING = "files found in other case or with accents encoded differently"
_SUFFIX = "videos found with another suffix"
_FRAMES = "videos found as folders of frames"
_STEM = "files found with a suffix that is not listed"
_ANIMATED = ".gif"  # often a preview that lies beside the video


class _FoundFile(NamedTuple):
    """A listed file that exists.

    Attributes:
        path: Absolute path.
        kind: "video", "image" or "frames".
        difference: How the listed path differs from that on disk, "" if it does not.
    """

    path: str
    kind: str
    difference: str = ""


class FoundFiles(NamedTuple):
    """The files of a list, as columns.

    Attributes:
        folders: Absolute paths of the folders.
        folder_of: Index into `folders` of each file, -1 if the file does not exist.
        names: Name of each file, "" if it does not exist.
        kinds: "video", "image" or "frames", "" if it does not exist.
        differences: How the listed path differs from that on disk, by row, if it does.
    """

    folders: list[str]
    folder_of: list[int]
    names: list[str]
    kinds: list[str]
    differences: dict[int, str]

    def path(self, row: int) -> str:
        """Return the absolute path of a file that exists."""
        return os.path.join(self.folders[self.folder_of[row]], self.names[row])

    def notes(self, paths: Sequence[str], where: str) -> list[str]:
        """Return a sentence for each way in which listed paths differ from those on disk."""
        examples: dict[str, list[str]] = {}
        for row, difference in self.differences.items():
            examples.setdefault(difference, []).append(f"{paths[row]} as {self.names[row]}")
        return [f"{where}: {how}: {shorten(each, num=1)}" for how, each in examples.items()]


class ListedFiles:
    """Finds listed files, reading each folder once: querying files one by one takes minutes on a network disk.

    A missing video may be found with another video suffix, and a name without a suffix with any, if there is one such
    file. Folders of frames replace missing videos if no listed video exists. Upper and lower case and the encoding of
    accents may differ. Nothing else is replaced: never a video by an image.

    Args:
        base: Folder that listed paths are relative to.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        table = find_table(base)
        known = table.records.kinds_by_folder() if table is not None and not table.mismatch else {}
        self._folders: dict[str, _Folder | None] = {}
        self._known: Mapping[str, dict[str, str]] = known

    def locate(self, path: str) -> str | None:
        """Return the absolute path of a listed path that exists exactly so, else None. No folder is listed."""
        if not path or path.strip("./\\") == "":
            return None
        for text in (path, path.replace("\\", "/")):
            file = os.path.join(self.base, os.path.expanduser(text))
            if os.path.lexists(file):
                return os.path.normpath(file)
        return None

    def exists(self, path: str) -> bool:
        """Return whether a listed path exists exactly so."""
        return self.locate(path) is not None

    def find_all(self, paths: Sequence[str]) -> FoundFiles:
        """Return the files of listed paths."""
        codes: dict[str, int] = {}
        found = FoundFiles([], [], [], [], {})
        of_text: dict[str, tuple[int, _Folder | None, Mapping[str, str]]] = {}  # folder by its listed path
        for row, path in enumerate(self._with_slashes(paths)):
            signals.poll()
            cut = path.rfind("/") + 1
            text, name = path[:cut], path[cut:]
            if text not in of_text:
                folder = os.path.normpath(os.path.join(self.base, text))
                listing = self._folder(folder)
                of_text[text] = codes.setdefault(folder, len(codes)), listing, listing.known if listing else {}
            code, listing, known = of_text[text]
            kind, difference = known.get(name), ""
            if kind is None and listing and name.strip("."):
                name, kind, difference = listing.find(name)
            if kind is None and (file := self._find_otherwise(path)):
                folder, name = os.path.split(file.path)
                code, kind, difference = codes.setdefault(folder, len(codes)), file.kind, file.difference
            if difference:
                found.differences[row] = difference
            found.folder_of.append(-1 if kind is None else code)
            found.names.append("" if kind is None else name)
            found.kinds.append(kind or "")
        found.folders.extend(codes)
        self._drop_frames(found)
        return found

    def _with_slashes(self, paths: Sequence[str]) -> Sequence[str]:
        r"""Replace the backslashes of Windows, unless they belong to the names of existing files."""
        windows = [path for path in paths if "\\" in path]
        if not windows or any(map(os.path.lexists, map(self._absolute, windows[:: max(1, len(windows) // 20)]))):
            return paths
        return [path.replace("\\", "/") for path in paths]

    def _drop_frames(self, found: FoundFiles) -> None:
        """Treat folders of frames that replace missing videos as missing, unless all listed videos are such folders."""
        frames = [row for row, difference in found.differences.items() if difference == _FRAMES]
        step = max(1, len(frames) // 20)
        if frames and ("video" in found.kinds or not all(_has_image(found.path(row)) for row in frames[::step])):
            for row in frames:
                found.folder_of[row], found.names[row], found.kinds[row] = -1, "", ""
                del found.differences[row]

    def hint(self, path: str) -> str:
        """Return what is on disk near a missing file, in parentheses, or ""."""
        folder, name = os.path.split(self._absolute(path.replace("\\", "/")))
        listing = self._folder(folder)
        if listing is None:
            while listing is None and folder != os.path.dirname(folder):
                folder, name = os.path.split(folder)
                listing = self._folder(folder)
            near = did_you_mean(name, listing.names[:1000]) if listing else ""
            return f" (the folder {os.path.join(folder, name)} does not exist{near})"
        spelled = listing.by_spelling.get(_spelling(name), [])
        alike = spelled or listing.by_stem.get(_stem(name), [])
        if alike:
            return f" ({shorten(sorted(alike))} {'are' if len(alike) > 1 else 'is'} there)"
        near = did_you_mean(name, listing.names[:1000])
        return f" ({near.removeprefix('; ')})" if near else ""

    def folder_below(self, path: str) -> str | None:
        """Return the folder directly below the base from which a missing path is found, or None."""
        head, name = os.path.split(path.replace("\\", "/"))
        subfolders = sorted(entry.path for entry in os.scandir(self.base) if entry.is_dir()) if name else []
        for folder in subfolders:
            listing = self._folder(os.path.normpath(os.path.join(folder, head)))
            if listing and listing.find(name)[1] is not None:
                return folder
        return None

    def _absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self.base, os.path.expanduser(path)))

    def _find_otherwise(self, path: str) -> _FoundFile | None:
        """Return the file of a path that starts with ~, ends in a slash, or whose folder is spelled differently."""
        for text in dict.fromkeys((path, path.replace("\\", "/"))):
            absolute = self._absolute(text)
            if not text or os.path.join(self.base, "").startswith(os.path.join(absolute, "")):
                continue  # a folder that contains the others
            folder, name = os.path.split(absolute)
            respelled = self._respelled(folder)
            listing = self._folder(respelled) if respelled else None
            if respelled and listing:
                name, kind, difference = listing.find(name)
                if kind:
                    difference = difference or ("" if respelled == folder else _SPELLING)
                    return _FoundFile(os.path.join(respelled, name), kind, difference)
        return None

    def _respelled(self, folder: str) -> str | None:
        """Return the existing folder whose path differs only in its spelling, if there is exactly one."""
        if self._folder(folder) is not None:
            return folder
        above, name = os.path.split(folder)
        parent = self._respelled(above) if name else None
        listing = self._folder(parent) if parent is not None else None
        if parent is None or listing is None:
            return None
        if name in listing.kinds:
            alike = [name]
        else:
            alike = [
                other for other in listing.by_spelling.get(_spelling(name), []) if listing.kinds[other] == "frames"
            ]
        return os.path.join(parent, alike[0]) if len(alike) == 1 else None

    def _folder(self, folder: str) -> "_Folder | None":
        """Return the content of a folder, None if it does not exist."""
        if folder not in self._folders:
            kinds = self._known.get(folder)
            exists = kinds is not None or os.path.isdir(folder)
            self._folders[folder] = _Folder(folder, kinds) if exists else None
        return self._folders[folder]


class _Folder:
    """The content of a folder.

    Args:
        path: The folder.
        kinds: Kind of each of its media, as far as known; None lists the folder.
    """

    def __init__(self, path: str, kinds: dict[str, str] | None) -> None:
        self.path = path
        self._kinds = kinds
        self._is_complete = False

    @property
    def known(self) -> Mapping[str, str]:
        """Kind of some of the files and sub-folders by name: those in a table, or all if there is no table."""
        return self.kinds if self._kinds is None else self._kinds

    def kind(self, name: str) -> str | None:
        """Return the kind of a file or sub-folder, None if it does not exist."""
        if self._kinds is not None and name in self._kinds:
            return self._kinds[name]
        if (kind := self.kinds.get(name)) is not None:
            return kind
        # Some names are skipped when a folder is listed, and all in a folder that may be entered but not read.
        file = os.path.join(self.path, name)
        may_exist = skipped_as(name) is not None or not self.kinds
        return _kind(file, os.path.isdir(file)) if may_exist and os.path.lexists(file) else None

    @property
    def kinds(self) -> dict[str, str]:
        """Kind of each file and sub-folder by name, "frames" for all sub-folders."""
        if self._kinds is None or not self._is_complete:
            self._is_complete = True
            subfolders, files = list_if_readable(self.path)  # files may be readable in a folder that is not
            self._kinds = {name: _kind(name, False) for name in files} | dict.fromkeys(subfolders, "frames")
        return self._kinds

    @property
    def names(self) -> list[str]:
        """Names of the files and sub-folders."""
        return list(self.kinds)

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """Names by what precedes their media suffix."""
        return _names_by(_stem, self.kinds)

    @cached_property
    def by_spelling(self) -> dict[str, list[str]]:
        """Names by their characters without case."""
        return _names_by(_spelling, self.kinds)

    def find(self, name: str) -> tuple[str, str | None, str]:
        """Return (name, kind, difference) of the only file that a listed name matches, with kind None if none does."""
        if kind := self.kind(name):
            return name, kind, ""
        if alike := self.by_spelling.get(_spelling(name)):
            composed = [other for other in alike if class_name(other) == class_name(name)]
            alike = composed or alike
            return (alike[0], self.kinds[alike[0]], _SPELLING) if len(alike) == 1 else (name, None, "")
        suffix, stem = suffix_of(name), _stem(name)
        same_stem = self.by_stem.get(stem, [])
        if suffix in VIDEO_SUFFIXES:
            videos = [other for other in same_stem if suffix_of(other) in VIDEO_SUFFIXES - {_ANIMATED}]
            if len(videos) == 1:
                return videos[0], "video", _SUFFIX
            if not videos and self.kinds.get(stem) == "frames":
                return stem, "frames", _FRAMES
        if suffix not in KNOWN_SUFFIXES:
            media = [other for other in same_stem if suffix_of(other) in KNOWN_SUFFIXES]
            if len(media) == 1:
                return media[0], self.kinds[media[0]], _STEM
        return name, None, ""


def _names_by(key: Callable[[str], str], names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names in lists, by their keys."""
    by_key: dict[str, list[str]] = {}
    for name in names:
        by_key.setdefault(key(name), []).append(name)
    return by_key


def _has_image(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(suffix_of(entry.name) in IMAGE_SUFFIXES for entry in entries)
    except OSError:
        return False


def _kind(name: str, is_folder: bool) -> str:
    if is_folder:
        return "frames"
    suffix = suffix_of(name)
    return "image" if suffix in KNOWN_SUFFIXES and suffix not in VIDEO_SUFFIXES else "video"


def _stem(name: str) -> str:
    """Return a name without a media suffix."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in KNOWN_SUFFIXES else name


def _spelling(name: str) -> str:
    """Return a key that is equal for names that differ in case and Unicode normalization."""
    return class_name(name).casefold()
