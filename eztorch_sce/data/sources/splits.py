"""The train and test splits of a data set, its location, and the openers that work for any data set."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.data.sources.list_file import from_list
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.media_kinds import MediaChoice, choose_kind
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.split_folders import split_folders
from eztorch_sce.errors import ConfigError


class Draw(NamedTuple):
    """A test split drawn at random.

    Attributes:
        fraction: Fraction of each class that is held out.
        seed: Seed of the draw.
        group: The setting `data.group`, or None.
    """

    fraction: float
    seed: int
    group: str | None = None

    def __str__(self) -> str:
        grouped = f", grouped by {self.group}" if self.group else ""
        return f"{self.fraction} of each class held out, seed {self.seed}{grouped}"


class Splits(NamedTuple):
    """The splits of a data set. If both are labeled, they have the same classes.

    Attributes:
        train: The train split.
        test: The test split, or None if the data have none.
        origin: Origin of the test split, for display, such as "folders train and val".
        draw: The draw of the test split, or None if the data define it.
        notes: Remarks to show to users, such as the number of files with the same content.
    """

    train: Manifest
    test: Manifest | None
    origin: str = ""
    draw: Draw | None = None
    notes: tuple[str, ...] = ()

    @property
    def labeled_test(self) -> Manifest:
        """The test split. Labeled data always have one."""
        assert self.test is not None
        return self.test


class Location(NamedTuple):
    """Location of a data set: the settings `data.root`, `data.list` and so on.

    Attributes:
        root: Folder of the data, or the folder that the paths in `list` are relative to.
        list: List file of the train split.
        test_root: Folder of the test split, or the folder that the paths in `test_list` are relative to.
        test_list: List file of the test split.
        annotations: Folder of the publisher's lists, or text file of the classes to keep.
        split: Number of the official split, from 1.
        missing_ok: Open what exists and note the rest in `Manifest.missing`, as `data check` does, instead of raising.
        group: The setting `data.group`: if a list has a column of that name, it becomes `Records.groups`.
        shard_image: The setting `data.shard_image`.
        shard_label: The setting `data.shard_label`.
        kind: The setting `data.kind`.
        frames_pattern: The setting `data.frames_pattern`.
    """

    root: str | None = None
    list: str | None = None
    test_root: str | None = None
    test_list: str | None = None
    annotations: str | None = None
    split: int = 1
    missing_ok: bool = False
    group: str | None = None
    shard_image: str | None = None
    shard_label: str | None = None
    kind: str | None = None
    frames_pattern: str | None = None

    @property
    def choice(self) -> MediaChoice:
        """What the files are, if that is ambiguous."""
        return MediaChoice(self.kind, self.frames_pattern)

    @property
    def folder(self) -> Path:
        """`root` as a path."""
        return Path(self.root or "")

    @property
    def annotations_path(self) -> Path | None:
        """`annotations` as a path, or None."""
        return Path(self.annotations) if self.annotations else None


def open_auto(location: Location, published: bool = False) -> Splits:
    """Open the list if there is one, else the train and test folders in the root, else the root as the train split.

    Args:
        location: Paths of the data set.
        published: As for `split_folders`.
    """
    if location.list:
        return open_list(location)
    if location.root is None:
        raise ConfigError(["data.root is not set; set data.root=<folder> or data.list=<file>"])
    folders = split_folders(location.folder, bool(location.test_list or location.test_root), published)
    if folders.test:
        location = location._replace(test_root=str(folders.test))
    splits = _open_folders(location, folders.train or location.folder)
    for name, count in folders.ignored.items():
        splits.train.ignored[name] = splits.train.ignored.get(name, 0) + count
    return splits._replace(notes=folders.notes)


def open_folder(location: Location) -> Splits:
    """Open the tree below the root, whose first-level folders are the classes, as the train split."""
    return _open_folders(location, location.folder, classes="folders")


def open_unlabeled(location: Location) -> Splits:
    """Open all files below the root as the train split, without labels."""
    return _open_folders(location, location.folder, classes="none")


def open_list(location: Location) -> Splits:
    """Open a list file as the train split."""
    splits = open_both(lambda: _from_list(location, Path(location.list or "")), _test_opener(location))
    return splits._replace(origin=_origin("list", Path(location.list or ""), location))


def open_both(train: Callable[[], Manifest], test: Callable[[Manifest], Manifest] | None) -> Splits:
    """Open both splits and collect the errors of either.

    Args:
        train: Opens the train split.
        test: Opens the test split, given the train split (an empty one if it cannot be opened); None if there is none.

    Raises:
        ConfigError: With the messages of both splits.
    """
    messages: list[str] = []
    train_manifest, test_manifest = None, None
    try:
        train_manifest = train()
    except ConfigError as error:
        messages += error.problems
    if test:
        try:
            test_manifest = test(train_manifest or Manifest(Records.of(()), [], ""))
        except ConfigError as error:
            messages += error.problems
    if messages or train_manifest is None:
        raise ConfigError(messages)
    return Splits(train_manifest, test_manifest)


def _open_folders(location: Location, train_folder: Path, classes: str = "auto") -> Splits:
    splits = open_both(
        lambda: from_folder(train_folder, choice=location.choice, classes=classes), _test_opener(location, classes)
    )
    return splits._replace(origin=_origin("folder", train_folder, location))


def _origin(kind: str, train: Path, location: Location) -> str:
    """Return the origin of the test split, such as "folders train and val" or "lists train.csv and test.csv"."""
    if not location.test_list and not location.test_root:
        return f"no test split, one {kind}"
    test = Path(location.test_list or location.test_root or "")
    test_kind = "list" if location.test_list else "folder"
    if kind == test_kind:
        return f"{kind}s {train.name} and {test.name}"
    return f"{kind} {train.name} and {test_kind} {test.name}"


def _test_opener(location: Location, classes: str = "auto") -> Callable[[Manifest], Manifest] | None:
    """Return a function that opens `test_list` or else `test_root`; None if neither is set."""
    if location.test_list:
        file = Path(location.test_list)
        return lambda train: _from_list(location, file, train)
    if location.test_root:
        folder = Path(location.test_root)
        return lambda train: from_folder(folder, train.classes, "data.test_root", location.choice, classes)
    return None


def _from_list(location: Location, file: Path, train: Manifest | None = None) -> Manifest:
    """Open a list of the train split or, given the train split, of the test split."""
    root, setting = location.root, "data.list"
    if train is not None:
        root, setting = location.test_root or root, "data.test_list"
    manifest = from_list(file, _path(root), train, setting, location.missing_ok, location.group)
    return choose_kind(manifest, location.choice, f"{setting}={file}")


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
