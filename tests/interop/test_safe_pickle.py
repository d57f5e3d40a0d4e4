"""Tests of the restricted unpickler: nothing of a hostile pickle is run, imported or called."""

import argparse
import builtins
import functools
import importlib
import operator
import os
import pickle
import runpy
import subprocess
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from eztorch_sce.errors import DamagedFileError
from eztorch_sce.interop.containers import read_container


class Call:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.args


def ways(marker: Path) -> dict[str, Call]:
    """Return objects whose unpickling would create a file, or load something that could, by what they call first."""
    touch = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w')"
    return {
        ".system": Call(os.system, touch),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(marker)]),
        "subprocess.check_output": Call(subprocess.check_output, ["touch", str(marker)]),
        "builtins.eval": Call(eval, python),
        "builtins.exec": Call(exec, python),
        "builtins.__import__": Call(builtins.__import__, "this"),
        "importlib.import_module": Call(importlib.import_module, "antigravity"),
        "io.open": Call(open, str(marker), "w"),
        "functools.reduce": Call(functools.reduce, os.system, [touch]),
        "operator.methodcaller": Call(operator.methodcaller, "system", touch),
        "runpy.run_path": Call(runpy.run_path, str(marker)),
        "pickle.loads": Call(pickle.loads, pickle.dumps(Call(os.system, touch))),
        "torch.hub.load": Call(torch.hub.load, str(marker), "model"),
        "torch.serialization.load": Call(torch.load, str(marker)),
        "load, which": Call(np.load, str(marker)),
        "system, which": Call(functools.partial(os.system, touch)),
    }


FILES: dict[str, Callable[[Any, Path], None]] = {
    **{f"protocol {number}": functools.partial(lambda n, what, path: path.write_bytes(pickle.dumps(what, n)), number)
       for number in range(6)},
    "torch.save": lambda what, path: torch.save(what, path),
    "torch.save, legacy": lambda what, path: torch.save(what, path, _use_new_zipfile_serialization=False),
}  # fmt: skip


def refusal(path: Path) -> str:
    with pytest.raises(DamagedFileError) as caught:
        read_container(path)
    assert "weights_only" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("way", ways(Path()))
def test_a_pickle_that_would_run_code_is_refused_by_the_name_of_what_it_calls(
    tmp_path: Path, way: str, file: str
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "file"
    FILES[file]({"state_dict": {"a": torch.ones(2)}, "more": [1, ways(marker)[way]]}, path)
    before = set(sys.modules)
    reason = refusal(path)
    assert not marker.exists()
    assert "run code on your machine" in reason
    assert way.removeprefix("builtins") in reason
    assert not {"antigravity", "this"} & (set(sys.modules) - before)


def test_the_hostile_pickles_of_these_tests_do_run_code_in_pythons_unpickler(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "file"
    path.write_bytes(pickle.dumps(ways(marker)[".system"]))
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.load(open({str(path)!r}, 'rb'))"], check=True)
    assert marker.exists()


# Operations that `pickle.dump` does not write


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "posix.system|os.system"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'true'\no.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x04\x8c\x10omegaconf.errors\x8c\x09os.system\x93\x8c\x04true\x85R.", "it calls"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x13abc.sys.modules.get\x93.", "collections.abc.sys.modules.get"),
        (b"c__builtin__\nexecfile\n(S'x'\ntR.", "execfile"),
        (b"ccommands\ngetoutput\n(S'true'\ntR.", "subprocess.getoutput"),
        (b"cpip\nmain\n(lp0\ntR.", "pip.main"),
        (b"c__main__\npayload\n(tR.", "__main__.payload"),
        (b"csome.library\nrun_command\n(S'true'\ntR.", "some.library.run_command"),
        (b"cbuiltins\ngetattr\n(csome.library\nConfig\nS'load'\ntR(tR.", "calls what is no function"),
        (b"cbuiltins\ngetattr\n(csome.library\nConfig\nS'__init__'\ntR.", "builtins.getattr"),
        (b"carray\narray\n.", "array.array"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"Pidentifier\n.", "not in the file"),
        (b"cargparse\nNamespace\n}(S'__class__'\nI1\nub.", "changes a class"),
        (b"cbuiltins\nbytearray\n(I1000000000000\ntR.", "bytes of what are none"),
        (b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.", "rot13"),
    ],
)  # fmt: skip
def test_a_hand_written_pickle_is_refused_in_words(tmp_path: Path, program: bytes, reason: str) -> None:
    (tmp_path / "file").write_bytes(program)
    with pytest.raises(DamagedFileError, match=reason):
        read_container(tmp_path / "file")


def test_a_module_that_a_pickle_names_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "open({!r}, 'w').close()\nclass Config:\n    def __setstate__(self, state):\n        raise SystemExit\n"
    (tmp_path / "someones_config.py").write_text(text.format(str(tmp_path / "marker")))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("someones_config")
    config = module.Config()
    config.lr = 0.1
    torch.save({"state_dict": {"a": torch.ones(2)}, "config": config}, tmp_path / "file")
    (tmp_path / "marker").unlink()
    del sys.modules["someones_config"]
    container = read_container(tmp_path / "file")
    assert container.objects == {"config": "someones_config.Config"}
    assert container.values == {"config.lr": 0.1}
    assert list(container.tensors) == ["state_dict.a"]
    assert not (tmp_path / "marker").exists()
    assert "someones_config" not in sys.modules


# What is rebuilt


class Settings(dict):  # type: ignore[type-arg]  # like EasyDict or yacs' CfgNode
    """A dictionary with attributes."""


