"""Augmentation of a training batch on its device, from raw frames to the views that the network receives."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from eztorch_sce import distributed
from eztorch_sce.augment.device_numbers import ViewWork
from eztorch_sce.augment.draws import NUM_DRAWS, ViewParameters
from eztorch_sce.augment.on_device import DeviceAugmentation
from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.uniform import uniform_numbers
from eztorch_sce.augment.view import View, ViewConfig
from eztorch_sce.seeding import seeds_for
from eztorch_sce.types import Batch, ViewBatch

if TYPE_CHECKING:
    from eztorch_sce.config.names import ViewsName


class Views(nn.Module):
    """Crop (unless the workers already did), augment and normalize each view of a batch.

    Called with a batch of our loaders, the draws of a sample depend only on (seed, epoch, record, view). Called with a
    tensor of whole images or clips, such as those of an own loader, every view is a random crop of it, and the draws
    depend on (seed, number of the call, row, view).

    Args:
        views: One config per view, or the name of a published list of views.
        seed: Seed of the run.
        canvas: Value of `data.canvas`: None if the workers crop the frames, or the side in pixels of the square to
            which they stretch them.
        dtype: Type of the views. Computation is in float32, rounded once at the end.
        channels_last: Whether the views have the strides of `torch.channels_last_3d`, which many convolutions prefer;
            squeezing T = 1 gives those of `torch.channels_last`.

    Attributes:
        dtype, channels_last: As above; may be changed at any time.
        num_calls: Number of calls with a tensor so far.
        num_threads: Most threads that make the views of a batch on a CPU; None for those of torch. A loader sets the
            cores that its workers leave: threads that wait for each other on cores of others lose most of their time.
    """

    def __init__(
        self,
        views: "ViewsName | Sequence[ViewConfig]",
        seed: int = 0,
        canvas: int | None = None,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        configs = policy(views) if isinstance(views, str) else views
        self.views = nn.ModuleList(View(config) for config in configs)
        self.on_device = DeviceAugmentation()
        self.seed, self.canvas = seed, canvas
        self.dtype, self.channels_last = dtype, channels_last
        self.num_calls = 0
        self.num_threads: int | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Type of the views."""
        return self._dtype

    @dtype.setter
    def dtype(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        for view in self.views:
            cast(View, view).dtype = dtype

    @property
    def channels_last(self) -> bool:
        """Whether the views have the strides of `torch.channels_last_3d`."""
        return self._channels_last

    @channels_last.setter
    def channels_last(self, channels_last: bool) -> None:
        self._channels_last = channels_last
        for view in self.views:
            cast(View, view).channels_last = channels_last

    if TYPE_CHECKING:

        @overload
        def __call__(self, batch: Batch) -> ViewBatch: ...
        @overload
        def __call__(self, batch: Tensor) -> list[Tensor]: ...
        def __call__(self, batch: Batch | Tensor) -> ViewBatch | list[Tensor]:
            """Call `forward`, of which the type checker then knows what it returns."""

    def forward(self, batch: Batch | Tensor) -> ViewBatch | list[Tensor]:
        """Return the augmented views, float (B, 3, T, S, S) each, or (B, 3, S, S) of images.

        Args:
            batch: A batch of a loader, which gives a `ViewBatch`, without views if no record of the batch could be
                read; or uint8 clips (B, 3, T, H, W) or images (B, 3, H, W), which give a list of views.

        Raises:
            ValueError: If the batch was loaded for other views.
        """
        if isinstance(batch, Tensor):
            return self._of_whole(batch)
        with _at_most_threads(self.num_threads):
            return ViewBatch(self._augmented(self.works(batch)), batch.label, batch.record, batch.failures)

    def works(self, batch: Batch) -> list[ViewWork]:
        """Draw for a batch, and return what `forward` makes the views from; nothing is computed on the device.

        Raises:
            ValueError: If the batch was loaded for other views.
        """
        self._check_loaded(batch.frames)
        aspect = None if self.canvas is None else batch.aspect
        return self._works(batch.frames, aspect, batch.epoch.cpu().numpy(), batch.record.cpu().numpy())

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the work on pixels with `torch.compile` at the next call; what is random is drawn as before.

        On a CPU too, views are then made by the form for GPUs (`augment.on_device`): the same up to rounding.

        Args:
            *args: As `torch.compile` takes them.
            **kwargs: As `torch.compile` takes them.
        """
        self.on_device.compile(*args, **kwargs)

    def _works(
        self, frames: Sequence[Tensor], aspect: Tensor | None, epochs: ArrayLike, records: ArrayLike
    ) -> list[ViewWork]:
        """Return the work of each view, from crops, or from whole frames with the aspect of their videos."""
        if not frames:
            return []
        pixel_numbers = self._numbers(epochs, records, "pixels", NUM_DRAWS)
        num_box_draws = max(cast(View, view).config.num_box_draws() for view in self.views)
        box_numbers = pixel_numbers if aspect is None else self._numbers(epochs, records, "crop", num_box_draws)
        works = []
        for number, (module, clips) in enumerate(zip(self.views, frames, strict=True)):
            view = cast(View, module)
            boxes = None if aspect is None else view.boxes_of(clips, aspect, box_numbers[number])
            works.append(view.work(clips, view.draws_of(pixel_numbers[number]), boxes))
        return works

    def _augmented(self, works: Sequence[ViewWork]) -> list[Tensor]:
        """Return the views."""
        if self.on_device.is_compiled or any(work.frames.device.type != "cpu" for work in works):
            return self.on_device(works, self.dtype, self.channels_last)
        return [cast(View, view).on_cpu(work) for view, work in zip(self.views, works, strict=False)]

    def _numbers(self, epochs: ArrayLike, records: ArrayLike, purpose: str, count: int) -> NDArray[np.float64]:
        """Return random numbers in [0, 1) for each view and sample, (V, B, count)."""
        seeds = [seeds_for(self.seed, epochs, records, number, purpose) for number in range(len(self.views))]
        return uniform_numbers(np.concatenate(seeds), count).reshape(len(seeds), -1, count)

    def parameters_of(self, epochs: Int64[Tensor, " B"], records: Int64[Tensor, " B"]) -> list[list[ViewParameters]]:
        """Return the parameters that `forward` draws for records in epochs, by view and then by sample."""
        numbers = self._numbers(epochs.cpu().numpy(), records.cpu().numpy(), "pixels", NUM_DRAWS)
        return [cast(View, view).draws_of(drawn).samples() for view, drawn in zip(self.views, numbers, strict=True)]

    def _of_whole(self, frames: Tensor) -> list[Float[Tensor, "B 3 *T S S"]]:
        """Return the views of whole clips (B, 3, T, H, W) or images (B, 3, H, W)."""
        self._check_whole(frames)
        call, first_row = self.num_calls, distributed.rank() * len(frames)
        self.num_calls += 1
        rows = np.arange(first_row, first_row + len(frames))  # processes have rows of their own
        aspect = torch.full((len(frames),), frames.shape[-1] / frames.shape[-2])
        clips = frames.unsqueeze(2) if frames.ndim == 4 else frames
        views = self._augmented(self._works([clips] * len(self.views), aspect, call, rows))
        return [view.squeeze(2) for view in views] if frames.ndim == 4 else views

    def _check_whole(self, frames: Tensor) -> None:
        """Raise ValueError unless a tensor holds clips or images, with the range of their pixels at the first call."""
        shape = tuple(frames.shape)
        if frames.ndim not in (4, 5) or shape[1] != 3:
            cures = {3: "images.unsqueeze(0)", 4: "images.permute(0, 3, 1, 2)", 5: "clips.permute(0, 4, 1, 2, 3)"}
            cure = f": {cures[frames.ndim]}" if shape[-1] == 3 or frames.ndim == 3 else ""
            if frames.ndim == 5 and shape[2] == 3:
                cure = ": clips.transpose(1, 2)"
            raise ValueError(f"Views take clips (B, 3, T, H, W) or images (B, 3, H, W), got shape {shape}{cure}")
        if self.num_calls == 0 and frames.is_floating_point() and float(frames.max()) > 1:
            raise ValueError(
                f"Views take uint8 pixels, or floats in [0, 1], got floats up to {float(frames.max()):g}: divide by 255"
            )

    def _check_loaded(self, frames: Sequence[Tensor]) -> None:
        """Raise ValueError unless the frames of a batch, if any, were loaded for these views."""
        if frames and len(frames) != len(self.views):
            raise ValueError(
                f"the batch was loaded for {len(frames)} views, not {len(self.views)}: give Views the views of its "
                "loader"
            )
        for number, (view, clips) in enumerate(zip(self.views, frames, strict=False)):
            size, side = cast(View, view).size, clips.shape[-1]
            if self.canvas is None and side != size:
                raise ValueError(
                    f"view {number} is of size {size}, but the batch holds frames of {side} pixels: give Views the "
                    f"views and the canvas of its loader (canvas={side} if these are whole frames)"
                )


@contextmanager
def _at_most_threads(limit: int | None) -> Iterator[None]:
    """Limit the threads of torch; on a CPU, the views are the same bit for bit with any number of them."""
    before = torch.get_num_threads()
    if limit is None or limit >= before:
        yield
        return
    torch.set_num_threads(limit)
    try:
        yield
    finally:
        torch.set_num_threads(before)
