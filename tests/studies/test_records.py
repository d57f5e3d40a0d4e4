"""Tests of the records of a study: divided without leaks, read once, listed."""

import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image

from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.dataset import EvaluationSampling
from eztorch_sce.errors import ConfigError
from eztorch_sce.studies.records import StudyRecords, divide, read_records
from eztorch_sce.types import InputSpec


def image(file: Path, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (number % 256, 40, 90)).save(file)


def tree(root: Path, num_each: int = 10, names: tuple[str, ...] = ("a", "b")) -> Path:
    for number, name in enumerate(names):
        for index in range(num_each):
            image(root / name / f"{index}.png", 100 * number + index)
    return root


def read(root: Path, directory: Path, **settings: object) -> StudyRecords:
    directory.mkdir()
    data = DataConfig(root=str(root), num_workers=0, **settings)  # type: ignore[arg-type]
    spec, sampling = InputSpec(num_frames=1, size=32), EvaluationSampling(1, 1, 32)
    return read_records(divide(data, seed=0), data, spec, sampling, 60, directory)


def listed(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def test_copies_of_a_file_are_in_one_split(tmp_path: Path) -> None:
    root = tree(tmp_path / "images")
    for index in range(10):
        shutil.copy(root / "a" / f"{index}.png", root / "a" / f"copy_{index}.png")
    splits = divide(DataConfig(root=str(root)), seed=0)
    number_of = [{Path(path).stem.removeprefix("copy_") for path in split.records.paths() if "/a/" in path}
                 for split in (splits.train, splits.labeled_test)]  # fmt: skip
    assert number_of[1]
    assert not number_of[0] & number_of[1]
    assert any("10 files with the content of another" in note for note in splits.notes)


def test_train_copies_of_given_test_files_are_left_out(tmp_path: Path) -> None:
    root = tree(tmp_path / "images" / "train").parent
    tree(root / "test", num_each=3)
    splits = divide(DataConfig(root=str(root)), seed=0)
    assert (len(splits.train.records), len(splits.labeled_test.records)) == (14, 6)


def test_the_lists_of_a_study_hold_its_split_and_open_again(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", names=("10", '9, or "nine"'))
    found = read(root, tmp_path / "study")
    assert (found.train, found.test, found.classes) == (16, 4, ["10", '9, or "nine"'])
    again = found.data(tmp_path / "study", DataConfig(root=str(root))).open()
    paths = {str(path) for path in root.rglob("*.png")}
    opened = [set(again.train.records.paths()), set(again.labeled_test.records.paths())]
    assert opened[0] | opened[1] == paths
    assert not opened[0] & opened[1]
    for path, label in zip(again.train.records.paths(), again.train.records.labels.tolist(), strict=True):
        assert again.train.classes[label] == Path(path).parent.name


def test_damaged_files_are_left_out_and_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "images")
    (root / "a" / "broken.png").write_bytes(b"not an image")
    found = read(root, tmp_path / "study")
    assert found.unreadable == 1
    assert any("broken.png" in note for note in found.notes)
    assert not any("broken" in row["path"] for row in listed(tmp_path / "study" / "train.csv"))


@pytest.mark.parametrize("names", [("only",), ()])
def test_without_two_classes_all_records_are_for_training(names: tuple[str, ...], tmp_path: Path) -> None:
    root = tmp_path / "images"
    if names:
        tree(root, num_each=12, names=names)
    else:
        for index in range(12):
            image(root / f"{index}.png", index)
    found = read(root, tmp_path / "study")
    assert (found.train, found.test) == (12, 0)
    assert any("nothing to test" in note for note in found.notes)


def test_too_few_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs at least 4"):
        read(tree(tmp_path / "images", num_each=2), tmp_path / "study")
