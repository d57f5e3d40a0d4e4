"""Tests of hostile and broken files: each is refused in words, with little memory and time."""

import io
import json
import math
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import bounded_reader
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weights_files import CONTAINERS, STATE

from eztorch_sce.errors import ConfigError
from eztorch_sce.interop.containers import read_container
from eztorch_sce.models.weights import load_weights

pytestmark = pytest.mark.xdist_group("broken files")


class Result(NamedTuple):
    """What became of a file that was read with little memory."""

    reason: str
    digest: str


def read_bounded(paths: list[Path]) -> dict[Path, Result]:
    """Read files in a process with little memory; a file that takes too long, or another error, fails the test."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", bounded_reader.__file__],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(paths), f"{paths[len(lines)]}: {done.returncode} {done.stderr[-2000:]}"
    return {Path(path): Result(reason, digest) for path, reason, digest in lines}


# Files of the safetensors format


def safetensors(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: Any = "F32", shape: Any = (4,), start: Any = 0, end: Any = 16) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


SAFETENSORS = {
    "10 GB header": (safetensors({"a": entry()}, length=10**10), "truncated"),
    "endless header": (safetensors({"a": entry()}, length=2**63), "pickle"),
    "overlapping": (safetensors({"a": entry(), "b": entry(shape=(2,), start=8)}), "overlaps"),
    "the same bytes": (safetensors({"a": entry(), "b": entry()}), "overlaps"),
    "gap": (safetensors({"a": entry(shape=(2,), start=8)}), "gap"),
    "beyond the end": (safetensors({"a": entry(shape=(2**40,), end=2**42)}), "truncated"),
    "absurd shape": (safetensors({"a": entry(shape=(2**40, 2**40, 2**40))}), "shape"),
    "overflowing shape": (safetensors({"a": entry(shape=(2**63, 2))}), "shape"),
    "negative shape": (safetensors({"a": entry(shape=(-4,))}), "shape"),
    "fractional shape": (safetensors({"a": entry(shape=(4.0,))}), "shape"),
    "boolean shape": (safetensors({"a": entry(shape=(True, 4))}), "shape"),
    "a thousand dimensions": (safetensors({"a": entry(shape=[1] * 1000)}), "shape"),
    "shape of another size": (safetensors({"a": entry(shape=(5,))}), "size"),
    "unknown type": (safetensors({"a": entry("F33")}), "F33, which is none of"),
    "type of another size": (safetensors({"a": entry("F64")}), "size"),
    "booleans of other bytes": (safetensors({"a": entry("BOOL", (16,))}, bytes(range(16))), "other bytes than 0 and 1"),
    "name twice": (safetensors(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2)), "'a' twice"),
    "metadata of numbers": (safetensors({"__metadata__": {"a": 1}, "a": entry()}), "metadata"),
    "nested header": (safetensors(b'{"a":' + b"[" * 1_000_000), "JSON"),
    "truncated": (safetensors({"a": entry()})[:-1], "truncated"),
    "too long": (safetensors({"a": entry()}) + b"0", "1 bytes follow"),
}


# Files of torch.save


class StorageRef(NamedTuple):
    """A storage in a file that is written by hand."""

    numel: Any = 4
    key: Any = "0"
    kind: Any = torch.FloatStorage


class Tensor:
    """A tensor in a file that is written by hand, with what no tensor can have."""

    def __init__(self, shape: Any, stride: Any, offset: Any = 0, storage: Any = None) -> None:
        storage = StorageRef() if storage is None else storage
        self.args: Any = (storage, offset, shape, stride, False, OrderedDict())

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, self.args


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return ("storage", obj.kind, obj.key, "cpu", obj.numel) if isinstance(obj, StorageRef) else None


def torch_zip(content: Any, size: int = 16) -> bytes:
    program, file = io.BytesIO(), io.BytesIO()
    _Pickler(program, 2).dump(content)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program.getvalue())
        archive.writestr("archive/data/0", bytes(size))
    return file.getvalue()


def overlapping_entries() -> bytes:
    """Return a ZIP file whose second entry has the bytes of its first."""
    data = bytearray(torch_zip({"a": Tensor((4,), (1,))}))
    directory = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", directory + 4)
    data[second + 42 : second + 46] = bytes(4)
    return bytes(data)


TORCH = {
    "shape beyond the storage": (torch_zip(Tensor((5,), (1,))), "reaches element 4 of a storage of 4"),
    "strides beyond the storage": (torch_zip(Tensor((2, 2), (1000, 1))), "reaches element"),
    "offset beyond the storage": (torch_zip(Tensor((4,), (1,), 1)), "reaches element"),
    "absurd shape": (torch_zip(Tensor((2**40, 2**40), (1, 1))), "reaches element"),
    "expanded to a terabyte": (torch_zip(Tensor((2**20, 2**20), (0, 0))), "more elements than its storage"),
    "empty and absurd": (torch_zip(Tensor((0, 2**40, 2**40), (1, 1, 1))), "more elements than its storage"),
    "negative stride": (torch_zip(Tensor((4,), (-1,))), "strides"),
    "negative offset": (torch_zip(Tensor((4,), (1,), -1)), "offset -1"),
    "endless offset": (torch_zip(Tensor((4,), (1,), 2**80)), "offset"),
    "shape of text": (torch_zip(Tensor(("4",), (1,))), "not integers"),
    "more dimensions than strides": (torch_zip(Tensor((2, 2), (1,))), "2 dimensions and 1 strides"),
    "storage larger than its bytes": (torch_zip(Tensor((4,), (1,), 0, StorageRef(2**50))), "has only 16"),
    "negative storage": (torch_zip(Tensor((4,), (1,), 0, StorageRef(-1))), "elements"),
    "storage of another type": (torch_zip(Tensor((4,), (1,), 0, StorageRef(kind=torch.DoubleStorage))), "has only"),
    "storage of no type": (torch_zip(Tensor((4,), (1,), 0, StorageRef(kind=torch.nn.Linear))), "no storage"),
    "storage that is missing": (torch_zip(Tensor((4,), (1,), 0, StorageRef(key="1"))), "archive/data/1 is missing"),
    "storage outside": (torch_zip(Tensor((4,), (1,), 0, StorageRef(key="../data.pkl"))), "is missing"),
    "no storage": (torch_zip(Tensor((4,), (1,), 0, "storage")), "no storage"),
    "truncated storage": (torch_zip(Tensor((4,), (1,)), size=15), "has only 15"),
    "overlapping entries": (overlapping_entries(), "unknown bytes|damaged"),
}


# Pickles


def laughs() -> Any:
    """Return a list of a few thousand bytes that has a hundred million million items."""
    items: Any = ["ha"]
    for _ in range(14):
        items = [items] * 10
    return items


def itself() -> Any:
    items: dict[str, Any] = {}
    items["again"] = [items]
    return items


def array(shape: Any, data: Any, dtype: str = "f4") -> Any:
    class Array:
        def __reduce__(self) -> Any:
            reduced: Any = np.zeros(1).__reduce__()
            build, args, _ = reduced
            return build, args, (1, shape, np.dtype(dtype), False, data)

    return Array()


PICKLES = {
    "bytes without end": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.", "truncated"),
    "10 GB of bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 10**10) + b"abc.", "truncated"),
    "10 GB in place": (b"\x80\x05\x96" + struct.pack("<Q", 10**10) + b"abc.", "truncated"),
    "10 GB of text": (b"\x80\x04\x8d" + struct.pack("<Q", 10**10) + b"abc.", "truncated"),
    "number without end": (b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"abc.", "truncated"),
    "negative number of bytes": (b"\x80\x02\x8b" + struct.pack("<i", -1) + b"abc.", "damaged"),
    "number of many digits": (b"L" + b"9" * 100_000 + b"L\n.", "damaged"),
    "billion laughs": (pickle.dumps(laughs()), "more than 500000 values"),
    "dictionary in itself": (pickle.dumps(itself()), "contains itself"),
    "deep nesting": (b"]" * 10_000 + b"a" * 9_999 + b".", "nested more than 100"),
    "endless operations": (b"N0" * 1_000_001 + b"N.", "more than 2000000 operations"),
    "many marks": (b"(" * 1_000_000 + b".", "damaged|ends inside"),
    "equal keys": (b"(" + b"S'a'\nN" * 1000 + b"d.", "more than 100 times"),
    "long key": (b"(S'" + b"a" * 5000 + b"'\nNd.", "5000 characters"),
    "absurd array": (pickle.dumps(array((2**40, 2**40), b"abcd"), 2), "absurd|shape"),
    "array of fewer bytes": (pickle.dumps(array((4,), b"abcd"), 2), "has 4 bytes"),
    "array of negative length": (pickle.dumps(array((-4,), b"abcd"), 2), "shape"),
    "bytes of a number": (b"cbuiltins\nbytes\n(I10000000000\ntR.", "bytes of what are none"),
    "list of a range": (b"cbuiltins\nlist\n(cbuiltins\nrange\n(I10000000000\ntRtR.", "list of what is none"),
    "two pickles": (pickle.dumps({}) * 2, "follow the end"),
}

MEMO = b"\x80\x02N" + b"r" + struct.pack("<I", 2**32 - 1) + b"."  # asks Python's unpickler for 64 GB

BROKEN: Mapping[str, tuple[bytes, str]] = {
    **{f"safetensors, {name}": case for name, case in SAFETENSORS.items()},
    **{f"torch.save, {name}": case for name, case in TORCH.items()},
    **{f"pickle, {name}": case for name, case in PICKLES.items()},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What became of each broken file."""
    root = tmp_path_factory.mktemp("broken")
    paths = {name: root / f"{number}" for number, name in enumerate(BROKEN)}
    for name, path in paths.items():
        path.write_bytes(BROKEN[name][0])
    for name, size in (("header of a large file", 11 * 10**9), ("large file of zeros", 11 * 10**9), ("memo", 0)):
        paths[name] = root / name
        paths[name].write_bytes({"memo": MEMO}.get(name, struct.pack("<Q", 10**10) + b"{" if "header" in name else b""))
        os.truncate(paths[name], size or len(MEMO))
    found = read_bounded(list(paths.values()))
    return {name: found[path] for name, path in paths.items()}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_in_words(results: dict[str, Result], name: str) -> None:
    assert results[name].reason
    assert any(word in results[name].reason for word in BROKEN[name][1].split("|")), results[name].reason


