"""Files that are not read: what they are, and the cure."""

import re
from pathlib import Path

from eztorch_sce.interop.tensor_bytes import Refused

_SAVE_STATE = "load it with its own library, and save the state dict of the network with torch.save or safetensors"
_UNPACK = "unpack it, and give the file of weights that is in it"
_DOWNLOAD = "download the file again"

_STARTS = (
    (rb"\x89HDF\r\n", f"an HDF5 file, such as of Keras; {_SAVE_STATE}"),
    (rb"\x1f\x8b", "compressed by gzip; decompress it first: gunzip FILE"),
    (rb"BZh", "compressed by bzip2; decompress it first: bunzip2 FILE"),
    (rb"\xfd7zXZ", "compressed by xz; decompress it first: unxz FILE"),
    (rb"\x28\xb5\x2f\xfd", "compressed by zstd; decompress it first: unzstd FILE"),
    (rb"7z\xbc\xaf|Rar!", f"a packed archive; {_UNPACK}"),
    (rb"GGUF|ggml", f"a file of llama.cpp; {_SAVE_STATE}"),
    (rb"....TFL3", f"a TensorFlow Lite file; {_SAVE_STATE}"),
    (rb"\x93NUMPY", "a single array of NumPy, not the weights of a network"),
    (rb"\x08.\x12.(tensorflow|saved_model)", f"a TensorFlow graph; {_SAVE_STATE}"),
    (
        rb"\x08[\x01-\x0f]\x12|\x08[\x01-\x0f]:|\x08[\x01-\x0f]B",
        f"an ONNX model or another protocol buffer; {_SAVE_STATE}",
    ),
    (rb"version https://git-lfs", "a pointer of Git LFS instead of the file; run `git lfs pull` where it comes from"),
    (rb"\s*(<!doctype|<html|<\?xml|<head)", f"a web page instead of a file of weights; {_DOWNLOAD}"),
    (rb"\s*[{\[]", "text in JSON; give the folder that it is in, or the file of weights beside it"),
    (rb"\x7fELF|MZ|#!", "a program, not a file of weights"),
    (rb"%PDF|\x89PNG|\xff\xd8\xff|GIF8|RIFF|....ftyp", "a document, image or video, not a file of weights"),
)
_NAMES = (
    (r"\.onnx$", f"an ONNX model; {_SAVE_STATE}"),
    (r"\.(h5|hdf5|keras)$", f"a Keras or HDF5 file; {_SAVE_STATE}"),
    (r"\.(index|meta)$|\.data-\d+-of-\d+$", f"part of a TensorFlow checkpoint; {_SAVE_STATE}"),
    (r"\.pb$|\.tflite$", f"a TensorFlow model; {_SAVE_STATE}"),
    (r"\.msgpack$", f"a Flax file; {_SAVE_STATE}"),
)
_PARTS = (
    (r"-\d{5}-of-(?!00001)\d{5}\.\w+$", "one of several parts; give the folder that they are in"),
    (r"\.distcp$", "part of a distributed checkpoint of PyTorch (DCP); give its folder"),
)
_DCP = (
    "a distributed checkpoint of PyTorch (DCP); make a file of it: "
    "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE"
)


def refuse_part(path: Path) -> None:
    """Raise an error if a file is one of several that make a checkpoint, by its name.

    Raises:
        Refused: With what it is, and the cure.
    """
    for ending, what in _PARTS:
        if re.search(ending, path.name):
            raise Refused(what)


def refuse_file(path: Path, start: bytes) -> None:
    """Raise an error if a file is of a kind that we do not read.

    Args:
        path: The file.
        start: Its first bytes.

    Raises:
        Refused: With what it is, and the cure.
    """
    if not start:
        raise Refused(f"empty; {_DOWNLOAD}")
    for pattern, what in _STARTS:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            raise Refused(what)
    for suffixes, what in _NAMES:
        if re.search(suffixes, path.name, re.IGNORECASE) and not start.startswith((b"PK", b"\x80")):
            raise Refused(what)


def refuse_folder(folder: Path, names: list[str]) -> None:
    """Raise an error if a folder is a checkpoint of a kind that we do not read.

    Raises:
        Refused: With what it is, and the cure.
    """
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        raise Refused(_DCP)
    if "saved_model.pb" in names or "keras_metadata.pb" in names:
        raise Refused(f"a SavedModel of TensorFlow; {_SAVE_STATE}")
    if any(re.search(r"\.index$|\.data-\d+-of-\d+$", name) for name in names):
        raise Refused(f"a checkpoint of TensorFlow; {_SAVE_STATE}")
    if any(re.fullmatch(r"(zero_pp_rank|mp_rank)_.*", name) for name in names) or "zero_to_fp32.py" in names:
        raise Refused("a checkpoint of DeepSpeed; make a file of it: python zero_to_fp32.py FOLDER FILE")
