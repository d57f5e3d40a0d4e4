"""Batches on their way from a worker process: one block of shared memory and a short message each."""

import pickle
from collections.abc import Iterable
from multiprocessing.reduction import ForkingPickler
from typing import NamedTuple

import torch
from torch import Tensor

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


class Parcel:
    """A batch that a worker process sends.

    All its tensors lie in one block of shared memory, into which each sample is copied once: the batch needs a single
    open file, whatever the number of views. The message is prepared where the block is filled, rather than in the
    thread that sends it, where an error would be printed and the batch lost without the main process knowing.

    Attributes:
        message: The pickled content.
    """

    def __init__(self, items: Iterable[Sample | Failure], most: int) -> None:
        """Fill a block with samples.

        Args:
            items: Samples and failures.
            most: Number of items.

        Raises:
            RuntimeError: If shared memory or open files are exhausted.
        """
        block, layouts = None, list[_Layout]()
        columns: list[tuple[int, int, int, float]] = []
        failures: list[Failure] = []
        for item in items:
            if isinstance(item, Failure):
                failures.append(item)
                continue
            if block is None:
                layouts = _layouts(item, most)
                block = _shared_block(layouts[-1].stop)
                views = [layout.of(block, most) for layout in layouts[:-4]]
            for view, frames in zip(views, item.frames, strict=True):
                if frames.shape != view.shape[1:]:
                    raise RuntimeError(f"samples of one batch have frames of {frames.shape} and {view.shape[1:]}")
                view[len(columns)].copy_(frames)
            columns.append((item.label, item.record, item.epoch, item.aspect))
        if block is not None:
            for layout, column in zip(layouts[-4:], zip(*columns, strict=True), strict=True):
                layout.of(block, len(columns)).copy_(torch.tensor(column, dtype=layout.dtype))
        self.message = bytes(ForkingPickler.dumps((block, layouts, len(columns), failures)))

    def open(self) -> Batch:
        """Return the batch. Its frames share the block; its columns do not, so they may be kept without the frames."""
        block, layouts, num_samples, failures = pickle.loads(self.message)
        if block is None:
            none = torch.empty(0, dtype=torch.long)
            return Batch([], none, none, none, torch.empty(0), failures)
        tensors = [layout.of(block, num_samples) for layout in layouts]
        label, record, epoch, aspect = (column.clone() for column in tensors[-4:])
        return Batch(tensors[:-4], label, record, epoch, aspect, failures)

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


def _shared_block(num_bytes: int) -> Tensor:
    """Return an uninitialized block of shared memory, uint8 (num_bytes,)."""
    storage = torch.UntypedStorage._new_shared(num_bytes)
    return torch.empty(0, dtype=torch.uint8).set_(storage)
