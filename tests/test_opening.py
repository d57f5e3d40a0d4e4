"""Tests of the checks before a run: errors name what differs, and the table they rest on."""

import os
from pathlib import Path

import pytest
from data_sets import touch

from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.media_table import MediaRow, write_table
from eztorch_sce.data.sources.records import Records
from eztorch_sce.errors import ConfigError
from eztorch_sce.opening import check_classes

CURE = "; give data with the 3 classes that the classifier was trained on, in its order"


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (
            ["ape", "cat", "cow"],
            "has 1 class unknown to the classifier: cow, and 1 class of the classifier missing: dog",
        ),
        (["ape", "cat"], "has 1 class of the classifier missing: dog"),
        (["ape", "cat", "dog", "eel", "fox"], "has 2 classes unknown to the classifier: eel, fox"),
        (["ape", "dog", "cat"], "has the classes in a different order: class 1 is dog, but cat in the classifier"),
    ],
)
def test_classes_that_differ_from_those_of_a_classifier_are_named(classes: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_classes(Manifest(Records.of([]), classes, "data.root=x"), ["ape", "cat", "dog"])
    assert caught.value.problems == [f"data.root=x {expected}{CURE}"]


def test_equal_classes_pass() -> None:
    check_classes(Manifest(Records.of([]), ["ape", "cat"], "data.root=x"), ["ape", "cat"])


def table(root: Path, usable: bool, digest: str = "") -> Path:
    """Write a table of all images of a folder that is two days old."""
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    file = write_table(
        root, [MediaRow(name, "image", usable, [], 9, digest, 0, 0, 8, 8, "png", 1, 1) for name in names]
    )
    two_days_ago = file.stat().st_mtime - 2 * 86400
    os.utime(file, (two_days_ago, two_days_ago))
    return file


def test_an_error_that_rests_on_a_table_of_the_doctor_names_its_path_and_age(tmp_path: Path) -> None:
    root = touch(tmp_path / "unusable", "a/1.png", "b/2.png")
    file = table(root, usable=False)
    with pytest.raises(ConfigError) as caught:
        DataConfig(root=str(root)).open()
    assert f"2 of 2 left out as unusable according to {file}, written 2 days ago; run" in caught.value.problems[0]
    root = touch(tmp_path / "same", "a/1.png", "b/2.png")
    file = table(root, usable=True, digest="same")
    with pytest.raises(ConfigError) as caught:
        DataConfig(root=str(root)).open()
    assert f"(contents according to {file}, written 2 days ago)" in caught.value.problems[0]