@pytest.mark.parametrize("file", FILES)
def test_tensors_and_the_plain_values_of_configurations_are_rebuilt(tmp_path: Path, file: str) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = OrderedDict(a=base, b=base.t()[1:], c=torch.tensor(3), d=torch.zeros(0, 3), e=base.half(), g=base > 3)
    settings = Settings(depth=50)
    settings.more = 1  # type: ignore[attr-defined]
    content = {
        "model": state,
        "parameter": torch.nn.Parameter(base),
        "epoch": 3,
        "args": argparse.Namespace(arch="resnet50", lr=0.1),
        "config": OmegaConf.create({"model": {"sizes": [1, 2]}, "name": "sce"}),
        "settings": settings,
        "root": Path("/data/x"),
        "scores": defaultdict(list, {"top1": [0.5]}),
        "numpy": np.float32(0.5),
        "words": {"été", b"bytes"},
        7: {"exp_avg": base},
        "device": base.device,
        "dtype": torch.bfloat16,
    }
    FILES[file](content, tmp_path / "file")
    container = read_container(tmp_path / "file")
    for name, tensor in state.items():
        found = container.tensors[f"model.{name}"]
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor), name
    assert torch.equal(container.tensors["parameter"], base)
    assert torch.equal(container.tensors["7.exp_avg"], base)
    values = dict(container.values)
    assert {values.pop("words.0"), values.pop("words.1")} == {"été", "bytes"}
    assert values == {
        "epoch": 3,
        "args.arch": "resnet50",
        "args.lr": 0.1,
        "config.model.sizes.0": 1,
        "config.model.sizes.1": 2,
        "config.name": "sce",
        "settings.depth": 50,
        "settings.more": 1,
        "root": "/data/x",
        "scores.top1.0": 0.5,
        "numpy": 0.5,
        "device": "cpu",
        "dtype": "torch.bfloat16",
    }
    assert container.objects == {
        "args": "argparse.Namespace",
        "config": "omegaconf.dictconfig.DictConfig",
        "settings": f"{__name__}.Settings",
    }


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_become_tensors_whatever_their_order_of_bytes_and_of_elements(tmp_path: Path, protocol: int) -> None:
    numbers = np.arange(6).reshape(2, 3)
    arrays: dict[Any, Any] = {
        b"big": numbers.astype(">f4"),
        "columns": np.asfortranarray(numbers.astype("f8")),
        "cut": numbers.astype("<i2")[:, ::2],
        "scalar": np.array(7, "u1"),
        "half": numbers.astype("f2"),
        "complex": (numbers * 1j).astype(">c8"),
        "flags": numbers > 2,
        "none": np.zeros((0, 3), "f4"),
    }
    words = {"names": np.array(["x", "été"]), "objects": np.array([1, "a", None], dtype=object)}
    (tmp_path / "file").write_bytes(pickle.dumps({"model": arrays, **words}, protocol))
    container = read_container(tmp_path / "file")
    for name, array in arrays.items():
        name = name.decode() if isinstance(name, bytes) else name
        expected = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")).copy())
        assert container.tensors[f"model.{name}"].dtype == expected.dtype
        assert torch.equal(container.tensors[f"model.{name}"], expected), name
    names = {"names.0": "x", "names.1": "été", "objects.0": 1, "objects.1": "a", "objects.2": None}
    assert container.values == names


def test_the_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I2\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        rb"I00" + b"\n" + rb"S'\x00\x00\x80?\x00\x00\x00@'" + b"\ntb"
    )
    (tmp_path / "file").write_bytes(b"(dS'model'\n(dS'conv1_w'\n" + array + b"ssS'note'\nS'caf\xc3\xa9'\ns.")
    container = read_container(tmp_path / "file")
    assert container.tensors["model.conv1_w"].tolist() == [1.0, 2.0]
    assert list(container.values) == ["note"]


def test_a_whole_module_is_read_as_its_state_dict(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2, eps=1e-3))
    network.register_buffer("scratch", torch.ones(3), persistent=False)
    torch.save({"model": network}, tmp_path / "file")
    container = read_container(tmp_path / "file")
    expected = network.state_dict()
    assert [name.removeprefix("model.") for name in container.tensors] == list(expected)
    assert all(torch.equal(container.tensors[f"model.{name}"], tensor) for name, tensor in expected.items())
    assert container.values["model.1.eps"] == 1e-3
    assert container.objects == {"model": "torch.nn.modules.container.Sequential"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_that_are_no_plain_ones_are_left_out_or_resolved(tmp_path: Path, legacy: bool) -> None:
    wave = torch.tensor([1 + 2j, 3 - 4j])
    content = {
        "sparse": torch.eye(2).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "meta": torch.ones(2, device="meta"),
        "conjugate": wave.conj(),
        "negative": wave.clone().conj().imag,
        "dates": np.array(["2020-01-01"], "M8[D]"),
        "records": np.zeros(1, [("a", "f4")]),
    }
    torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=not legacy)
    container = read_container(tmp_path / "file")
    assert {name: tensor.tolist() for name, tensor in container.tensors.items()} == {
        "conjugate": [1 - 2j, 3 + 4j],
        "negative": [-2.0, 4.0],
    }
    assert list(container.objects) == ["sparse", "quantized", "meta"]
    assert container.values == {"dates": "an array of the type M8", "records": "an array of the type V4"}


def test_tensors_that_share_memory_share_it_again(tmp_path: Path) -> None:
    base = torch.zeros(2, 3)
    torch.save({"a": base, "b": base.t(), "c": base[1]}, tmp_path / "file")
    tensors = read_container(tmp_path / "file").tensors
    tensors["a"][1, 2] = 5
    assert tensors["b"][2, 1] == tensors["c"][2] == 5
