"""Packed sets as their publishers write them, tiny, and the PNG files that come out of them."""

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eztorch_sce import cli
from eztorch_sce.data.sources.layouts import open_splits
from eztorch_sce.data.sources.manifest import from_folder
from eztorch_sce.data.sources.packed import unpack
from eztorch_sce.errors import ConfigError

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def random_pixels(num: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, side, side, 3), np.uint8)


def as_rows(pixels: np.ndarray) -> np.ndarray:
    """Lay images (N, H, W, 3) out as CIFAR does: all of red, row by row, then green, then blue."""
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


def python2(value: object) -> bytes:
    """Pickle as Python 2 did, protocol 2: text is bytes, and numpy's functions have their old names."""
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
    """Write the Python version with `num` images a batch, of the classes 0, 1, ..., and return them by batch."""
    folder.mkdir(parents=True)
    images = {name: random_pixels(num, 32, seed) for seed, name in enumerate(BATCHES)}
    for name, pixels in images.items():
        names = [f"{CIFAR10[label]}_s_{label:06d}.png" for label in range(num)]
        batch = {"batch_label": name, "labels": list(range(num)), "data": as_rows(pixels), "filenames": names}
        (folder / name).write_bytes(python2(batch))
    meta = {"num_cases_per_batch": num, "label_names": CIFAR10, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(python2(meta))
    return images


def pixels_of(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


def names_in(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_the_pickles_of_this_test_are_what_python_2_wrote() -> None:
    rows = as_rows(random_pixels(2, 32))
    read = pickle.loads(python2({"data": rows, "labels": [6, 9], "name": "x"}), encoding="bytes")
    assert (read[b"labels"], read[b"name"]) == ([6, 9], b"x")
    np.testing.assert_array_equal(read[b"data"], rows)


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py"], ids=["the folder", "the one above"])
def test_cifar10_python(tmp_path: Path, below: str) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    images = write_cifar10(source / below)
    done = unpack(source, out)
    assert (done.layout, done.num_made, done.num_kept) == ("cifar10", 18, 0)
    for batch in range(5):  # the number in the name goes on from batch to batch
        for label in range(3):
            file = out / "train" / CIFAR10[label] / f"{CIFAR10[label]}_{3 * batch + label:05d}.png"
            np.testing.assert_array_equal(pixels_of(file), images[BATCHES[batch]][label])
    np.testing.assert_array_equal(pixels_of(out / "test/bird/bird_00002.png"), images["test_batch"][2])
    splits = open_splits(str(out), None, None, None, "cifar10", None, 1)
    assert splits.test is not None
    assert (len(splits.train.records), len(splits.test.records)) == (15, 3)
    assert splits.train.classes == ["airplane", "automobile", "bird"]
    assert {record.kind for record in from_folder(out).records} == {"image"}  # nor does the doctor see frames in it


def test_cifar10_binary(tmp_path: Path) -> None:
    source, out, images = tmp_path / "cifar-10-batches-bin", tmp_path / "out", random_pixels(4, 32)
    source.mkdir()
    labels = np.array([[9], [0], [9], [3]], np.uint8)
    for name in BATCHES:
        (source / f"{name}.bin").write_bytes(np.hstack([labels, as_rows(images)]).tobytes())
    (source / "batches.meta.txt").write_text("\n".join(CIFAR10) + "\n\n")
    assert unpack(source, out).num_made == 24
    np.testing.assert_array_equal(pixels_of(out / "train/cat/cat_00019.png"), images[3])
    assert names_in(out / "test") == [
        "airplane/airplane_00001.png",
        "cat/cat_00003.png",
        "truck/truck_00000.png",
        "truck/truck_00002.png",
    ]


@pytest.mark.parametrize("form", ["python", "binary"])
def test_cifar100_goes_by_its_fine_classes(tmp_path: Path, form: str) -> None:
    source, out, images = tmp_path / "source", tmp_path / "out", random_pixels(2, 32)
    source.mkdir()
    fine = [f"thing_{number:02d}" for number in range(100)]
    rows = as_rows(images)
    if form == "python":
        (source / "meta").write_bytes(python2({"fine_label_names": fine, "coarse_label_names": ["a", "b"]}))
        batch = {"data": rows, "fine_labels": [99, 4], "coarse_labels": [1, 0], "filenames": ["x.png", "y.png"]}
        for part in ("train", "test"):
            (source / part).write_bytes(python2(batch))
    else:
        (source / "fine_label_names.txt").write_text("\n".join(fine) + "\n")
        (source / "coarse_label_names.txt").write_text("a\nb\n")
        labels = np.array([[1, 99], [0, 4]], np.uint8)  # coarse, fine
        for part in ("train", "test"):
            (source / f"{part}.bin").write_bytes(np.hstack([labels, rows]).tobytes())
    assert unpack(source, out).layout == "cifar100"
    assert names_in(out / "train") == ["thing_04/thing_04_00001.png", "thing_99/thing_99_00000.png"]
    np.testing.assert_array_equal(pixels_of(out / "test/thing_04/thing_04_00001.png"), images[1])


def write_stl10(folder: Path) -> np.ndarray:
    folder.mkdir(parents=True)
    images = random_pixels(3, 96)
    columns = images.transpose(0, 3, 2, 1)  # as published: red first, and column by column
    for part in ("train", "test", "unlabeled"):
        (folder / f"{part}_X.bin").write_bytes(columns.tobytes())
    for part in ("train", "test"):
        (folder / f"{part}_y.bin").write_bytes(bytes([1, 10, 1]))  # from 1
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    (folder / "class_names.txt").write_text("\n".join(names) + "\n")
    (folder / "fold_indices.txt").write_text("0 2\n")
    return images


def test_stl10_and_its_unlabeled_part(tmp_path: Path) -> None:
    out = tmp_path / "out"
    images = write_stl10(tmp_path / "data" / "stl10_binary")
    assert unpack(tmp_path / "data", out).num_made == 9
    assert names_in(out / "unlabeled") == [f"unlabeled_{number:05d}.png" for number in range(3)]
    np.testing.assert_array_equal(pixels_of(out / "train/truck/truck_00001.png"), images[1])
    np.testing.assert_array_equal(pixels_of(out / "unlabeled/unlabeled_00002.png"), images[2])
    pretrain = open_splits(str(out), None, None, None, "stl10_unlabeled", None, 1)
    assert (len(pretrain.train.records), pretrain.train.classes, pretrain.test) == (6, [], None)
    assert {record.label for record in pretrain.train.records} == {None}
    train, test = open_splits(str(out), None, None, None, "stl10", None, 1)
    assert test is not None
    assert (len(train.records), len(test.records), train.classes) == (3, 3, ["airplane", "truck"])


def test_what_was_begun_goes_on_and_what_is_there_stays(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    write_cifar10(source)
    unpack(source, out)
    kept, lost = out / "train/bird/bird_00002.png", out / "train/bird/bird_00005.png"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    (out / "train/bird/bird_00005.png.partial").write_bytes(b"a part of it")
    done = unpack(source, out)
    assert (done.num_made, done.num_kept) == (1, 17)
    assert kept.stat().st_mtime_ns == before
    assert pixels_of(lost).shape == (32, 32, 3)


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch harm",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Harm(), protocol=0),
        pickle.dumps({"data": Harm()}, protocol=4),
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
    ],
)
def test_a_pickle_that_asks_for_more_than_arrays_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar10(tmp_path / "source")
    (tmp_path / "source" / "data_batch_3").write_bytes(content)
    with pytest.raises(ConfigError, match=r"data_batch_3: asks for .*might do harm: nothing in it was run"):
        unpack(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "harm").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("data_batch_2", b"\x80\x02garbage", "cannot be read as a pickle"),
        ("data_batch_2", python2([1, 2]), "holds a list"),
        ("data_batch_2", python2({"labels": [0]}), "no images of 32 x 32"),
        ("data_batch_2", python2({"data": as_rows(random_pixels(2, 32)), "labels": [0]}), "1 labels for 2 images"),
        ("data_batch_2", python2({"data": as_rows(random_pixels(1, 32)), "labels": [10]}), "none of the 10 classes"),
        ("batches.meta", python2({"label_names": ["../up", "x"]}), "class names are not as published"),
        ("batches.meta", python2({}), "class names are not as published: none"),
    ],
)
def test_a_file_that_is_not_as_published_is_named_before_anything_is_written(
    tmp_path: Path, file: str, content: bytes, said: str
) -> None:
    write_cifar10(tmp_path / "source")
    (tmp_path / "source" / file).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{file}: .*{said}"):
        unpack(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_binary_files_that_end_early(tmp_path: Path) -> None:
    write_stl10(tmp_path / "source")
    file = tmp_path / "source" / "unlabeled_X.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"unlabeled_X\.bin: 82943 bytes are no whole number of images of 27648"):
        unpack(tmp_path / "source", tmp_path / "out")


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_cifar10(source / "cifar-10-batches-py")
    (tmp_path / "archive.tar.gz").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").touch()

    def said(source: Path, out: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            unpack(source, out)
        return str(caught.value)

    assert "must lie outside SOURCE" in said(source, source)
    assert "must lie outside SOURCE" in said(source, source / "images")
    assert "not made by `data unpack`" in said(source, tmp_path / "other")
    assert "tar xf" in said(tmp_path / "archive.tar.gz", tmp_path / "out")
    assert "no packed set, but a.txt; known are cifar-10-batches-py" in said(tmp_path / "other", tmp_path / "out")
    (source / "cifar-10-batches-py" / "data_batch_4").unlink()
    assert "is cifar10 without data_batch_4" in said(source, tmp_path / "out")
    write_stl10(tmp_path / "two" / "stl10_binary")
    write_cifar10(tmp_path / "two" / "cifar-10-batches-py")
    assert "several packed sets" in said(tmp_path / "two", tmp_path / "out")
    unpack(tmp_path / "two" / "stl10_binary", tmp_path / "out")
    assert "holds stl10, and SOURCE is cifar10" in said(tmp_path / "two" / "cifar-10-batches-py", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "unpack.json").read_text()) == {"set": "stl10"}


def test_images_of_another_origin_are_counted(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "source")
    unpack(tmp_path / "source", tmp_path / "out")
    (tmp_path / "out" / "test" / "bird" / "mine.png").touch()
    with pytest.raises(ConfigError, match="holds 4 images, and SOURCE 3"):
        unpack(tmp_path / "source", tmp_path / "out")


def test_a_run_on_a_packed_folder_is_told_what_to_type(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py")
    for root in (tmp_path, tmp_path / "cifar-10-batches-py"):
        with pytest.raises(ConfigError, match=r"`eztorch-sce data unpack .*cifar-10-batches-py OUT`"):
            open_splits(str(root), None, None, None, "cifar10", None, 1)


def test_the_command_compares_with_what_is_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cifar10(tmp_path / "source")
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "unpack", str(tmp_path / "source"), str(tmp_path / "out")])
    assert ended.value.code == 1  # 15 images are not CIFAR-10
    said = capsys.readouterr().out
    assert "18 images written" in said
    assert f"set data.layout=cifar10 data.root={tmp_path / 'out'}" in said
    assert "50000" in said
    assert "train: bird: 4995 of 5000 files" in said