def test_a_file_may_be_larger_than_the_memory_that_reading_it_takes(results: dict[str, Result]) -> None:
    assert "its header has 10000000000 bytes" in results["header of a large file"].reason
    assert results["large file of zeros"].reason
    assert not results["memo"].reason


# Fuzz

_HUGE = [b"\xff" * 8, struct.pack("<Q", 10**10), struct.pack("<Q", 2**62), bytes(8), b"\xff\xff\xff\x7f"]
CHECKED = ("safetensors with checksums", "torch.save (zip)")
"""The containers that carry checksums of every byte."""


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Return a file with one to four random changes."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at, other = rng.randrange(len(changed) + 1), rng.choice(others)
        start = rng.randrange(len(other))
        length = rng.randrange(1, 60)
        changes: list[Callable[[], tuple[int, bytes]]] = [
            lambda: (1, bytes([changed[at] ^ 1 << rng.randrange(8)]) if at < len(changed) else b"\0"),  # noqa: B023
            lambda: (1, rng.randbytes(1)),
            lambda: (0, rng.randbytes(rng.randrange(1, 9))),
            lambda: (length, b""),  # noqa: B023
            lambda: (length, other[start : start + length]),  # noqa: B023
            lambda: (0, other[start : start + length]),  # noqa: B023
            lambda: (8, rng.choice(_HUGE)),
            lambda: (len(changed), b""),
        ]
        removed, added = rng.choice(changes)()
        changed[at : at + removed] = added
    return bytes(changed)


