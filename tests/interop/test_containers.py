"""Tests of containers: what each kind of file holds, and what other files are."""

import gzip
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from weights_files import CONTAINERS, STATE, folder, folder_of_parts, torch_tar

from eztorch_sce.errors import DamagedFileError
from eztorch_sce.interop.containers import read_container


@pytest.mark.parametrize("kind", CONTAINERS)
def test_every_container_gives_the_same_tensors(tmp_path: Path, kind: str) -> None:
    CONTAINERS[kind](STATE, tmp_path / "file")
    container = read_container(tmp_path / "file")
    assert container.kind == kind
    assert sorted(container.tensors) == sorted(STATE)
    for name, tensor in STATE.items():
        assert container.tensors[name].dtype == tensor.dtype
        assert torch.equal(container.tensors[name], tensor)
    assert not container.objects


@pytest.mark.filterwarnings("ignore")
def test_pytorch_reads_the_tar_file_of_these_tests(tmp_path: Path) -> None:
    torch_tar(STATE, tmp_path / "file")
    content = torch.load(tmp_path / "file", weights_only=False)
    assert all(torch.equal(content[name], tensor) for name, tensor in STATE.items())


def test_a_view_in_a_legacy_file_keeps_its_place(tmp_path: Path) -> None:
    base = torch.arange(10.0)
    torch.save({"a": base[2:5], "b": base}, tmp_path / "file", _use_new_zipfile_serialization=False)
    tensors = read_container(tmp_path / "file").tensors
    assert tensors["a"].tolist() == [2, 3, 4]
    tensors["b"][3] = -1
    assert tensors["a"][1] == -1


def test_numbers_of_a_machine_with_the_other_order_of_bytes_are_turned_around(tmp_path: Path) -> None:
    numbers = torch.tensor([1.0, -2.5, 3e7])
    torch.save({"a": numbers, "c": torch.tensor([1 + 2j])}, tmp_path / "little")
    with zipfile.ZipFile(tmp_path / "little") as old, zipfile.ZipFile(tmp_path / "big", "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            data = b"big" if entry.endswith("byteorder") else data
            if "/data/" in entry:
                data = b"".join(data[start : start + 4][::-1] for start in range(0, len(data), 4))
            new.writestr(entry, data)
    tensors = read_container(tmp_path / "big").tensors
    assert torch.equal(tensors["a"], numbers)
    assert tensors["c"].tolist() == [1 + 2j]


# Folders


def test_the_settings_beside_the_weights_of_a_folder_are_values(tmp_path: Path) -> None:
    folder(STATE, tmp_path / "f")
    (tmp_path / "f" / "preprocessor_config.json").write_text('{"image_mean": [0.4, 0.5]}')
    values = dict(read_container(tmp_path / "f").values)
    assert values == {
        "metadata.format": "pt",
        "config.architecture": "resnet18",
        "config.pretrained_cfg.mean.0": 0.5,
        "preprocessor_config.image_mean.0": 0.4,
        "preprocessor_config.image_mean.1": 0.5,
    }


def test_the_parts_of_a_folder_are_put_together(tmp_path: Path) -> None:
    folder_of_parts(STATE, tmp_path / "f")
    tensors = read_container(tmp_path / "f").tensors
    assert all(torch.equal(tensors[name], tensor) for name, tensor in STATE.items())
    assert tensors.keys() == STATE.keys()


def _lose_a_part(path: Path) -> None:
    (path / "model-00002-of-00002.safetensors").unlink()


def _double_a_tensor(path: Path) -> None:
    save_file({**STATE}, path / "model-00002-of-00002.safetensors")


def _change_the_index(place: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        file = path / "model.safetensors.index.json"
        index = json.loads(file.read_text())
        index["weight_map"]["half"] = place
        file.write_text(json.dumps(index))

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_lose_a_part, "model-00002-of-00002.safetensors is missing"),
        (_double_a_tensor, "not those of the index: conv.weight"),
        (_change_the_index("model-00001-of-00002.safetensors"), "not those of the index: half"),
        (_change_the_index("../../secret"), "not a file of this folder"),
        (_change_the_index("/etc/passwd"), "not a file of this folder"),
        (lambda path: (path / "model.safetensors.index.json").write_text("{"), "is no JSON"),
        (lambda path: (path / "model.safetensors.index.json").write_text("[" * 100_000), "is no JSON"),
    ],
)
def test_a_folder_whose_parts_do_not_fit_its_index_is_refused(
    tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    folder_of_parts(STATE, tmp_path / "f")
    damage(tmp_path / "f")
    with pytest.raises(DamagedFileError, match=reason):
        read_container(tmp_path / "f")


def test_one_part_of_a_folder_is_refused_alone(tmp_path: Path) -> None:
    folder_of_parts(STATE, tmp_path / "f")
    with pytest.raises(DamagedFileError, match="give the folder"):
        read_container(tmp_path / "f" / "model-00001-of-00002.safetensors")


def _dcp(path: Path) -> None:
    path.mkdir()
    (path / ".metadata").write_bytes(b"")
    (path / "__0_0.distcp").write_bytes(b"")


def _files(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(b"\x08\x01\x12")

    return write


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (_dcp, "DCP.*dcp_to_torch FOLDER FILE"),
        (_files("saved_model.pb", "variables/variables.index"), "SavedModel of TensorFlow.*torch.save or safetensors"),
        (_files("checkpoint", "model.ckpt.index", "model.ckpt.data-00000-of-00001"), "checkpoint of TensorFlow"),
        (_files("zero_to_fp32.py", "latest"), "DeepSpeed.*zero_to_fp32"),
        (_files("a.pth", "b.pth"), "several files of weights"),
        (_files("notes.txt"), "without weights"),
    ],
)
def test_a_folder_of_another_kind_is_refused_with_the_cure(
    tmp_path: Path, write: Callable[[Path], None], reason: str
) -> None:
    write(tmp_path / "f")
    with pytest.raises(DamagedFileError, match=reason):
        read_container(tmp_path / "f")


