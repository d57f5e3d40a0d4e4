"""What the files of a folder are: videos, images, or the frames of videos. Nothing ambiguous is guessed."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eztorch_sce.data.frame_names import describe, frame_sequence, image_names, matching, sequences
from eztorch_sce.data.leftovers import HIDDEN, LEFTOVER
from eztorch_sce.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, ignored_as, suffix_of
from eztorch_sce.data.sources.frame_folders import FrameFolders, ancestors, find_frame_folders
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import KINDS, Records
from eztorch_sce.data.sources.walk import OWN_FILES, PREPARED_FILE, RUNS, Skipped, walk
from eztorch_sce.errors import ConfigError, counted, shorten, typed

UNREADABLE = "unreadable folders"

_NOT_SUFFIXES = (LEFTOVER, HIDDEN, UNREADABLE, RUNS)
_NUM_SUFFIXES = 8  # suffixes of other files that are counted one by one
_COLOR_NAMES = ("img", "image", "frame", "rgb")
_NUM_CHECKED = 3  # frame folders of a list that are looked into when it is opened

_NAMES = {"video": "videos", "image": "images", "frames": "frame folders"}
_KINDS_CURE = (
    "set data.kind=video or data.kind=image to use one kind and ignore the other, or data.kind=frames to read each "
    "folder of images as a video"
)
_FRAMES_CURE = "set data.kind=image to read every image, or data.kind=frames to read each folder of images as a video"


class MediaChoice(NamedTuple):
    """The settings that say what ambiguous files are.

    Attributes:
        kind: `data.kind`: "video", "image" or "frames"; None if the files decide.
        frames_pattern: `data.frames_pattern`: the names of the images that are frames; None takes all.
    """

    kind: str | None = None
    frames_pattern: str | None = None

    @property
    def wanted(self) -> str | None:
        """The kind of record to use; None if the files decide."""
        return "frames" if self.frames_pattern else self.kind

    @property
    def setting(self) -> str:
        """The setting that chooses the kind, for messages."""
        return f"data.frames_pattern={self.frames_pattern}" if self.frames_pattern else f"data.kind={self.kind}"


ANY = MediaChoice()
"""The files decide."""


@dataclass
class Listing:
    """The files below a folder.

    Attributes:
        root: The folder.
        videos: Names of the videos by folder.
        images: Names of the images by folder.
        others: Number of other files by folder and suffix.
        skipped: What the walk left out.
        are_copies: Whether `data prepare to=frames` made the folder, so that all images are frames.
    """

    root: str
    videos: dict[str, list[str]] = field(default_factory=dict)
    images: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, Counter[str]] = field(default_factory=dict)
    skipped: Skipped = field(default_factory=Skipped)
    are_copies: bool = False

    @classmethod
    def of(cls, root: str) -> "Listing":
        """Return the files below a folder. None of them is opened."""
        listing = cls(root, are_copies=_are_copies(root))
        for folder, _, files in walk(root, listing.skipped):
            videos, images = [], []
            others: Counter[str] = Counter()
            for name in files:
                suffix = suffix_of(name)
                if suffix in IMAGE_SUFFIXES:
                    images.append(name)
                elif suffix in VIDEO_SUFFIXES:
                    videos.append(name)
                elif name not in OWN_FILES:
                    others[ignored_as(suffix)] += 1
            if videos:
                listing.videos[folder] = videos
            if images:
                listing.images[folder] = images
            if others:
                listing.others[folder] = others
        return listing

    def ignored(self) -> dict[str, Counter[str]]:
        """Return the numbers of files that are no media or cannot be read, by folder and what they are."""
        unreadable = Counter(map(os.path.dirname, self.skipped.unreadable))
        folders = {*self.others, *self.skipped.counts, *unreadable}
        nothing: Counter[str] = Counter()
        return {
            folder: self.others.get(folder, nothing)
            + self.skipped.counts.get(folder, nothing)
            + Counter({UNREADABLE: unreadable[folder]})
            for folder in sorted(folders)
        }

    def inside(self) -> str:
        """Return the most frequent suffixes with their counts, for messages."""
        counts = _suffix_counts(self.videos) + _suffix_counts(self.images)
        for others in self.ignored().values():
            counts.update(others)
        frequent = [f"{count} x {suffix}" for suffix, count in counts.most_common(5) if count]
        return ", ".join(frequent) or "empty folders"


class Media(NamedTuple):
    """The media below a folder.

    Attributes:
        records: The media, unlabeled, sorted by path.
        ignored: As in `Manifest`.
        notes: As in `Manifest`.
    """

    records: Records
    ignored: dict[str, int]
    notes: list[str]


def all_media(listing: Listing, where: str) -> Records:
    """Return all media of a folder, whatever their kind, as `data doctor` inspects them.

    Images that are the frames of a video count as frames, one record per sequence.

    Raises:
        ConfigError: If there are none.
    """
    _check_not_empty(listing, where)
    if listing.are_copies and not listing.videos:
        return _frames(listing, None, where)[0]
    frames = find_frame_folders(listing.root, listing.images, listing.videos)
    known = {*frames.single, *frames.several}
    return Records.from_folders(
        [
            *((folder, names, "video") for folder, names in listing.videos.items()),
            *((folder, names, "image") for folder, names in listing.images.items() if folder not in known),
            *(_frames_record(folder) for folder in frames.single),
            *((folder, list(patterns), "frames") for folder, patterns in frames.several.items()),
        ]
    )


def choose_media(listing: Listing, choice: MediaChoice, where: str) -> Media:
    """Return the media that a run uses.

    Args:
        listing: The files below a folder.
        choice: Settings that say what ambiguous files are.
        where: The setting and folder that messages name.

    Raises:
        ConfigError: If there are no media of the kind, or what the files are is ambiguous.
    """
    _check_not_empty(listing, where)
    ignored, notes = _left_out(listing)
    kind = choice.wanted or ("frames" if listing.are_copies and not listing.videos else None)
    if kind is None and listing.videos and listing.images:
        raise ConfigError([_mixed(listing, where)])
    if kind in (None, "video") and listing.videos:
        ignored |= _beside(listing.images, "videos")
        return Media(_records(listing.videos, "video"), ignored, notes)
    if not listing.images or kind == "video":
        cure = "choose another folder, or another kind"
        raise ConfigError([f"{where} contains no {kind}, only {listing.inside()}, but {choice.setting}; {cure}"])
    if kind == "frames":
        records, strays = _frames(listing, choice.frames_pattern, where)
        ignored |= _beside(listing.videos, "frame folders") | strays
        return Media(records, ignored, notes)
    if kind is None:
        frames = find_frame_folders(listing.root, listing.images, listing.videos)
        _check_unambiguous(listing.images, frames, where)
        notes += _notes(frames, listing.images)
        if frames.single:
            return Media(Records.from_folders(map(_frames_record, frames.single)), ignored, notes)
    ignored |= _beside(listing.videos, "images")
    return Media(_records(listing.images, "image"), ignored, notes)


def choose_kind(manifest: Manifest, choice: MediaChoice, where: str) -> Manifest:
    """Return the records of a list that a run uses.

    Args:
        manifest: The records of the list.
        choice: Settings that say what ambiguous files are.
        where: The setting and file that messages name.

    Raises:
        ConfigError: If the list has no records of the kind, or names images and videos.
    """
    records, kind = manifest.records, choice.wanted
    counts = records.num_by_kind()
    if kind is None and "image" in counts and len(counts) > 1:
        mixed = " and ".join(f"{count} {_NAMES[name]}" for name, count in counts.items())
        cure = f"set data.kind={' or data.kind='.join(counts)} to use only those"
        raise ConfigError([f"{where} names {mixed}; {cure}"])
    ignored = dict(manifest.ignored)
    if kind is not None and set(counts) - {kind}:
        if kind not in counts:
            found = ", ".join(f"{count} {_NAMES[name]}" for name, count in counts.items())
            raise ConfigError([f"{where} names no {kind}, only {found}, but {choice.setting}; choose another"])
        is_kind = records.kind_codes == KINDS.index(kind)
        others = records.where(~is_kind)
        suffixes = Counter("frame folders" if record.kind == "frames" else suffix_of(record.path) for record in others)
        ignored |= {f"{suffix} beside {_NAMES[kind]}": count for suffix, count in suffixes.items()}
        records = records.where(is_kind)
    if counts["frames"]:
        _check_sequences(records, choice.frames_pattern, where)
        if choice.frames_pattern:
            records = records.with_frames_pattern(choice.frames_pattern)
    return replace(manifest, records=records, ignored=ignored)


def _frames_record(folder: str) -> tuple[str, list[str], str]:
    """Return the record of a folder of frames, for `Records.from_folders`."""
    parent, name = os.path.split(folder)
    return parent, [name], "frames"


def _notes(frames: FrameFolders, images: dict[str, list[str]]) -> list[str]:
    """Return what numbered images were taken for, if they could be something else."""
    if frames.single:
        return [frames_note(len(frames.single))]
    if len(frames.numbered) == len(images) and images:
        return [f"numbered images in {counted(len(images), 'folder')} read as images (data.kind=frames reads videos)"]
    return []


def frames_note(num_folders: int) -> str:
    """Return the sentence that says that folders of numbered images are videos."""
    folders = "1 folder" if num_folders == 1 else f"{num_folders} folders"
    return f"{folders} of numbered images read as videos (data.kind=image reads images)"


def _left_out(listing: Listing) -> tuple[dict[str, int], list[str]]:
    """Return the numbers of files that are no media, and a note about what cannot be read."""
    total: Counter[str] = Counter()
    for counts in listing.ignored().values():
        total.update(counts)
    described = [f"{path} ({reason})" for path, reason in sorted(listing.skipped.unreadable.items())]
    return shorten_ignored(total), [f"cannot be read: {shorten(described)}"] if described else []


def shorten_ignored(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts with rare suffixes summed up, most frequent first, for `Manifest.ignored`."""
    others = Counter({name: count for name, count in counts.items() if name not in _NOT_SUFFIXES})
    ignored = dict(sorted(others.items(), key=lambda item: (-item[1], item[0]))[:_NUM_SUFFIXES])
    if rest := others.total() - sum(ignored.values()):
        ignored["other suffixes"] = rest
    return ignored | {name: counts[name] for name in _NOT_SUFFIXES if counts.get(name)}


