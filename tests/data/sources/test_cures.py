"""Tests of what errors advise for folders as people download them."""

import subprocess
from pathlib import Path

import pytest
from data_sets import touch, write

from eztorch_sce.config.compose import compose
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.labels import check_labels
from eztorch_sce.errors import ConfigError


def refused(**settings: str | Path) -> str:
    data = DataConfig(**{name: str(value) for name, value in settings.items()})  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        check_labels(data.open_with_test(0))
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def kaggle(root: Path) -> Path:
    """Make the folder of an unpacked competition: images without classes, and a list of their names without suffix."""
    touch(root, *(f"train_images/{name}.jpg" for name in "123456"), "test_images/7.jpg", "sample_submission.csv")
    write(root / "train.csv", "image_id,label\n1,cat\n2,cat\n3,cat\n4,dog\n5,dog\n6,dog\n")
    return root


def test_the_folder_of_a_competition_is_answered_with_settings_that_open_it(tmp_path: Path) -> None:
    root = kaggle(tmp_path)
    cure = f"set data.list={root}/train.csv data.root={root}/train_images"
    assert refused(root=root).endswith(f"; if train.csv has labels, {cure}")
    assert refused(list=root / "train.csv").endswith(
        f"; 1 is in {root}/train_images: set data.root={root}/train_images"
    )
    splits = DataConfig(list=str(root / "train.csv"), root=str(root / "train_images")).open_with_test(0)
    assert splits.train.classes == ["cat", "dog"]
    assert [len(splits.train.records), len(splits.test.records) if splits.test else 0] == [4, 2]


def test_a_folder_of_shards_is_answered_with_their_layout(tmp_path: Path) -> None:
    touch(tmp_path, "train-000000.tar", "train-000001.tar", "README.md")
    assert refused(root=tmp_path).endswith("; set data.layout=shards to read WebDataset shards")


def test_a_validation_folder_without_classes_is_answered_with_holding_out(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{name}/{number}.jpg" for name in ("n01", "n02") for number in range(3)))
    touch(tmp_path, "val/ILSVRC2012_val_00000001.JPEG")
    message = refused(root=tmp_path)
    assert "set data.test_list to a list with labels; if data.root is the folder of the train split alone, " in message
    splits = DataConfig(root=str(tmp_path / "train")).open_with_test(0)
    assert len(splits.train.records) == 4


@pytest.mark.parametrize("name", ["it's (1), a=b", "[x] {y} #z", "$HOME `pwd` \\", 'a "b" ~'])
def test_advised_settings_work_when_typed_in_a_shell(name: str, tmp_path: Path) -> None:
    message = refused(root=kaggle(tmp_path / name))
    for advised in (message.split("; set ")[1].split(", or data.layout")[0], message.split("has labels, set ")[1]):
        line = f"printf '%s\\0' {advised}"
        words = subprocess.run(["bash", "-c", line], capture_output=True, check=True, text=True).stdout.split("\0")[:-1]
        train = compose("knn", [*words, "weights=w.pt"]).data.open().train
        assert len(train.records) == 6
