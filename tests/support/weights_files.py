"""The same weights in every container that is read."""

import json
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from eztorch_sce import tensor_file

State = Mapping[str, Tensor]

STATE: State = {
    "conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2) / 7,
    "norm.running_mean": torch.tensor([0.5, -2.0]),
    "norm.num_batches_tracked": torch.tensor(3),
    "half": torch.tensor([1.5, -0.25], dtype=torch.float16),
}


def torch_tar(state: State, path: Path) -> None:
    """Write a file as the first versions of `torch.save` did: a TAR archive of storages, tensors and a pickle."""
    storages, tensors, program = BytesIO(), BytesIO(), BytesIO()
    for stream in (storages, tensors):
        pickle.dump(len(state), stream, 2)
    for key, tensor in enumerate(state.values()):
        kind = {torch.float32: "Float", torch.int64: "Long", torch.float16: "Half"}[tensor.dtype]
        pickle.dump((key, "cpu", getattr(torch, f"{kind}Storage")), storages, 2)
        storages.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
        pickle.dump((100 + key, key, getattr(torch, f"{kind}Tensor")), tensors, 2)
        dims = tensor.dim()
        tensors.write(struct.pack(f"<ii{2 * dims}qq", dims, 0, *tensor.shape, *tensor.stride(), 0))
    pickle.dump([], storages, 2)

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> int | None:
            keys = [100 + key for key, tensor in enumerate(state.values()) if tensor is obj]
            return keys[0] if keys else None

    Pickler(program, 2).dump(dict(state))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, stream in (("storages", storages), ("tensors", tensors), ("pickle", program)):
            member = tarfile.TarInfo(name)
            member.size = stream.tell()
            stream.seek(0)
            archive.addfile(member, stream)


def folder(state: State, path: Path) -> None:
    """Write a folder as of the Hugging Face Hub."""
    path.mkdir()
    save_file(dict(state), path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5]}}))


def folder_of_parts(state: State, path: Path) -> None:
    """Write a folder as of the Hugging Face Hub, with two files of weights."""
    path.mkdir()
    places = {name: f"model-{1 + number % 2:05}-of-00002.safetensors" for number, name in enumerate(state)}
    for file in set(places.values()):
        save_file({name: tensor for name, tensor in state.items() if places[name] == file}, path / file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def folder_of_torch(state: State, path: Path) -> None:
    """Write a folder as older ones of the Hugging Face Hub."""
    path.mkdir()
    torch.save(dict(state), path / "pytorch_model.bin")


def pickle_of_arrays(state: State, path: Path) -> None:
    """Write a pickle of NumPy arrays, as Detectron2 does."""
    path.write_bytes(pickle.dumps({name: tensor.numpy() for name, tensor in state.items()}, 2))


def archive_of_arrays(state: State, path: Path) -> None:
    """Write an archive of NumPy."""
    with path.open("wb") as file:
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in state.items()}
        np.savez(file, **arrays)


CONTAINERS: Mapping[str, Callable[[State, Path], None]] = {
    "safetensors": lambda state, path: save_file(dict(state), path, {"format": "pt"}),
    "safetensors with checksums": lambda state, path: tensor_file.write(path, {"state": dict(state)}, root="state"),
    "torch.save (zip)": lambda state, path: torch.save(dict(state), path),
    "torch.save (legacy)": lambda state, path: torch.save(dict(state), path, _use_new_zipfile_serialization=False),
    "torch.save (tar)": torch_tar,
    "pickle": pickle_of_arrays,
    "NumPy archive (.npz)": archive_of_arrays,
    "folder (safetensors)": folder,
    "folder (torch.save (zip))": folder_of_torch,
}
"""Functions that write weights, by the kind of container."""
