"""The train and test splits of a data set, its location, and the openers that work for any data set."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.data.sources.list_file import from_list
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.errors import ConfigError

_TEST_FOLDERS = ("val", "valid", "validation", "test")


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
        return f"held out: {self.fraction} of each class, seed {self.seed}{grouped}"


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

    @property
    def folder(self) -> Path:
        """`root` as a path."""
        return Path(self.root or "")

    @property
    def annotations_path(self) -> Path | None:
        """`annotations` as a path, or None."""
        return Path(self.annotations) if self.annotations else None


def open_auto(location: Location) -> Splits:
    """Open the list if there is one, else the train and test folders in the root, else the root as the train split."""
    if location.list:
        return open_list(location)
    if location.root is None:
        raise ConfigError(["data.root is not set; set data.root=<folder> or data.list=<file>"])
    train_folder, test_folder = split_folders(location.folder)
    if test_folder and not location.test_list and not location.test_root:
        location = location._replace(test_root=str(test_folder))
    return _open_folders(location, train_folder or location.folder)


def open_folder(location: Location) -> Splits:
    """Open the tree below the root, which may itself contain a folder called train, as the train split."""
    return _open_folders(location, location.folder)


def open_list(location: Location) -> Splits:
    """Open a list file as the train split."""
    file, root = Path(location.list or ""), _path(location.root)
    splits = open_both(
        lambda: from_list(file, root, missing_ok=location.missing_ok, group=location.group), _test_opener(location)
    )
    return splits._replace(origin=_origin("list", file, location))


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


def split_folders(root: Path) -> tuple[Path | None, Path | None]:
    """Return the folders of the train and test splits if `root` has both or only `train`, else None for both."""
    inside = sorted(root.iterdir()) if root.is_dir() else []
    folders = {path.name.lower(): path for path in inside if path.is_dir() and not path.name.startswith(".")}
    test = next((folders[name] for name in _TEST_FOLDERS if name in folders), None)
    is_split = "train" in folders and (test is not None or len(folders) == 1)
    return (folders["train"], test) if is_split else (None, None)


def _open_folders(location: Location, train_folder: Path) -> Splits:
    splits = open_both(lambda: from_folder(train_folder), _test_opener(location))
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


def _test_opener(location: Location) -> Callable[[Manifest], Manifest] | None:
    """Return a function that opens `test_list` or else `test_root`; None if neither is set."""
    if location.test_list:
        file, root = Path(location.test_list), _path(location.test_root or location.root)
        return lambda train: from_list(file, root, train, "data.test_list", missing_ok=location.missing_ok)
    if location.test_root:
        folder = Path(location.test_root)
        return lambda train: from_folder(folder, train.classes, "data.test_root")
    return None


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