def check_same_kind(train: Manifest, test: Manifest) -> None:
    """Raise ConfigError if one split has images and the other has videos."""
    if len(train.records) and len(test.records) and train.records.all_images() != test.records.all_images():
        kinds = [" and ".join(_NAMES[kind] for kind in split.records.num_by_kind()) for split in (train, test)]
        splits = f"the train split has {kinds[0]} ({train.source}), but the test split has {kinds[1]} ({test.source})"
        raise ConfigError([f"{splits}; give both the same kind of files, or choose one with data.kind"])


def _mixed(listing: Listing, where: str) -> str:
    """Return the error for a folder that holds both videos and images."""
    sides = []
    for name, files in (("video", listing.videos), ("image", listing.images)):
        folder = next(iter(files))
        total = sum(map(len, files.values()))
        example = os.path.relpath(os.path.join(folder, files[folder][0]), listing.root)
        sides.append(f"{total} {name}{'s' if total > 1 else ''} ({_suffixes(files)}; {example})")
    return f"{where} mixes {' with '.join(sides)}: {_KINDS_CURE}"


def _suffixes(files: dict[str, list[str]]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in _suffix_counts(files).most_common())


def _suffix_counts(files: dict[str, list[str]]) -> Counter[str]:
    return Counter(suffix_of(name) for names in files.values() for name in names)


