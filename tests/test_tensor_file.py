"""Tests of tensor files: what they hold, and that no change of a byte goes unnoticed."""

import json
import math
import os
import random
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from eztorch_sce.errors import DamagedFileError
from eztorch_sce.tensor_file import read, read_plain, write

PLAIN = {
    "none": None,
    "flags": [True, False],
    "integers": (0, -1, 2**53 + 1, -(2**70), 10**5000),
    "floats": [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf],
    "text": 'naïve \u2028 \udcff \0 "quoted" \\',
    "bytes": bytes(range(256)),
    "empty": [{}, [], (), "", b""],
    "keys": {1: "one", "1": "text", -(2**60): (1, [2, (3,)])},
    "marks": {"$tensor": "not one", "$dict": [["a", 1]]},
}
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex32, torch.complex64, torch.complex128),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e8m0fnu, torch.bool),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]


def types_in(value: Any) -> Any:
    """Return the types in nested values, in order."""
    if isinstance(value, dict):
        return [(type(key), types_in(item)) for key, item in value.items()]
    return (type(value), [types_in(item) for item in value]) if isinstance(value, (list, tuple)) else type(value)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    generator = torch.Generator().manual_seed(0)
    weights = {"conv.weight": torch.randn(3, 5, generator=generator), "conv.count": torch.tensor(7)}
    write(path, {"state": weights, "classes": ["é", "b"], "step": 3, "lr": 0.5, "mask": torch.ones(3).bool()})
    assert b"}   " in path.read_bytes()  # there is padding
    return path


def test_plain_values_come_back_equal_and_of_the_same_types(tmp_path: Path) -> None:
    write(tmp_path / "f", {**PLAIN, "nan": math.nan})
    content = read_plain(tmp_path / "f")
    assert math.isnan(content.pop("nan"))
    assert content == PLAIN
    assert types_in(content) == types_in(PLAIN)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    seeds = torch.randint(256, (4 * 6 * dtype.itemsize,), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    tensor = (seeds % 2 if dtype == torch.bool else seeds).view(dtype).reshape(4, 6)
    shapes = {"whole": tensor, "zero dimensions": tensor[1, 2], "empty": tensor[:0], "strided": tensor.t()[::2, 1:]}
    write(tmp_path / "f", {"nested": [shapes, (tensor, 1)]})
    nested, (again, _) = read(tmp_path / "f")["nested"]
    for name, expected in {**shapes, "again": tensor}.items():
        found = again if name == "again" else nested[name]
        assert (found.dtype, found.shape, raw(found)) == (expected.dtype, expected.shape, raw(expected)), name


def test_shared_conjugated_and_learned_tensors_are_written(tmp_path: Path) -> None:
    base, wave = torch.arange(6.0), torch.tensor([1 + 2j, 3 - 4j])
    views = {"a": base, "b": base[2:], "c": base.expand(2, 6), "d": wave.conj(), "e": wave.conj().imag}
    write(tmp_path / "f", OrderedDict(views, p=torch.nn.Parameter(base)))
    found = read(tmp_path / "f")
    assert type(found) is dict
    assert all(torch.equal(found[name], value) for name, value in views.items())
    assert torch.equal(found["p"], base)
    assert not found["p"].requires_grad
    found["a"].zero_()
    assert torch.equal(found["b"], base[2:])


def test_the_safetensors_library_reads_the_tensors_by_plain_keys(tmp_path: Path, small: Path) -> None:
    state = {"conv.weight": torch.randn(2, 3), "steps": torch.tensor(4), "half": torch.ones(3, dtype=torch.float16)}
    write(tmp_path / "f", {"state": state, "head": {"weight": torch.zeros(2)}, "size": [8, 8]}, root="state")
    found = load_file(tmp_path / "f")
    assert found.keys() == {*state, "head.weight"}
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    with safe_open(tmp_path / "f", "pt") as file:
        assert json.loads(file.metadata()["card"])["size"] == [8, 8]
    assert read(tmp_path / "f")["state"].keys() == state.keys()


def test_tensors_whose_names_would_be_the_same_stay_apart(tmp_path: Path) -> None:
    content = {"a": {"b": torch.tensor(1), 0: torch.tensor(2), "0": torch.tensor(3)}, "a.b": torch.tensor(4)}
    write(tmp_path / "f", {**content, "__metadata__": torch.tensor(5), "\udcff": torch.tensor(6)})
    found = read(tmp_path / "f")
    assert [*map(int, found["a"].values()), int(found["a.b"]), int(found["__metadata__"])] == [1, 2, 3, 4, 5]
    assert sorted(map(int, load_file(tmp_path / "f").values())) == [1, 2, 3, 4, 5, 6]


def test_plain_values_are_read_without_the_tensors(tmp_path: Path, small: Path) -> None:
    assert read_plain(small) == {"state": {}, "classes": ["é", "b"], "step": 3, "lr": 0.5}
    write(tmp_path / "f", {"list": [torch.ones(2), 1], "tuple": (torch.ones(2),), "keys": {1: torch.ones(2), 2: 3}})
    assert read_plain(tmp_path / "f") == {"list": [None, 1], "tuple": (None,), "keys": {2: 3}}


def endless() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["self"] = content
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"callbacks": {"Mine": {"model": torch.nn.Linear(1, 1)}}}, r"callbacks\.Mine\.model: a Linear object"),
        ({"list": [1, (2, {3})]}, r"list\.1\.1: a set object"),
        ({"a": {(1, 2): 3}}, r"a: the key \(1, 2\) is of type tuple"),
        ({"a": {True: 3}}, r"a: the key True is of type bool"),
        ({"a": torch.ones(2).to_sparse()}, r"a: a tensor of layout torch.sparse_coo"),
        ({"a": torch.ones(2, device="meta")}, r"a: a tensor on the meta device"),
        (endless(), r"self\.self.*contains itself"),
    ],
)
def test_other_objects_are_refused_by_their_path(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        write(tmp_path / "f", content)
    assert not list(tmp_path.iterdir())


def refused(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        read(path)
    except DamagedFileError:
        return True
    return False


def test_every_flipped_bit_is_refused(tmp_path: Path, small: Path) -> None:
    data = small.read_bytes()
    random_bits = random.Random(0).sample(range(8 * len(data)), 400)
    case_bits = [8 * position + 5 for position in range(len(data))]  # turns hexadecimal digits into their other case
    for bit in {*random_bits, *case_bits}:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert refused(tmp_path / "f", bytes(changed)), bit


def test_every_truncation_and_every_byte_more_is_refused(tmp_path: Path, small: Path) -> None:
    data = small.read_bytes()
    assert all(refused(tmp_path / "f", data[:length]) for length in range(0, len(data), 3))
    assert all(refused(tmp_path / "f", data + more) for more in (b"\0", b" ", data))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'{"__metadata__":{', b'{"__metadata__": {').replace(b"}  ", b"} ", 1),
        lambda text: text.replace(b"\\\\u00e9", b"\xc3\xa9    ", 1),
        lambda text: text.replace(b'"shape":[3,5]', b'"shape":[5,3]'),
        lambda text: text.replace(b'\\"lr\\":0.5', b'\\"lr\\":5e-1', 1),
        lambda text: text.replace(b"}   ", b"}\n  ", 1),
    ],
    ids=["space", "escape", "shape", "number", "padding"],
)
def test_a_header_that_says_the_same_in_other_bytes_is_refused(
    tmp_path: Path, small: Path, change: Callable[[bytes], bytes]
) -> None:
    data = small.read_bytes()
    assert change(data) != data
    assert refused(tmp_path / "f", change(data))


