"""How data sets lie on disk: one row per layout, opened as a train and a test part."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.data.sources.image_sets import (
    open_imagenet,
    open_imagenet100,
    open_stl10_unlabeled,
    open_tiny_imagenet,
    open_unpacked,
)
from eztorch_sce.data.sources.manifest import check_disjoint
from eztorch_sce.data.sources.shards import from_shards
from eztorch_sce.data.sources.splits import Places, Splits, collect, open_auto, open_folder, open_list
from eztorch_sce.data.sources.video_sets import open_hmdb51, open_kinetics, open_ssv2, open_ucf101
from eztorch_sce.errors import ConfigError, did_you_mean

_TEST = ("test_root", "test_list")


class Layout(NamedTuple):
    """A row of the table: how to open it, the settings it must have, those it may have, and a line for people."""

    open: Callable[[Places], Splits]
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    text: str


def open_splits(
    root: str | None,
    list: str | None,
    test_root: str | None,
    test_list: str | None,
    layout: str,
    annotations: str | None,
    split: int,
    missing_ok: bool = False,
) -> Splits:
    """Open a data set.

    Args:
        root: Folder of the data, or what the paths of `list` are relative to.
        list: List file of the training part.
        test_root: Folder of the test part, or what the paths of `test_list` are relative to.
        test_list: List file of the test part.
        layout: A key of `LAYOUTS`.
        annotations: Folder of the publisher's lists, where they do not lie with the data, or file of the classes to
            keep.
        split: Which of the publisher's splits, from 1.
        missing_ok: Open what is there; what is listed and is not there is in `Manifest.missing`.

    Raises:
        ConfigError: With all that is wrong: settings, files, classes, files in both parts.
    """
    if layout not in LAYOUTS:
        choices = "; ".join(f"{name}: {row.text}" for name, row in LAYOUTS.items())
        raise ConfigError(
            [f"data.layout={layout}: no such layout{did_you_mean(layout, LAYOUTS)}; the layouts are {choices}"]
        )
    row = LAYOUTS[layout]
    given = {"root": root, "list": list, "test_root": test_root, "test_list": test_list, "annotations": annotations}
    paths = {name: Path(os.path.expanduser(path)) if path else None for name, path in given.items()}
    problems = [
        f"data.{name} is not set; data.layout={layout} needs it: {row.text}" for name in row.needs if not given[name]
    ]
    problems += [
        f"data.{name}={path} means nothing to data.layout={layout}, which reads data.{', data.'.join(row.takes)};"
        f" take it out or choose another layout"
        for name, path in paths.items()
        if path and name not in row.takes
    ]
    if problems:
        raise ConfigError(problems)
    splits = row.open(Places(**paths, split=split, missing_ok=missing_ok))
    if splits.test:
        check_disjoint(splits.train, splits.test)
    return splits


def _shards(places: Places) -> Splits:
    # Of the two slashes of a URL a Path has kept one.
    root, test_root = (
        re.sub(r"^(\w\w+):/+", r"\1://", str(path)) if path else "" for path in (places.root, places.test_root)
    )
    has_test = bool(test_root)
    return collect(
        lambda: from_shards(root),
        (lambda classes: from_shards(test_root, classes, setting="data.test_root")) if has_test else None,
    )


LAYOUTS: dict[str, Layout] = {
    "auto": Layout(
        open_auto, (), ("root", "list", *_TEST), "data.list if set, else root/train and root/val, else root"
    ),
    "folder": Layout(open_folder, ("root",), ("root", *_TEST), "any tree, first-level folders are classes"),
    "list": Layout(open_list, ("list",), ("root", "list", *_TEST), "a file of paths and labels"),
    "shards": Layout(_shards, ("root",), ("root", "test_root"), "WebDataset tar files: a folder, glob, range or URL"),
    "imagenet": Layout(open_imagenet, ("root",), ("root",), "root/train/<wnid> and root/val/<wnid>"),
    "imagenet100": Layout(
        open_imagenet100,
        ("root", "annotations"),
        ("root", "annotations"),
        "as imagenet, with the classes that the text file data.annotations names, one wnid a line",
    ),
    "tiny_imagenet": Layout(open_tiny_imagenet, ("root",), ("root",), "root/train/<wnid>/images and root/val"),
    "cifar10": Layout(open_unpacked, ("root",), ("root",), "as `eztorch-sce data unpack` leaves it"),
    "cifar100": Layout(open_unpacked, ("root",), ("root",), "as `eztorch-sce data unpack` leaves it"),
    "stl10": Layout(open_unpacked, ("root",), ("root",), "as `eztorch-sce data unpack` leaves it: the labeled part"),
    "stl10_unlabeled": Layout(
        open_stl10_unlabeled, ("root",), ("root",), "the same to pretrain on: root/train and root/unlabeled, no labels"
    ),
    "ucf101": Layout(
        open_ucf101, ("root",), ("root", "annotations"), "UCF101 with classInd.txt, trainlist0N, testlist0N"
    ),
    "hmdb51": Layout(open_hmdb51, ("root",), ("root", "annotations"), "HMDB51 with <action>_test_splitN.txt"),
    **{
        f"kinetics{number}": Layout(
            open_kinetics,
            ("root",),
            ("root", "list", "test_list", "annotations"),
            "root/train and root/val, or published csv; a file as data.annotations names the classes to keep",
        )
        for number in (200, 400, 600, 700)
    },
    "ssv2": Layout(
        open_ssv2, ("root",), ("root", "annotations"), "Something-Something v2 with its labels, train, validation.json"
    ),
}