def fuzz(root: Path, seed: int, count: int) -> None:
    """Change files of all containers at random, and read them; those with checksums must be refused."""
    rng = random.Random(seed)
    kinds = [kind for kind in CONTAINERS if "folder" not in kind]
    content = {**STATE, "more": torch.ones(3)}
    originals: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    for kind in kinds:
        path = root / f"original {kinds.index(kind)}"
        CONTAINERS[kind](content, path)
        originals[kind], digests[kind] = path.read_bytes(), bounded_reader.digest(read_container(path))
    files: dict[Path, str] = {}
    for number in range(count):
        kind = kinds[number % len(kinds)]
        data = mutated(originals[kind], list(originals.values()), rng)
        if data != originals[kind]:
            files[root / f"{seed}-{number}"] = kind
            (root / f"{seed}-{number}").write_bytes(data)
    found = read_bounded(list(files))
    assert sum(bool(result.reason) for result in found.values()) > count / 2
    for path, result in found.items():
        assert "weights_only" not in result.reason
        assert result.reason or files[path] not in CHECKED, f"{path}, a changed file of {files[path]}, was read"


def test_files_that_are_changed_at_random_are_refused_or_read(tmp_path: Path) -> None:
    fuzz(tmp_path, seed=0, count=63)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_files_that_are_changed_at_random_are_refused_or_read(tmp_path: Path, seed: int) -> None:
    fuzz(tmp_path, seed, count=210)


def test_no_flipped_bit_is_accepted_in_a_file_of_torch_save(tmp_path: Path) -> None:
    from eztorch_sce.zip_entries import read_entries

    torch.save({"a": torch.arange(4.0)}, tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    read_entries(io.BytesIO(data))
    for bit in random.Random(0).sample(range(8 * len(data)), 1500):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match=r"\w"):
            read_entries(io.BytesIO(changed))


def test_a_config_cannot_make_timm_read_another_file(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    path = tmp_path / "f"
    path.mkdir()
    torch.save({"conv1.weight": torch.ones(1)}, path / "pytorch_model.bin")
    config = {"architecture": "resnet18", "model_args": {"checkpoint_path": str(path / "pytorch_model.bin")}}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="checkpoint_path, which loads weights"):
        load_weights(str(path))


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("model_args", "depth", 10**9, "model_args of the file set depth=1000000000"),
        ("pretrained_cfg", "mean", [math.nan] * 3, "mean and standard deviation .*nan"),
        ("pretrained_cfg", "std", [0, 1, 1], "mean and standard deviation"),
        ("pretrained_cfg", "input_size", [3, 10**9, 10**9], "input.size is '1000000000'"),
        ("pretrained_cfg", "input_size", [3, math.inf, math.inf], "settings beside the weights .*infinity"),
        ("pretrained_cfg", "input_size", [3, 0, 0], "input.size is '0'"),
    ],
)
def test_the_config_of_a_folder_cannot_be_absurd(
    tmp_path: Path, part: str, name: str, value: Any, message: str
) -> None:
    timm = pytest.importorskip("timm")
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "model.safetensors")
    config: dict[str, Any] = {"architecture": "test_resnet", "model_args": {}}
    config["pretrained_cfg"] = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 160, 160]}
    config[part][name] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=message):
        load_weights(str(tmp_path))