def test_the_reason_of_a_refusal_is_named(tmp_path: Path, small: Path) -> None:
    data = small.read_bytes()
    for damaged, reason in (
        (data[:-1], r"truncated: the file has \d+ of \d+ bytes"),
        (data[:20], "truncated"),
        (data + b"1", "1 bytes follow the end"),
        (data[:-3] + b"oop", "checksum of tensor mask differs"),
        (b"weights", "truncated: the file has 7 bytes"),
        (b"not weights, but some longer text", "not a tensor file"),
    ):
        (tmp_path / "f").write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=reason):
            read(tmp_path / "f")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing")


def test_files_of_other_programs_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "f", metadata={"format": "pt"})
    with pytest.raises(DamagedFileError, match="not a tensor file"):
        read(tmp_path / "f")


FULL = """
import os, resource, sys, torch
from pathlib import Path
from eztorch_sce.tensor_file import write
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write(Path(sys.argv[1]), {"a": torch.ones(1_000_000)})
except OSError as error:
    print("refused by the system:", error.errno)
"""


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, small: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(small.read_bytes())
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True)
    assert "refused by the system" in done.stdout, done.stderr
    assert read(path)["step"] == 3
    assert os.listdir(tmp_path) == ["f"]


def test_the_last_complete_file_of_many_writers_stays(tmp_path: Path) -> None:
    path, seen = tmp_path / "f", set[int]()
    write(path, {"n": 0, "t": torch.zeros(5000)})

    def write_some(first: int) -> None:
        for number in range(first, first + 10):
            write(path, {"n": number, "t": torch.full((5000,), float(number))})

    threads = [threading.Thread(target=write_some, args=(start,)) for start in (10, 30, 50)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        content = read(path)
        assert (content["t"] == content["n"]).all()
        seen.add(content["n"])
    assert read(path)["n"] in (19, 39, 59)
    assert len(seen) > 1
    assert os.listdir(tmp_path) == ["f"]
