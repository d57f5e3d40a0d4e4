"""Data that are not files of a folder: a source reads records from wherever they are.

A source may wrap arrays, HDF5 files, a Hugging Face or torchvision data set, or a list of paths. It is passed to a
function in Python, or its config is registered in the group "source" and chosen with `data.source=NAME`.
"""

import copy
import hashlib
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from eztorch_sce.data.frame_names import split_frames_path
from eztorch_sce.data.media import IMAGE_SUFFIXES, suffix_of
from eztorch_sce.errors import MediaError, SourceError, first_line
from eztorch_sce.objects import name_of_object

Frames: TypeAlias = Tensor | npt.NDArray[Any] | str | os.PathLike[str]
"""What `Source.read` returns."""

_EXPECTED = "expected uint8 (C, T, H, W) or (C, H, W) with C = 1 or 3, or the path of a file"
_PACKAGE = os.path.join(str(Path(__file__).parents[2]), "")
_WORDS = {"image": "images", "video": "videos"}


@runtime_checkable
class Source(Protocol):
    """Data set that reads its records itself.

    Three attributes are optional:

    - `classes`, a sequence of class names: what the numbers that `label` returns stand for, or the order of its names.
    - `fps`, the frames per second of videos that `read` returns as arrays; 25 by default, as for folders of images.
    - `kind`, "image" or "video"; by default that of the first record.

    A source is copied to the processes that read it, so a file is best opened when a record is first read.
    """

    def __len__(self) -> int:
        """Return the number of records."""

    def read(self, index: int, /) -> Frames:
        """Return the pixels of a record, or the path of a file to decode.

        A video is a uint8 tensor or array (C, T, H, W), an image (C, H, W), with C = 3 (RGB) or 1 (gray). A path names
        a video, an image or a folder of frames.

        Raises:
            MediaError, OSError, ValueError: If the record cannot be read: a training then leaves it out and lists it in
                `unreadable.csv`, and an evaluation stops. Any other exception stops every run.
        """

    def label(self, index: int, /) -> int | str | None:
        """Return the number or the name of the class of a record; None if it is unlabeled."""

    def name(self, index: int, /) -> str:
        """Return the name of a record, which must be unique: messages, lists and later evaluations identify it so."""


@runtime_checkable
class SourceConfig(Protocol):
    """Settings of a source registered in the group "source"."""

    def build(self, split: str) -> Source | None:
        """Return the source of a split, "train" or "test"; None if the data have no test split.

        Raises:
            ConfigError, OSError, ValueError: If the data cannot be opened.
        """


