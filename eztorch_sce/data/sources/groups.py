"""Groups of records that belong together, such as the clips of one video: the setting `data.group`."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import group_code
from eztorch_sce.errors import ConfigError, shorten


def group_codes(manifest: Manifest, group: str, folder: Path) -> npt.NDArray[np.int64]:
    """Return the group of each record, int64 (N,), by the setting `data.group`.

    Args:
        manifest: The records. If they carry groups, their list has a column of that name.
        group: Name of a column of the list, or a regular expression.
        folder: The data folder; the expression is searched in the part of each path below it.

    Raises:
        ConfigError: If the expression is invalid, or does not match every path.
    """
    if manifest.records.groups is not None:
        return manifest.records.groups
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise ConfigError([f"data.group={group} is not a valid regular expression ({error})"]) from error
    codes = np.zeros(len(manifest.records), np.int64)
    code_of: dict[str, int] = {}
    unmatched: list[str] = []
    for index, path in enumerate(_below(folder, manifest.records.paths())):
        if match := pattern.search(path):
            name = match[1] if pattern.groups and match[1] is not None else match[0]
            if name not in code_of:
                code_of[name] = group_code(name)
            codes[index] = code_of[name]
        else:
            unmatched.append(path)
    if unmatched:
        count = f"{len(unmatched)} of {len(codes)} paths, and is no column of a list"
        cure = "give an expression that matches every path below data.root, or the name of a column"
        raise ConfigError([f"data.group={group} does not match {count}: {shorten(unmatched)}; {cure}"])
    return codes


def check_groups(codes: npt.NDArray[np.int64], group: str) -> None:
    """Raise ConfigError if all records are in one group, which cannot be divided."""
    if len(codes) and (codes == codes[0]).all():
        cure = "choose what differs between the videos or subjects"
        raise ConfigError([f"data.group={group} puts all {len(codes)} records into one group; {cure}"])


def check_groups_apart(train: Manifest, test: Manifest, codes: Sequence[npt.NDArray[np.int64]], group: str) -> None:
    """Raise ConfigError if a group is in both splits.

    Args:
        train: The train split.
        test: The test split.
        codes: Group of each record of either split.
        group: The setting `data.group`.
    """
    of_train, of_test = codes
    shared = np.flatnonzero(np.isin(of_test, of_train)).tolist()
    if not shared:
        return
    first = train.records.path(int(np.flatnonzero(of_train == of_test[shared[0]])[0]))
    example = f"{test.records.path(shared[0])} with {first}"
    counts = f"{len(shared)} of {len(of_test)} test records ({test.source}) into groups of train ({train.source})"
    cure = "move each group into one split, or leave data.group out if the splits are meant to share groups"
    raise ConfigError([f"data.group={group} puts {counts}: {example}; {cure}"])


def merge(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the finest groups, numbered, that divide neither the groups of `first` nor those of `second`."""
    codes = [np.unique(groups, return_inverse=True)[1] for groups in (first, second)]
    merged = codes[0]
    while True:  # the lowest number spreads through the groups of either side until nothing changes
        before = merged
        for of_record in codes:
            lowest = np.full(len(of_record), len(of_record))
            np.minimum.at(lowest, of_record, merged)
            merged = lowest[of_record]
        if np.array_equal(merged, before):
            return merged


def _below(folder: Path, paths: Iterable[str]) -> Iterable[str]:
    """Yield the part of each path below a folder, with forward slashes, or the whole path if it is elsewhere."""
    start = os.path.join(os.path.abspath(folder), "")
    for path in paths:
        yield path.removeprefix(start).replace(os.sep, "/")
