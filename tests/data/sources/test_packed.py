"""Tests of packed sets, on tiny ones in the formats of their publishers."""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from packed_sets import BATCHES, CIFAR10, as_rows, random_pixels

from eztorch_sce.data.sources.layouts import open_splits
from eztorch_sce.data.sources.packed import Block, find_packed, open_packed
from eztorch_sce.data.sources.splits import Location
from eztorch_sce.errors import ConfigError


def python2(value: object) -> bytes:
    """Pickle as Python 2 does with protocol 2: text is stored as bytes, and NumPy's functions under their old names."""
    return b"\x80\x02" + opcodes(value) + b"."


def opcodes(value: object) -> bytes:
    if isinstance(value, np.ndarray):
        make = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + opcodes("b") + b"tR"
        dtype = b"cnumpy\ndtype\n(" + opcodes("u1") + b"K\x00K\x01tR(K\x03" + opcodes("|") + b"NNNJ\xff\xff\xff\xff"
        dtype += b"J\xff\xff\xff\xffK\x00tb"
        shape = b"(" + b"".join(map(opcodes, value.shape)) + b"t"
        return make + b"(K\x01" + shape + dtype + b"\x89" + opcodes(value.tobytes()) + b"tb"
    if isinstance(value, dict):
        return b"}(" + b"".join(opcodes(key) + opcodes(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(opcodes, value)) + b"e"
    if isinstance(value, str | bytes):
        data = value.encode() if isinstance(value, str) else value
        return b"T" + struct.pack("<i", len(data)) + data
    assert isinstance(value, int)
    return b"J" + struct.pack("<i", value)


def write_cifar10(folder: Path, num: int = 3) -> dict[str, np.ndarray]:
    """Write the Python version with `num` images per batch, of classes 0, 1, ...; return the images by batch."""
    folder.mkdir(parents=True)
    images = {name: random_pixels(num, 32, seed) for seed, name in enumerate(BATCHES)}
    for name, pixels in images.items():
        names = [f"{CIFAR10[label]}_s_{label:06d}.png" for label in range(num)]
        batch = {"batch_label": name, "labels": list(range(num)), "data": as_rows(pixels), "filenames": names}
        (folder / name).write_bytes(python2(batch))
    meta = {"num_cases_per_batch": num, "label_names": CIFAR10, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(python2(meta))
    return images


def classes_of(block: Block) -> list[str]:
    assert block.class_names is not None
    return list(block.class_names)


def test_the_pickles_of_these_tests_load_like_those_of_python_2() -> None:
    rows = as_rows(random_pixels(2, 32))
    content = pickle.loads(python2({"data": rows, "labels": [6, 9], "name": "x"}), encoding="bytes")
    assert (content[b"labels"], content[b"name"]) == ([6, 9], b"x")
    np.testing.assert_array_equal(content[b"data"], rows)


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py"], ids=["the folder", "its parent"])
def test_cifar10_python_is_read_batch_by_batch(tmp_path: Path, below: str) -> None:
    source = tmp_path / "source"
    images = write_cifar10(source / below)
    packed = open_packed(source)
    assert packed.format.layout == "cifar10"
    blocks = list(packed.blocks())
    assert [block.split for block in blocks] == ["train"] * 5 + ["test"]
    for name, block in zip(BATCHES, blocks, strict=True):
        np.testing.assert_array_equal(block.pixels, images[name])
        assert classes_of(block) == CIFAR10[:3]


def test_cifar10_binary_is_read_by_label(tmp_path: Path) -> None:
    images = random_pixels(4, 32)
    labels = np.array([[9], [0], [9], [3]], np.uint8)
    for name in BATCHES:
        (tmp_path / f"{name}.bin").write_bytes(np.hstack([labels, as_rows(images)]).tobytes())
    (tmp_path / "batches.meta.txt").write_text("\n".join(CIFAR10) + "\n\n")
    for block in open_packed(tmp_path).blocks():
        np.testing.assert_array_equal(block.pixels, images)
        assert classes_of(block) == ["truck", "airplane", "truck", "cat"]


@pytest.mark.parametrize("version", ["python", "binary"])
def test_cifar100_has_its_fine_classes(tmp_path: Path, version: str) -> None:
    images = random_pixels(2, 32)
    fine = [f"thing_{number:02d}" for number in range(100)]
    if version == "python":
        (tmp_path / "meta").write_bytes(python2({"fine_label_names": fine, "coarse_label_names": ["a", "b"]}))
        filenames = ["x.png", "y.png"]
        batch = {
            "data": as_rows(images),
            "fine_labels": [99, 4],
            "coarse_labels": [1, 0],
            "filenames": filenames,
        }
        for split in ("train", "test"):
            (tmp_path / split).write_bytes(python2(batch))
    else:
        (tmp_path / "fine_label_names.txt").write_text("\n".join(fine) + "\n")
        (tmp_path / "coarse_label_names.txt").write_text("a\nb\n")
        labels = np.array([[1, 99], [0, 4]], np.uint8)  # coarse, fine
        for split in ("train", "test"):
            (tmp_path / f"{split}.bin").write_bytes(np.hstack([labels, as_rows(images)]).tobytes())
    packed = open_packed(tmp_path)
    assert packed.format.layout == "cifar100"
    train, test = packed.blocks()
    for block in (train, test):
        assert classes_of(block) == ["thing_99", "thing_04"]
        np.testing.assert_array_equal(block.pixels, images)


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harm",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Harm(), protocol=0),
        pickle.dumps({"data": Harm()}, protocol=4),
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        pickle.dumps({"data": np.array([None, 1])}, protocol=2),
    ],
    ids=["os.system", "os.system inside", "eval", "numpy.load", "rot13", "objects"],
)
def test_a_pickle_of_more_than_arrays_is_refused_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar10(tmp_path / "source")
    (tmp_path / "source" / "data_batch_3").write_bytes(content)
    with pytest.raises(ConfigError, match=r"data_batch_3 refers to .*may be harmful; nothing in it was run"):
        list(open_packed(tmp_path / "source").blocks())
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("data_batch_2", b"\x80\x02garbage", "cannot be read as a pickle"),
        ("data_batch_2", b"\x80\x02cnumpy\nndarray\n(I9\ntR.", "cannot be read as a pickle"),
        ("data_batch_2", python2([1, 2]), "contains a list"),
        ("data_batch_2", python2({"labels": [0]}), "no images of 32 x 32"),
        ("data_batch_2", python2({"data": as_rows(random_pixels(2, 32)), "labels": [0]}), "1 labels for 2 images"),
        ("data_batch_2", python2({"data": as_rows(random_pixels(1, 32)), "labels": [10]}), "outside its 10 classes"),
        ("batches.meta", python2({"label_names": ["../up", "x"]}), "class names that are not as published"),
        ("batches.meta", python2({}), "class names that are not as published: none"),
    ],
    ids=[
        "garbage",
        "call",
        "list",
        "no pixels",
        "too few labels",
        "unknown label",
        "unsafe class name",
        "no class names",
    ],
)
def test_the_error_names_the_file_not_as_published(tmp_path: Path, file: str, content: bytes, reason: str) -> None:
    write_cifar10(tmp_path / "source")
    (tmp_path / "source" / file).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{file} .*{reason}"):
        list(open_packed(tmp_path / "source").blocks())


def test_a_folder_without_exactly_one_packed_set_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").touch()
    with pytest.raises(ConfigError, match=r"no packed set, only a\.txt; known folders are cifar-10-batches-py"):
        open_packed(tmp_path / "other")
    for folder in ("one", "two"):
        write_cifar10(tmp_path / folder / "cifar-10-batches-py")
    (tmp_path / "one" / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(ConfigError, match="is cifar10 without data_batch_4"):
        open_packed(tmp_path / "one")
    python_version = tmp_path / "two" / "cifar-100-python"
    python_version.mkdir()
    for name in ("meta", "train", "test"):
        (python_version / name).touch()
    assert len(find_packed(tmp_path / "two")) == 2
    with pytest.raises(ConfigError, match="several packed sets"):
        open_packed(tmp_path / "two")


def test_training_on_a_packed_folder_names_the_command_to_unpack_it(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py")
    for root in (tmp_path, tmp_path / "cifar-10-batches-py"):
        with pytest.raises(ConfigError, match=r"`eztorch-sce data unpack .*cifar-10-batches-py OUT`"):
            open_splits(Location(root=str(root)), "cifar10")