# Files of other kinds


def _script(path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1)), path)


def _program(path: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Linear(1, 1), (torch.ones(1),)), str(path))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.pth", b"...")


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(50_000_000))


def _tar(path: Path) -> None:
    shutil.make_archive(str(path), "tar", path.parent)
    path.with_name(f"{path.name}.tar").rename(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pt", _script, "TorchScript.*torch.jit.load"),
        ("a.pt2", _program, "torch.export.*state_dict"),
        ("a.zip", _zip, "ZIP archive of 1 other files .weights.pth.; unpack it"),
        ("a.pth", _bomb, "compressed"),
        ("a.tar", _tar, "TAR archive; unpack it"),
        ("a.pth.gz", lambda path: path.write_bytes(gzip.compress(b"weights")), "gunzip"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5.*Keras"),
        ("a.onnx", b"\x08\x08\x12\x07pytorch" + bytes(50), "ONNX"),
        ("a.pb", b"\x08\x01\x12\x10saved_model", "TensorFlow"),
        ("m.ckpt.index", b"\0\0\0\0", "TensorFlow checkpoint"),
        ("m.ckpt.data-00000-of-00001", b"\0\0\0\0", "TensorFlow checkpoint"),
        ("a.msgpack", b"\x83\xa1a", "Flax"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        ("a.pth", b"\n<!DOCTYPE html><html>", "web page.*download"),
        ("config.json", b'{"architecture": "resnet18"}', "JSON; give the folder"),
        ("a.pth", b"", "empty"),
        ("a.pth", b"some other text", "no file of weights"),
        ("a.npy", b"\x93NUMPY\x01\0", "single array"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_refused_with_the_cure(
    tmp_path: Path, name: str, content: bytes | Callable[[Path], object], reason: str
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        content(tmp_path / name)
    with pytest.raises(DamagedFileError, match=reason) as caught:
        read_container(tmp_path / name)
    assert "weights_only" not in str(caught.value)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DamagedFileError, match="neither a file nor a folder"):
            read_container(path)
    with pytest.raises(FileNotFoundError):
        read_container(tmp_path / "missing")


def test_keys_that_have_the_same_name_are_kept_apart(tmp_path: Path) -> None:
    torch.save({"a": {"b": torch.tensor(1), 0: 1, "0": 2}, "a.b": torch.tensor(2)}, tmp_path / "file")
    container = read_container(tmp_path / "file")
    assert {name: int(tensor) for name, tensor in container.tensors.items()} == {"a.b": 1, "a.b~2": 2}
    assert container.values == {"a.0": 1, "a.0~2": 2}


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    torch.save({"a\x1b[2J\nb": torch.ones(1), "é": 1}, tmp_path / "file")
    container = read_container(tmp_path / "file")
    assert list(container.tensors) == ["a\\x1b[2J\\nb"]
    assert list(container.values) == ["é"]
