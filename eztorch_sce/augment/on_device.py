"""The device form of the views: few kernels for a whole batch, and no waiting for the device.

The form for CPUs (`on_cpu`) is the reference: it goes over parts of a batch that stay in the cache, and only over the
samples that draw an operation. On a GPU, launching a kernel takes longer than such a part. So here views of one size
are made together, every operation is applied to all samples, and a sample that does not draw it gets numbers that
change nothing. The same draws give the same pixels, up to rounding.
"""

import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eztorch_sce.augment import device_pixels
from eztorch_sce.augment.device_numbers import (
    Numbers,
    Plan,
    ViewWork,
    plan_and_numbers,
    possible_operations,
    sent_together,
)
from eztorch_sce.augment.draws import Draws
from eztorch_sce.augment.ops import blur_kernel_size
from eztorch_sce.precision import exact_float32
from eztorch_sce.transfers import to_device

CHUNK_BYTES = 2**30
"""Bound on the frames that are processed at once, in float32. The operations hold about four copies of them, so 4 GiB.
A kernel over 1 GiB takes half a millisecond or more, which hides the launches that more chunks need."""


class DeviceAugmentation:
    """Makes the views of a batch on its device, those of one size together."""

    def __init__(self) -> None:
        self._options: dict[str, Any] | None = None
        self._compiled: dict[tuple[object, ...], Callable[..., Tensor]] = {}
        self._blur_bases: dict[tuple[torch.device, int], Tensor] = {}

    @property
    def is_compiled(self) -> bool:
        """Whether `compile` was called."""
        return self._options is not None

    def compile(self, **options: Any) -> None:
        """Compile the operations on pixels at the next call, one graph per size of views.

        Args:
            options: Those of `torch.compile`.
        """
        self._options, self._compiled = {"fullgraph": True} | options, {}

    @torch.no_grad()
    def __call__(self, works: Sequence[ViewWork], dtype: torch.dtype, channels_last: bool) -> list[Tensor]:
        """Return the views, (B, 3, T, S, S) each.

        Args:
            works: The views to make, all of the same samples.
            dtype: Type of the views.
            channels_last: Whether they have the strides of `torch.channels_last_3d`.
        """
        if not works:
            return []
        groups: dict[tuple[object, ...], list[int]] = {}
        for position, work in enumerate(works):
            groups.setdefault(_kind(work), []).append(position)
        chunks = [self._chunks([works[position] for position in group]) for group in groups.values()]
        sent = iter(sent_together([chunk.numbers for group in chunks for chunk in group], works[0].frames.device))
        views: dict[int, Tensor] = {}
        with exact_float32():
            for (kind, group), parts in zip(groups.items(), chunks, strict=True):
                frames = [works[position].frames for position in group]
                numbers = [self._with_blur_basis(next(sent), part.plan, frames[0].device) for part in parts]
                together = self._made(kind, frames, parts, numbers, dtype, channels_last)
                views |= zip(group, together.split(len(frames[0])), strict=True)
        return [views[position] for position in range(len(works))]

    def _chunks(self, works: Sequence[ViewWork]) -> list["_Chunk"]:
        """Return the parts of a group of views that are processed at once, with their numbers."""
        draws = Draws.joined([work.draws for work in works])
        boxes, mean_and_std = _boxes(works), _statistics(works)
        frames, size = works[0].frames, works[0].size
        num_frames, height, width = frames.shape[2:]
        num_rows = len(draws.flip)
        sample_bytes = 4 * 3 * num_frames * max(height * width, size * size)
        # Compiled code holds little in between, and its graphs are of one number of samples.
        at_once = num_rows if self.is_compiled else max(1, CHUNK_BYTES // sample_bytes)
        possible = possible_operations(works) if self.is_compiled else None
        chunks = []
        for first in range(0, num_rows, at_once):
            rows = slice(first, min(first + at_once, num_rows))
            plan, numbers = plan_and_numbers(
                draws.rows(rows),
                None if boxes is None else boxes[rows],
                None if mean_and_std is None else mean_and_std[:, rows],
                (frames.dtype, num_frames, height, width),
                size,
                possible,
            )
            chunks.append(_Chunk(rows, plan, numbers))
        return chunks

    def _made(
        self,
        kind: tuple[object, ...],
        frames: Sequence[Tensor],
        parts: Sequence["_Chunk"],
        numbers: Sequence[device_pixels.DeviceNumbers],
        dtype: torch.dtype,
        channels_last: bool,
    ) -> Tensor:
        """Return the views of a group, one after the other along the batch axis."""
        memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
        if self._options is not None:
            if kind not in self._compiled:
                function = _own_copy(device_pixels.augment, f"augment_{len(self._compiled)}")
                self._compiled[kind] = torch.compile(function, **self._options)
            return self._compiled[kind](frames, numbers[0], parts[0].plan, dtype, memory_format)
        plan = parts[0].plan
        shape = (parts[-1].rows.stop, 3, plan.num_frames, plan.size, plan.size)
        views = torch.empty(shape, dtype=dtype, device=frames[0].device, memory_format=memory_format)
        for part, arrays in zip(parts, numbers, strict=True):
            device_pixels.augment_into(views[part.rows], _pieces(frames, part.rows), arrays, part.plan)
        return views

    def _with_blur_basis(
        self, numbers: device_pixels.DeviceNumbers, plan: Plan, device: torch.device
    ) -> device_pixels.DeviceNumbers:
        """Add the matrix that makes matrices of kernels. It is large, so it stays on the device."""
        if not plan.blurs:
            return numbers
        key = (device, plan.size)
        if key not in self._blur_bases:
            num_taps = blur_kernel_size(plan.size) // 2 + 1
            self._blur_bases[key] = to_device(device_pixels.blur_basis(plan.size, num_taps), device)
        return numbers | {"blur_basis": self._blur_bases[key]}


class _Chunk(NamedTuple):
    """Samples that are processed at once: rows of a group of views, their operations and numbers."""

    rows: slice
    plan: Plan
    numbers: Numbers


def _kind(work: ViewWork) -> tuple[object, ...]:
    """Return the properties that views must share to be made together."""
    frames = work.frames
    return work.size, tuple(frames.shape[1:]), frames.dtype, work.boxes is None, work.statistics is None


def _boxes(works: Sequence[ViewWork]) -> NDArray[np.float64] | None:
    """Return the boxes of all views of a group, (N, 4)."""
    boxes = [work.boxes for work in works if work.boxes is not None]
    return np.concatenate(boxes) if boxes else None


def _statistics(works: Sequence[ViewWork]) -> NDArray[np.float64] | None:
    """Return the mean and standard deviation of each sample of a group, (2, N, 3)."""
    statistics = [np.array(work.statistics) for work in works if work.statistics is not None]
    if not statistics:
        return None
    batch = len(works[0].frames)
    return np.concatenate([np.repeat(values[:, None], batch, axis=1) for values in statistics], axis=1)


def _pieces(frames: Sequence[Tensor], rows: slice) -> list[Tensor]:
    """Return the frames of some rows of a group, of which each view has one after the other."""
    batch, pieces = len(frames[0]), []
    for number, clips in enumerate(frames):
        first, last = max(rows.start - number * batch, 0), min(rows.stop - number * batch, batch)
        if first < last:
            pieces.append(clips[first:last])
    return pieces


def _own_copy(function: types.FunctionType | Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """Return a copy of a function that `torch.compile` takes for another one.

    It keeps its graphs by the code of a function, and after a second size would make sizes variables of the graph.
    """
    assert isinstance(function, types.FunctionType)
    return types.FunctionType(function.__code__.replace(co_name=name), function.__globals__, name)