def _beside(files: dict[str, list[str]], what: str) -> dict[str, int]:
    """Return the numbers of files that are ignored beside media of another kind, by suffix."""
    return {f"{suffix} beside {what}": count for suffix, count in _suffix_counts(files).most_common()}


def _named(folder: str, names: list[str]) -> str:
    return f"{folder}: {describe(names)}"


def _check_not_empty(listing: Listing, where: str) -> None:
    if not listing.videos and not listing.images:
        inside = listing.inside()
        cure = "choose another folder, with files such as .mp4, .avi, .jpg or .png"
        if inside.endswith(" .tar") or " .tar," in inside:
            cure = "set data.layout=shards to read WebDataset shards"
        raise ConfigError([f"{where} contains no video or image, only {inside}; {cure}"])


def _records(files: dict[str, list[str]], kind: str) -> Records:
    return Records.from_folders((folder, names, kind) for folder, names in files.items())


def _are_copies(root: str) -> bool:
    """Return whether `data prepare` wrote frames to a folder, by its record of the settings."""
    files = [folder / PREPARED_FILE for folder in (Path(root), Path(root).parent)]
    file = next((file for file in files if file.is_file()), None)
    try:
        settings = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except ValueError:  # another program's file of that name
        return False
    return isinstance(settings, dict) and settings.get("to") == "frames"