class OpenedSource:
    """A source whose records are checked when they are read.

    Args:
        source: The source.
        kind: "image" or "video"; None accepts both.
        fps: Frames per second of videos in memory; None for the convention of folders of images.
    """

    def __init__(self, source: Source, kind: str | None, fps: float | None) -> None:
        self.source, self.kind, self.fps = source, kind, fps
        self._here: Source | None = None  # made when it is used, by the main process

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_here": None}

    @property
    def title(self) -> str:
        """Name of the class of the source, for messages."""
        return title_of(self.source)

    def read(self, index: int, name: str, here: bool = False) -> "Tensor | npt.NDArray[np.uint8] | str":
        """Return the uint8 frames of a record, (C, T, H, W) or for an image (C, H, W), or the path of a file.

        Args:
            index: Index of the record in the source.
            name: Its name.
            here: Read by `here`, in the main process.

        Raises:
            MediaError: If the source says that the record cannot be read.
            SourceError: If it raises anything else, or returns something else.
        """
        value = read_record(self.here if here else self.source, index, name)
        if isinstance(value, (str, os.PathLike)):
            value = os.fspath(value)
        problem = problem_of(value) or self._other_kind(value)
        if problem:
            raise SourceError(f"{self.title}.read({index}) {problem} (record {name})")
        assert isinstance(value, (str, Tensor, np.ndarray))
        return value

    def fingerprint(self, index: int, name: str) -> int | str:
        """Return a hash of the pixels of a record, of the first and the last frame of a video, or the path of its file.

        The hash has 63 bits; it is -1 if the record cannot be read.
        """
        try:
            value = self.read(index, name, here=True)
        except (MediaError, SourceError):  # it stands for no content; who needs the record will say why
            return -1
        if isinstance(value, str):
            return value
        frames = [value] if value.ndim == 3 else [value[:, 0], value[:, -1]]
        digest = hashlib.blake2b(repr(tuple(value.shape)).encode(), digest_size=8)
        for frame in frames:
            digest.update(np.ascontiguousarray(frame).tobytes())
        return int.from_bytes(digest.digest(), "little") >> 1

    @property
    def here(self) -> Source:
        """A shallow copy for what the main process asks of the source before it starts workers.

        A file that the source opens when it is first used is then not open in the workers, which would share it.
        """
        if self._here is None:
            try:
                # A copy that closes what it shares with the original would be worse than none.
                self._here = self.source if hasattr(self.source, "__del__") else copy.copy(self.source)
            except Exception:  # not every object can be copied; it then is what it is, as without this precaution
                self._here = self.source
        return self._here

    def _other_kind(self, value: Any) -> str:
        """Return what is wrong with the kind of a valid record, or ""."""
        if (
            self.kind is None
            or kind_of(value) == self.kind
            or (self.kind == "video" and not isinstance(value, str) and value.ndim == 4)
        ):
            return ""
        cure = 'return (C, 1, H, W) for a video of one frame, or set `kind = "image"`'
        if self.kind == "image":
            cure = 'give images and videos as two sources, or set `kind = "video"` if these are videos'
        what = f"returned {_in_words(value)}, but the records are {_WORDS[self.kind]}"
        return f"{what}, as told by `kind` or by the first record; {cure}"


class SourceRows(NamedTuple):
    """The records of one or several sources, as rows of a table.

    Attributes:
        sources: The sources.
        number: Index into `sources` of each row, or None if there is only one.
        row: Index of each row in its source, or None if it is the same.
    """

    sources: Sequence[OpenedSource]
    number: npt.NDArray[np.int64] | None = None
    row: npt.NDArray[np.int64] | None = None

    def at(self, row: int) -> tuple[OpenedSource, int]:
        """Return the source of a row, and the index of the row in it."""
        if self.number is None or self.row is None:
            return self.sources[0], row
        return self.sources[int(self.number[row])], int(self.row[row])

    @classmethod
    def join(cls, parts: Sequence[tuple["SourceRows", npt.NDArray[np.int64]]]) -> "SourceRows":
        """Return the given rows of several tables, one after the other."""
        sources: list[OpenedSource] = []
        numbers, indices = [], []
        for table, rows in parts:
            number = np.zeros(len(rows), np.int64) if table.number is None else table.number[rows]
            numbers.append(number + len(sources))
            indices.append(rows if table.row is None else table.row[rows])
            sources += table.sources
        return cls(sources, np.concatenate(numbers), np.concatenate(indices))


def title_of(source: object) -> str:
    """Return the name of the class of a source, with its module unless that is the script itself."""
    return name_of_object(source).removeprefix("__main__.").removeprefix("builtins.")


def read_record(source: Source, index: int, name: str) -> Any:
    """Return what a source reads, whatever it is.

    Raises:
        MediaError: If the source says that the record cannot be read.
        SourceError: If it raises anything else.
    """
    try:
        return source.read(index)
    except MediaError as error:
        raise MediaError(name, error.reason if error.path == name else str(error)) from error
    except (OSError, ValueError) as error:
        raise MediaError(name, first_line(error)) from error
    except Exception as error:
        raise mistake(error, f"{title_of(source)}.read({index})", f" (record {name})") from error


def mistake(error: Exception, call: str, about: str = "") -> SourceError:
    """Return the error for an exception that a call of a source raised, with the line that raised it.

    Args:
        error: The exception.
        call: The call, as in "MySource.read(3)".
        about: What else to say about the call.
    """
    name, text = type(error).__name__, first_line(error)
    message = f"{call} raised {text if text.startswith(name) else f'{name}: {text}'}{about}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_PACKAGE)]
    if frames:  # the last line of the file that was called, not of a library that it calls
        last = [frame for frame in frames if frame.filename == frames[0].filename][-1]
        message += f", at {last.filename}, line {last.lineno}: {last.line}"
    return SourceError(message)


