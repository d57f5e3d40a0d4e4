"""Invariants of opened data, on random data sets that know their own content.

No record is in two splits, none is lost without a count, labels are those of the data, and the same data give the same
records in the same order, wherever and in whatever order they were written. Data are refused only for a reason.
"""

import hashlib
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from random_data import Plan, random_folder
from random_lists import random_list

from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.leftovers import HIDDEN, LEFTOVER
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.media_kinds import UNREADABLE
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.errors import ConfigError

Rows = list[tuple[str, str | None, str]]
NUM_BATCHES, PER_BATCH = 10, 30  # 300 folders and 300 lists
NUM_COMPARED = 25  # of each, with another process


def open_data(plan: Plan, root: str) -> Splits | list[str]:
    """Return the splits of a data set below a folder, or the messages with which it is refused."""
    try:
        return DataConfig(**plan.settings_at(root)).open_with_test(seed=0)
    except ConfigError as error:
        return error.problems


def rows(manifest: Manifest | None, root: Path) -> Rows:
    """Return the path below a folder, the class name and the kind of each record."""
    if manifest is None:
        return []
    return [
        (os.path.relpath(r.path, root), None if r.label is None else manifest.classes[r.label], r.kind)
        for r in manifest.records
    ]


def check_refusal(plan: Plan, messages: list[str], root: Path) -> None:
    """Every message has a reason in the plan, and names a setting or the place."""
    assert plan.faults, f"refused without a reason: {messages}"
    for message in messages:
        assert any(re.search(fault, message) for fault in plan.faults), f"{message} is none of {plan.faults}"
        assert "data." in message or str(root) in message


def check_opened(plan: Plan, splits: Splits, root: Path) -> None:
    """Every medium is in its split with its label, no file is in two splits, and the rest is counted."""
    assert not plan.faults, f"opened in spite of {plan.faults}"
    train, test = rows(splits.train, root), rows(splits.test, root)
    assert sorted(path for path, _, _ in train + test) == sorted(plan.media)
    for split, part in (("train", train), ("test", test)):
        for path, label, _ in part:
            assert plan.media[path].label == label
            assert plan.media[path].split in (split, None)
    files = [{_identity(root / path) for path, _, _ in part} for part in (train, test)]
    assert not files[0] & files[1]
    has_labels = any(truth.label is not None for truth in plan.media.values())
    assert (splits.test is not None) == (has_labels or any(truth.split for truth in plan.media.values()))
    names = {truth.label for truth in plan.media.values() if truth.label is not None}
    expected = sorted(names, key=lambda name: (int(name), "") if name.isdecimal() else (0, name))
    assert all(split.classes == expected for split in splits[:2] if split is not None)
    check_counts(plan, splits)


def _identity(path: Path) -> object:
    """Return what is equal for names of the same file."""
    if not path.exists():
        return os.path.realpath(path), path.name
    status = path.stat()
    return status.st_dev, status.st_ino


def check_counts(plan: Plan, splits: Splits) -> None:
    counted = dict(splits.train.ignored)
    if splits.test is not None and splits.draw is None:
        for name, count in splits.test.ignored.items():
            counted[name] = counted.get(name, 0) + count
    leftovers = counted.pop(LEFTOVER, 0) + counted.pop(HIDDEN, 0)
    counted.pop(UNREADABLE, None)
    assert sum(counted.values()) == plan.num_ignored, counted
    assert leftovers >= plan.num_leftovers


@pytest.mark.parametrize("batch", range(NUM_BATCHES))
def test_random_folders_hold_the_invariants(batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(batch * PER_BATCH, (batch + 1) * PER_BATCH):
        check_everywhere(random_folder(random.Random(f"folder {seed}")), seed, tmp_path, monkeypatch)


@pytest.mark.parametrize("batch", range(NUM_BATCHES))
def test_random_lists_hold_the_invariants(batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(batch * PER_BATCH, (batch + 1) * PER_BATCH):
        check_everywhere(random_list(random.Random(f"list {seed}")), seed, tmp_path, monkeypatch)


def test_another_process_opens_the_same_records_in_the_same_order(tmp_path: Path) -> None:
    """Neither the order of sets, which differs in every process, nor the locale has an influence."""
    environment = os.environ | {"PYTHONHASHSEED": "1", "LC_ALL": "C", "PYTHONPATH": os.pathsep.join(sys.path)}
    (tmp_path / "other").mkdir()
    command = [sys.executable, __file__, str(tmp_path / "other")]
    other = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    (tmp_path / "own").mkdir()
    assert other.split() == digests(tmp_path / "own")


def digests(folder: Path) -> list[str]:
    """Return a hash of the records of each of some data sets, or of what is wrong with them."""
    found = []
    for seed in range(NUM_COMPARED):
        for name, make in (("folder", random_folder), ("list", random_list)):
            plan = make(random.Random(f"{name} {seed}"))
            root = plan.write(folder / f"{name}{seed}", random.Random(0))
            opened = open_data(plan, str(root))
            content = opened if isinstance(opened, list) else [rows(split, root) for split in opened[:2]]
            text = repr(content).replace(str(folder), "").replace(str(folder.resolve()), "")
            found.append(hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest())
    return found


def check_everywhere(plan: Plan, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a data set, and that it is the same from another working directory and written in another order."""
    first = plan.write(tmp_path / f"a{seed}", random.Random(1))
    second = plan.write(tmp_path / f"b{seed}", random.Random(2))
    try:
        results = [open_data(plan, str(first)), open_data(plan, str(second))]
        monkeypatch.chdir(first.parent)
        results.append(open_data(plan, first.name))
        if isinstance(results[0], list):
            check_refusal(plan, results[0], first)
            assert all(isinstance(other, list) and len(other) == len(results[0]) for other in results[1:])
            return
        check_opened(plan, results[0], first)
        for other, root in zip(results[1:], (second, first), strict=True):
            assert isinstance(other, Splits)
            for mine, same in zip(results[0][:2], other[:2], strict=True):
                assert rows(mine, first) == rows(same, root)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {plan}") from error


if __name__ == "__main__":
    print(*digests(Path(sys.argv[1])), sep="\n")
