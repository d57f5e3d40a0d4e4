"""Tests of the data settings."""

from collections import Counter
from pathlib import Path

import pytest
from data_sets import touch

from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.settings import invalid_settings


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("batch_size", 0, "must be at least 1"),
        ("num_frames", 0, "must be at least 1"),
        ("frame_stride", 0, "must be at least 1"),
        ("canvas", -8, "must be at least 1"),
        ("split", 0, "must be at least 1"),
        ("clip_s", 0.0, "must be greater than 0"),
        ("num_workers", -1, "must be at least 0"),
        ("near_power", -0.5, "must be at least 0"),
        ("test_fraction", 1.0, "must be greater than 0 and less than 1"),
        ("test_fraction", 0.0, "must be greater than 0 and less than 1"),
        ("max_unreadable", -0.1, "must be at least 0 and less than 1"),
        ("train_share", 0.0, "must be greater than 0 and at most 1"),
        ("decoder", "pyva", "did you mean pyav?"),
        ("layout", "ucf-101", "did you mean ucf101?"),
        ("on_error", "ignore", "must be one of skip, raise"),
    ],
)
def test_an_invalid_value_is_reported_with_its_range(name: str, value: object, expected: str) -> None:
    config = DataConfig(root="videos")
    setattr(config, name, value)
    [message] = invalid_settings(config, "data")
    assert message.startswith(f"data.{name}=")
    assert expected in message


def test_mutually_exclusive_settings_are_reported() -> None:
    config = DataConfig(root="videos", clip_s=2.0, frame_stride=4, train_share=0.1, train_subset="list.txt")
    assert invalid_settings(config, "data") == [
        "data.train_share=0.1 and data.train_subset=list.txt are mutually exclusive; set only one of them",
        "data.frame_stride=4 and data.clip_s=2 are mutually exclusive; set only one of them",
    ]


def test_data_without_a_folder_or_list_is_an_error() -> None:
    [message] = invalid_settings(DataConfig(), "data")
    assert message.startswith("data.root is not set")
    assert "data.list=" in message


def test_the_number_of_workers_never_exceeds_16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eztorch_sce.data.config.num_usable_cores", lambda: 96)
    assert DataConfig(root="videos").workers() == 16
    assert DataConfig(root="videos", num_workers=0).workers() == 0


def test_a_subset_of_the_labels_needs_a_command_that_uses_labels(tmp_path: Path) -> None:
    folders = [f"{split}/{name}/{split}_{name}" for split in ("train", "val") for name in "ab"]
    touch(tmp_path, *(f"{folder}_{number}.png" for folder in folders for number in range(20)))
    root = str(tmp_path)
    splits = DataConfig(root=root, train_share=0.1).open_with_test(seed=1)
    train = splits.train
    assert Counter(record.label for record in train.records) == {0: 2, 1: 2}
    assert len(splits.labeled_test.records) == 40
    assert train == DataConfig(root=root, train_share=0.1).open_with_test(seed=1)[0]
    listed = tmp_path / "list.txt"
    listed.write_text("train_b_3.png\n")
    splits = DataConfig(root=root, train_subset=str(listed)).open_with_test(seed=1)
    assert [Path(record.path).name for record in splits.train.records] == ["train_b_3.png"]
    assert len(splits.labeled_test.records) == 40
    with pytest.raises(ConfigError, match=r"data\.train_share=0\.1 has no effect without labels"):
        DataConfig(root=root, train_share=0.1).open()


def test_invalid_fractions_of_the_labels_are_reported() -> None:
    for fraction in (0.0, -0.1, 1.1):
        [message] = invalid_settings(DataConfig(root="x", train_share=fraction), "data")
        assert message == f"data.train_share={fraction:g} must be greater than 0 and at most 1"
    [message] = invalid_settings(DataConfig(root="x", train_share=0.1, train_subset="list.txt"), "data")
    assert message == "data.train_share=0.1 and data.train_subset=list.txt are mutually exclusive; set only one of them"
    assert invalid_settings(DataConfig(root="x", train_share=1), "data") == []
