"""Tests of `data unpack`: the PNG files of tiny packed sets, resuming, and invalid folders."""

import json
from pathlib import Path

import numpy as np
import pytest
from packed_sets import BATCHES, CIFAR10, as_rows, names_in, random_pixels, write_cifar10
from PIL import Image

from eztorch_sce import cli
from eztorch_sce.curation.unpack import unpack
from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.data.sources.layouts import open_splits
from eztorch_sce.data.sources.splits import Location
from eztorch_sce.errors import ConfigError

STL10 = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


def write_stl10(folder: Path) -> np.ndarray:
    """Write the same three images as each split, labeled airplane, truck and airplane; return them."""
    folder.mkdir(parents=True)
    images = random_pixels(3, 96)
    columns = images.transpose(0, 3, 2, 1)  # published channel by channel, and each channel column by column
    for split in ("train", "test", "unlabeled"):
        (folder / f"{split}_X.bin").write_bytes(columns.tobytes())
    for split in ("train", "test"):
        (folder / f"{split}_y.bin").write_bytes(bytes([1, 10, 1]))  # labels start at 1
    (folder / "class_names.txt").write_text("\n".join(STL10) + "\n")
    (folder / "fold_indices.txt").write_text("0 2\n")
    return images


def pixels_of(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


def test_cifar10_is_numbered_across_batches(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    images = write_cifar10(source)
    unpacked = unpack(source, out)
    assert (unpacked.layout, unpacked.num_written, unpacked.num_kept) == ("cifar10", 18, 0)
    for batch in range(5):
        for label in range(3):
            file = out / "train" / CIFAR10[label] / f"{CIFAR10[label]}_{3 * batch + label:05d}.png"
            np.testing.assert_array_equal(pixels_of(file), images[BATCHES[batch]][label])
    np.testing.assert_array_equal(pixels_of(out / "test/bird/bird_00002.png"), images["test_batch"][2])
    assert names_in(out / "test") == [
        "airplane/airplane_00000.png",
        "automobile/automobile_00001.png",
        "bird/bird_00002.png",
    ]
    splits = open_splits(Location(root=str(out)), "cifar10")
    assert splits.test is not None
    assert (len(splits.train.records), len(splits.test.records)) == (15, 3)
    assert splits.train.classes == ["airplane", "automobile", "bird"]
    assert {record.kind for record in from_folder(out).records} == {"image"}  # not mistaken for frames of videos


def test_cifar100_is_sorted_by_its_fine_classes(tmp_path: Path) -> None:
    source, out, images = tmp_path / "source", tmp_path / "out", random_pixels(2, 32)
    source.mkdir()
    (source / "fine_label_names.txt").write_text("".join(f"thing_{number:02d}\n" for number in range(100)))
    (source / "coarse_label_names.txt").write_text("a\nb\n")
    labels = np.array([[1, 99], [0, 4]], np.uint8)  # coarse, fine
    for split in ("train", "test"):
        (source / f"{split}.bin").write_bytes(np.hstack([labels, as_rows(images)]).tobytes())
    assert unpack(source, out).layout == "cifar100"
    assert names_in(out / "train") == ["thing_04/thing_04_00001.png", "thing_99/thing_99_00000.png"]
    np.testing.assert_array_equal(pixels_of(out / "test/thing_04/thing_04_00001.png"), images[1])


def test_stl10_has_labeled_and_unlabeled_images(tmp_path: Path) -> None:
    out = tmp_path / "out"
    images = write_stl10(tmp_path / "data" / "stl10_binary")
    assert unpack(tmp_path / "data", out).num_written == 9
    assert names_in(out / "unlabeled") == [f"unlabeled_{number:05d}.png" for number in range(3)]
    np.testing.assert_array_equal(pixels_of(out / "train/truck/truck_00001.png"), images[1])
    np.testing.assert_array_equal(pixels_of(out / "unlabeled/unlabeled_00002.png"), images[2])
    pretrain = open_splits(Location(root=str(out)), "stl10_unlabeled")
    assert (len(pretrain.train.records), pretrain.train.classes, pretrain.test) == (6, [], None)
    assert {record.label for record in pretrain.train.records} == {None}
    train, test = open_splits(Location(root=str(out)), "stl10")[:2]
    assert test is not None
    assert (len(train.records), len(test.records), train.classes) == (3, 3, ["airplane", "truck"])


def test_a_second_run_writes_only_missing_images(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    write_cifar10(source)
    unpack(source, out)
    kept, lost = out / "train/bird/bird_00002.png", out / "train/bird/bird_00005.png"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    partial = out / "train/bird/.bird_00005.png.1a2b3c4d.partial"  # left by a killed run
    partial.write_bytes(b"half an image")
    unpacked = unpack(source, out)
    assert (unpacked.num_written, unpacked.num_kept) == (1, 17)
    assert kept.stat().st_mtime_ns == before
    assert pixels_of(lost).shape == (32, 32, 3)
    assert not partial.exists()


def test_a_truncated_file_is_named_before_anything_is_written(tmp_path: Path) -> None:
    write_stl10(tmp_path / "source")
    file = tmp_path / "source" / "unlabeled_X.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"unlabeled_X\.bin has 82943 bytes, not a whole number of images of 27648"):
        unpack(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def message(source: Path, out: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        unpack(source, out)
    return str(caught.value)


def test_invalid_folders_are_named(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    write_cifar10(source / "cifar-10-batches-bin")
    (tmp_path / "archive.tar.gz").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").touch()
    assert "must be outside SOURCE" in message(source, source)
    assert "must be outside SOURCE" in message(source, source / "images")
    assert "not made by `data unpack`" in message(source, tmp_path / "other")
    assert "cannot be read as a tar archive" in message(tmp_path / "archive.tar.gz", out)
    assert "does not exist" in message(tmp_path / "nowhere", out)
    assert "no packed set, only a.txt; known folders are cifar-10-batches-py" in message(tmp_path / "other", out)
    write_stl10(source / "stl10_binary")
    assert "several packed sets" in message(source, out)
    assert not out.exists()


def test_a_folder_of_another_set_is_refused(tmp_path: Path) -> None:
    write_stl10(tmp_path / "stl10_binary")
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    unpack(tmp_path / "stl10_binary", tmp_path / "out")
    expected = "contains stl10, but SOURCE is cifar10"
    assert expected in message(tmp_path / "cifar-10-batches-bin", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "unpack.json").read_text()) == {"set": "stl10"}


def test_foreign_images_are_reported(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "source")
    unpack(tmp_path / "source", tmp_path / "out")
    (tmp_path / "out" / "test" / "bird" / "mine.png").touch()
    with pytest.raises(ConfigError, match="contains 4 images, but SOURCE has 3"):
        unpack(tmp_path / "source", tmp_path / "out")


def test_the_command_compares_with_the_published_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cifar10(tmp_path / "source")
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "unpack", str(tmp_path / "source"), str(tmp_path / "out")])
    assert ended.value.code == 1  # 15 training images instead of 50000
    output = capsys.readouterr().out
    assert "18 images written" in output
    assert f"set data.layout=cifar10 data.root={tmp_path / 'out'}" in output
    assert "50000" in output
    assert "train: bird: 4995 of 5000 files" in output