def _frames(listing: Listing, pattern: str | None, where: str) -> tuple[Records, dict[str, int]]:
    """Return a record per folder of images, and the number of images that are left out.

    Raises:
        ConfigError: If no image matches the pattern, or a folder has several sequences.
    """
    images = {folder: matching(names, pattern) if pattern else names for folder, names in listing.images.items()}
    images = {folder: names for folder, names in images.items() if names}
    if not images:
        folder = next(iter(listing.images))
        cure = f"its images are named otherwise, such as {_named(folder, listing.images[folder])}"
        raise ConfigError([f"data.frames_pattern={pattern} matches no image in {where}; {cure}"])
    _check_one_sequence(images, pattern, where)
    above = ancestors(images)
    folders = [folder for folder in images if folder not in above]
    num_other = sum(map(len, listing.images.values())) - sum(map(len, images.values()))
    strays = {f"images other than {pattern}": num_other} if num_other else {}
    strays |= _beside({folder: names for folder, names in images.items() if folder in above}, "frame folders")
    if pattern:
        return Records.from_folders((folder, [pattern], "frames") for folder in folders), strays
    return Records.from_folders(map(_frames_record, folders)), strays


def _check_one_sequence(images: dict[str, list[str]], pattern: str | None, where: str) -> None:
    several = [folder for folder, names in images.items() if not _is_one_sequence(names, pattern)]
    if several:
        raise ConfigError([_several_sequences(several, images[several[0]], where, "")])


def _is_one_sequence(names: list[str], pattern: str | None) -> bool:
    try:
        frame_sequence(names, pattern)
    except ValueError:
        return False
    return True


def _check_sequences(records: Records, pattern: str | None, where: str) -> None:
    """Raise ConfigError if the first frame folders of a list hold several sequences. Decoding checks every folder."""
    rows = np.flatnonzero(records.kind_codes == KINDS.index("frames"))[:_NUM_CHECKED]
    images: dict[str, list[str]] = {}
    for row in rows.tolist():
        folder = records.path(row)
        if os.access(folder, os.R_OK):  # other folders are reported when they are read
            images[folder] = image_names(os.listdir(folder))
    _check_one_sequence({folder: names for folder, names in images.items() if names}, pattern, where)


def _check_unambiguous(images: dict[str, list[str]], frames: FrameFolders, where: str) -> None:
    if frames.several:
        folders = list(frames.several)
        choice = ", or set data.kind=image to read every image"
        raise ConfigError([_several_sequences(folders, images[folders[0]], where, choice)])
    others = sorted(images.keys() - set(frames.single))
    if frames.single and others:
        verb = "holds" if len(frames.single) == 1 else "hold"
        numbered = (
            f"{counted(len(frames.single), 'folder')} {verb} the numbered frames of a video ({shorten(frames.single)})"
        )
        problem = f"{numbered}, but the images in {shorten(others)} are not numbered that way"
        raise ConfigError([f"{where}: {problem}; {_FRAMES_CURE}, or name the intended files in a list: data.list=..."])


def _several_sequences(folders: list[str], names: list[str], where: str, choice: str) -> str:
    hold = f"{counted(len(folders), 'folder')} with several image sequences, such as {_named(folders[0], names)}"
    patterns = list(sequences(names))
    pattern = next((pattern for pattern in patterns if pattern.lower().startswith(_COLOR_NAMES)), patterns[0])
    return f"{where} has {hold}; choose one, such as {typed(('data.frames_pattern', pattern))}{choice}"
