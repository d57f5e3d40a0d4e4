"""Batches on their way from a worker process: one block of shared memory and a short message each."""

import errno
import itertools
import mmap
import os
import socket
import tempfile
import weakref
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from eztorch_sce.data.shared_memory import FOLDER
from eztorch_sce.types import Batch, Failure, Sample

_ALIGNMENT = 64  # bytes, at which each tensor of a block begins


class _Layout(NamedTuple):
    """Place of a tensor in a block: its first byte, and its shape and dtype; the first dimension is that of samples."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def stop(self) -> int:
        return self.start + int(torch.Size(self.shape).numel()) * self.dtype.itemsize

    def of(self, block: Tensor, num_samples: int) -> Tensor:
        """Return the tensor of the first `num_samples` samples in the block, which shares its memory."""
        layout = self._replace(shape=(num_samples, *self.shape[1:]))
        return block[layout.start : layout.stop].view(self.dtype).view(layout.shape)


class Channels:
    """Sockets through which the worker processes of a loader send the files of their blocks.

    A file that is sent stays in the socket whatever happens to its sender. (torch fetches it from the worker when the
    batch is opened, and waits for ever if the worker is stopped.)

    Args:
        num_workers: Number of worker processes.
    """

    def __init__(self, num_workers: int) -> None:
        self._pairs = [socket.socketpair() for _ in range(num_workers)]
        self.number = next(_numbers)
        _channels[self.number] = self
        weakref.finalize(self, _close, self._pairs)

    def send(self, worker: int, file: int) -> None:
        """Send a copy of a file descriptor to the main process."""
        socket.send_fds(self._pairs[worker][1], [b"f"], [file])

    def receive(self, worker: int) -> int:
        """Return the next file descriptor of a worker; the caller closes it.

        Raises:
            OSError: If this process has too many open files.
        """
        _, files, _, _ = socket.recv_fds(self._pairs[worker][0], 1, 1)
        if not files:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return files[0]


def _close(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    for pair in pairs:
        for end in pair:
            end.close()


_numbers = itertools.count()
_channels: "weakref.WeakValueDictionary[int, Channels]" = weakref.WeakValueDictionary()


class Parcel:
    """A batch that a worker process sends.

    All its tensors lie in one block of shared memory, into which each sample is copied once: the batch needs a single
    open file, whatever the number of views. The file is sent where the block is filled, rather than in the thread that
    sends the message, where an error would be printed and the batch lost without the main process knowing.
    """

    def __init__(self, items: Iterable[Sample | Failure], most: int, channels: Channels, worker: int) -> None:
        """Fill a block with samples, and send its file.

        Args:
            items: Samples and failures.
            most: Number of items.
            channels: The sockets of the loader.
            worker: Number of this worker process.

        Raises:
            OSError: If shared memory or open files are exhausted.
        """
        self._channels, self._worker, self._layouts = channels.number, worker, list[_Layout]()
        self._failures: list[Failure] = []
        columns: list[tuple[int, int, int, float]] = []
        file, block = -1, torch.empty(0)
        try:
            for item in items:
                if isinstance(item, Failure):
                    self._failures.append(item)
                    continue
                if file < 0:
                    self._layouts = _layouts(item, most)
                    file = _shared_file(self._layouts[-1].stop)
                    block = _mapped(file)
                    views = [layout.of(block, most) for layout in self._layouts[:-4]]
                for view, frames in zip(views, item.frames, strict=True):
                    if frames.shape != view.shape[1:]:
                        raise RuntimeError(f"samples of one batch have frames of {frames.shape} and {view.shape[1:]}")
                    view[len(columns)].copy_(frames)
                columns.append((item.label, item.record, item.epoch, item.aspect))
            if columns:
                for layout, column in zip(self._layouts[-4:], zip(*columns, strict=True), strict=True):
                    layout.of(block, len(columns)).copy_(torch.tensor(column, dtype=layout.dtype))
                channels.send(worker, file)
        finally:
            if file >= 0:
                os.close(file)
        self._num_samples = len(columns)

    def open(self) -> Batch:
        """Return the batch. Its frames share the block; its columns do not, so they may be kept without the frames.

        The parcels of a worker must be opened in the order in which they came, each once.
        """
        if not self._num_samples:
            none = torch.empty(0, dtype=torch.long)
            return Batch([], none, none, none, torch.empty(0), self._failures)
        file = _channels[self._channels].receive(self._worker)
        try:
            block = _mapped(file)
        finally:
            os.close(file)
        tensors = [layout.of(block, self._num_samples) for layout in self._layouts]
        label, record, epoch, aspect = (column.clone() for column in tensors[-4:])
        return Batch(tensors[:-4], label, record, epoch, aspect, self._failures)

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory. Called by torch, in its own thread."""
        return self.open().pin_memory()


def _layouts(sample: Sample, num_samples: int) -> list[_Layout]:
    """Return the places of the frames of each view, the labels, records, epochs and aspect ratios."""
    kinds = [((num_samples, *frames.shape), frames.dtype) for frames in sample.frames]
    kinds += [((num_samples,), torch.long)] * 3 + [((num_samples,), torch.float32)]
    layouts, stop = [], 0
    for shape, dtype in kinds:
        layouts.append(_Layout(-(-stop // _ALIGNMENT) * _ALIGNMENT, shape, dtype))
        stop = layouts[-1].stop
    return layouts


def _shared_file(num_bytes: int) -> int:
    """Return the descriptor of a new file in shared memory, which has no name and ends with its last user.

    Raises:
        OSError: If there is no room.
    """
    with tempfile.TemporaryFile(dir=FOLDER if os.path.isdir(FOLDER) else None) as file:
        os.ftruncate(file.fileno(), num_bytes)
        if hasattr(os, "posix_fallocate"):  # without it, a write to a full shared memory would end the process
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        return os.dup(file.fileno())


def _mapped(file: int) -> Tensor:
    """Return the bytes of a file as a tensor, uint8 (N,), that shares its memory."""
    return torch.frombuffer(mmap.mmap(file, 0), dtype=torch.uint8)