def kind_of(value: Any) -> str:
    """Return "image" or "video" for what a source read; a video of one frame in memory is an image."""
    if isinstance(value, str):
        return "image" if kind_of_file(value) == "image" else "video"
    return "image" if value.ndim == 3 or value.shape[1] == 1 else "video"


def kind_of_file(path: str) -> str:
    """Return the kind of record, "video", "image" or "frames", that a path names."""
    _, pattern = split_frames_path(path)
    if os.path.isdir(path) or (pattern and not os.path.isfile(path)):
        return "frames"
    return "image" if suffix_of(path) in IMAGE_SUFFIXES else "video"


def problem_of(value: Any) -> str:
    """Return what is wrong with what a source read, or "", with the cure."""
    if isinstance(value, str):
        return "" if value else f"returned an empty path; {_EXPECTED}"
    if not isinstance(value, (Tensor, np.ndarray)):
        return f"returned {_described(value)}; {_EXPECTED}"
    is_tensor = isinstance(value, Tensor)
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return f"returned a tensor on {value.device}; return it on the CPU: the frames of a batch are moved together"
    shown = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if value.dtype != (torch.uint8 if is_tensor else np.uint8):
        return f"returned {shown}; {_EXPECTED}, with values from 0 to 255: {_as_uint8(value)}"
    if value.ndim not in (3, 4) or value.shape[0] not in (1, 3):
        return f"returned {shown}; {_EXPECTED}{_axes_cure(value)}"
    return f"returned {shown}, which has no pixels" if 0 in value.shape else ""


def _described(value: Any) -> str:
    """Return a value that is no array in words, with the cure for common ones."""
    if value is None:
        return "None (to leave out a record that cannot be read, raise ValueError with the reason)"
    if type(value).__module__.startswith("PIL."):
        return 'a PIL image (use np.asarray(image.convert("RGB")).transpose(2, 0, 1))'
    if isinstance(value, (bytes, bytearray)):
        return "encoded bytes (decode them, as torchvision.io.decode_image does)"
    if isinstance(value, (tuple, dict)):
        return f"a {type(value).__name__} (return the frames alone; the label is what `label` returns)"
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _as_uint8(value: "Tensor | npt.NDArray[Any]") -> str:
    """Return how to convert an array to uint8."""
    is_tensor = isinstance(value, Tensor)
    is_float = value.dtype.is_floating_point if isinstance(value, Tensor) else value.dtype.kind == "f"
    convert = "to(torch.uint8)" if is_tensor else "astype(np.uint8)"
    return f"if they are from 0 to 1, (255 * x).round().{convert}" if is_float else f"x.{convert}"


def _axes_cure(value: "Tensor | npt.NDArray[Any]") -> str:
    """Return how to bring the axes of an array into the right order, if that can be told."""
    shape, order = tuple(value.shape), ""
    if len(shape) == 2:
        return "; for a gray image, x[None]"
    if len(shape) == 3 and shape[-1] in (1, 3, 4):
        order = "2, 0, 1"
    elif len(shape) == 4 and shape[-1] in (1, 3, 4):
        order = "3, 0, 1, 2"
    elif len(shape) == 4 and shape[1] in (1, 3):
        order = "1, 0, 2, 3"
    elif 4 in shape[:1]:
        return "; leave out the alpha channel with x[:3]"
    transpose = "permute" if isinstance(value, Tensor) else "transpose"
    return f"; if the channels are on another axis, x.{transpose}({order})" if order else ""


def _in_words(value: Any) -> str:
    if isinstance(value, str):
        return f"the {'image' if kind_of(value) == 'image' else 'video'} {value}"
    return f"an image {tuple(value.shape)}" if value.ndim == 3 else f"{value.shape[1]} frames {tuple(value.shape)}"
