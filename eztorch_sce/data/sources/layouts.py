"""The layouts of data sets on disk: one row per layout."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from eztorch_sce.data.sources.image_sets import (
    open_imagenet,
    open_imagenet100,
    open_stl10_unlabeled,
    open_tiny_imagenet,
    open_unpacked,
)
from eztorch_sce.data.sources.media_kinds import check_same_kind
from eztorch_sce.data.sources.shards import open_shards
from eztorch_sce.data.sources.splits import Location, Splits, open_auto, open_folder, open_list, open_unlabeled
from eztorch_sce.data.sources.video_sets import open_hmdb51, open_kinetics, open_ssv2, open_ucf101
from eztorch_sce.errors import ConfigError, did_you_mean

_PATHS = ("root", "list", "test_root", "test_list", "annotations")
_CHOICES = ("kind", "frames_pattern")


class Layout(NamedTuple):
    """A row of the table of layouts.

    Attributes:
        open: Opens the data set.
        text: Description for users.
        required: Path settings that must be set.
        optional: Path settings that may be set as well.
        any_kind: Whether the files may be of any kind, so that `data.kind` and `data.frames_pattern` may be set.
    """

    open: Callable[[Location], Splits]
    text: str
    required: Sequence[str] = ("root",)
    optional: Sequence[str] = ()
    any_kind: bool = False


_UNPACKED = "as written by `eztorch-sce data unpack`"
_UCF101 = "UCF101 with classInd.txt, trainlist0N.txt and testlist0N.txt"
_SSV2 = "Something-Something v2 with its labels, train and validation.json"
_IMAGENET100 = "as imagenet, with only the classes in the text file data.annotations, one wnid per line"
_KINETICS = (
    "root/train and root/val, or the published CSV files; data.annotations may be a text file of the classes to keep"
)
_KINETICS_LISTS = ("list", "test_list", "annotations")

LAYOUTS: dict[str, Layout] = {
    "auto": Layout(
        open_auto,
        "data.list if set, else root/train and root/val, else root",
        required=(),
        optional=("root", "list", "test_root", "test_list"),
        any_kind=True,
    ),
    "folder": Layout(
        open_folder,
        "any tree, with the first-level folders as classes",
        optional=("test_root", "test_list"),
        any_kind=True,
    ),
    "unlabeled": Layout(open_unlabeled, "any tree, without labels", any_kind=True),
    "list": Layout(
        open_list,
        "a file of paths and labels",
        required=("list",),
        optional=("root", "test_root", "test_list"),
        any_kind=True,
    ),
    "shards": Layout(open_shards, "WebDataset tar files: a folder, glob, range or URL", optional=("test_root",)),
    "imagenet": Layout(open_imagenet, "root/train/<wnid> and root/val/<wnid>"),
    "imagenet100": Layout(open_imagenet100, _IMAGENET100, required=("root", "annotations")),
    "tiny_imagenet": Layout(open_tiny_imagenet, "root/train/<wnid>/images and root/val"),
    "cifar10": Layout(open_unpacked, _UNPACKED),
    "cifar100": Layout(open_unpacked, _UNPACKED),
    "stl10": Layout(open_unpacked, f"{_UNPACKED}: the labeled images"),
    "stl10_unlabeled": Layout(
        open_stl10_unlabeled, f"{_UNPACKED}, for pretraining: root/train and root/unlabeled, without labels"
    ),
    "ucf101": Layout(open_ucf101, _UCF101, optional=("annotations",), any_kind=True),
    "hmdb51": Layout(open_hmdb51, "HMDB51 with <action>_test_splitN.txt", optional=("annotations",), any_kind=True),
    "kinetics200": Layout(open_kinetics, _KINETICS, optional=_KINETICS_LISTS, any_kind=True),
    "kinetics400": Layout(open_kinetics, _KINETICS, optional=_KINETICS_LISTS, any_kind=True),
    "kinetics600": Layout(open_kinetics, _KINETICS, optional=_KINETICS_LISTS, any_kind=True),
    "kinetics700": Layout(open_kinetics, _KINETICS, optional=_KINETICS_LISTS, any_kind=True),
    "ssv2": Layout(open_ssv2, _SSV2, optional=("annotations",), any_kind=True),
}


def is_published(layout: str) -> bool:
    """Return whether the splits and lists of a layout are their publisher's."""
    return layout not in ("auto", "folder", "list", "shards")


def open_splits(location: Location, layout: str) -> Splits:
    """Open a data set.

    Args:
        location: Paths of the data set.
        layout: A key of `LAYOUTS`.

    Raises:
        ConfigError: With every missing or unused setting, or if files are missing or classes are unknown.
    """
    if layout not in LAYOUTS:
        rows = "; ".join(f"{name}: {row.text}" for name, row in LAYOUTS.items())
        raise ConfigError([f"data.layout={layout} must be one of: {rows}{did_you_mean(layout, LAYOUTS)}"])
    row = LAYOUTS[layout]
    if messages := _path_messages(location, layout, row):
        raise ConfigError(messages)
    splits = row.open(_expand_users(location))
    if splits.test:
        check_same_kind(splits.train, splits.test)
    if not splits.origin:
        splits = splits._replace(origin=f"layout {layout}" if splits.test else f"layout {layout}, no test split")
    return splits


def _path_messages(location: Location, layout: str, row: Layout) -> list[str]:
    messages = [
        f"data.{name} is not set, but data.layout={layout} needs it: {row.text}"
        for name in row.required
        if not getattr(location, name)
    ]
    used = [name for name in _PATHS if name in row.required or name in row.optional]
    used += _CHOICES if row.any_kind else ()
    cure = "remove it or choose another layout"
    for name in (*_PATHS, *_CHOICES):
        value = getattr(location, name)
        if value and name not in used:
            reads = f"is not used by data.layout={layout}, which reads data.{', data.'.join(used)}"
            messages.append(f"data.{name}={value} {reads}; {cure}")
    return messages


def _expand_users(location: Location) -> Location:
    """Replace a leading ~ in every path by the home folder, and empty paths by None."""
    return location._replace(
        root=_expand_user(location.root),
        list=_expand_user(location.list),
        test_root=_expand_user(location.test_root),
        test_list=_expand_user(location.test_list),
        annotations=_expand_user(location.annotations),
    )


def _expand_user(path: str | None) -> str | None:
    return os.path.expanduser(path) if path else None
