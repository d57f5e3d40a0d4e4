"""From records to samples: choose time, decode, make stackable. Runs in the workers, on the CPU, uint8 throughout."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from eztorch_sce import distributed
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.data.clip_sampling import COVERS, near_spans, random_span, strided_clip_s, uniform_spans
from eztorch_sce.data.decoders.base import Decoder, Timing
from eztorch_sce.data.decoders.by_kind import decoder_for
from eztorch_sce.data.shaping import crop_resize, scale_box, short_side_crops, stretch
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.errors import MediaError
from eztorch_sce.seeding import generator_for
from eztorch_sce.types import Clip, ClipSpan, Failure, InputSpec, Sample


class Clips(Dataset[Sample | Failure], ABC):
    """Records, decoded and made stackable; which stretches of time and which crops is up to the two below."""

    manifest: Manifest
    decoder: Decoder
    spec: InputSpec

    def __len__(self) -> int:
        return len(self.manifest.records)

    def __getitem__(self, key: tuple[int, int]) -> Sample | Failure:
        """Return the sample of (epoch, index of the record)."""
        epoch, index = key
        record = self.manifest.records[index]
        decoder = decoder_for(record.kind, self.decoder, partial(self.least_scale, epoch, index))
        try:
            clips = decoder.read(record.path, partial(self.choose_spans, epoch, index), self.spec.num_frames)
        except MediaError as error:
            return Failure(index, error.path, error.reason)
        except Exception as error:  # a fault in a library or here: it ends the run, which says with which file
            raise RuntimeError(f"reading {record.path} failed: please report this file") from error
        views = self.make_stackable(epoch, index, clips)
        height, width = clips[0].full_size or clips[0].frames.shape[-2:]
        return Sample(views, -1 if record.label is None else record.label, index, epoch, width / height)

    @abstractmethod
    def choose_spans(self, epoch: int, index: int, timing: Timing) -> list[ClipSpan]:
        """Return the stretches of time to decode."""

    def clip_s(self, timing: Timing) -> float:
        """Return how many seconds of a video a clip covers."""
        if self.spec.frame_stride is None:
            return self.spec.clip_s
        return strided_clip_s(self.spec.num_frames, self.spec.frame_stride, timing.fps)

    @abstractmethod
    def make_stackable(self, epoch: int, index: int, clips: list[Clip]) -> list[Tensor]:
        """Return the views, uint8 (C, T, S, S) each."""

    @abstractmethod
    def least_scale(self, epoch: int, index: int, height: int, width: int) -> float:
        """Return the share of an image's height and width that is enough for all its views."""


class TrainingClips(Clips):
    """Random clips of each record, one per view, drawn for (seed, epoch, record, view) and nothing else.

    Args:
        manifest: The records.
        views: What each view is; gives the crop.
        spec: Frames and seconds of a clip.
        decoder: Reads the videos.
        seed: Of the run.
        canvas: None crops here, in the worker. A number stretches the whole image to a square of that many pixels,
            from which the device crops.
        near_power: None draws independent clips; a number two clips at a distance drawn by that power (`near_spans`).
    """

    def __init__(
        self,
        manifest: Manifest,
        views: list[ViewConfig],
        spec: InputSpec,
        decoder: Decoder,
        seed: int,
        canvas: int | None,
        near_power: float | None = None,
    ) -> None:
        self.manifest, self.views, self.spec = manifest, views, spec
        self.decoder, self.seed, self.canvas, self.near_power = decoder, seed, canvas, near_power

    def choose_spans(self, epoch: int, index: int, timing: Timing) -> list[ClipSpan]:
        """Draw one stretch per view: independent of each other, or two at a drawn distance."""
        if self.near_power is not None:
            draw = generator_for(self.seed, epoch, index, 0, "clip")
            return near_spans(timing.duration_s, self.clip_s(timing), draw, self.near_power)
        return [
            random_span(timing.duration_s, self.clip_s(timing), generator_for(self.seed, epoch, index, view, "clip"))
            for view in range(len(self.views))
        ]

    def make_stackable(self, epoch: int, index: int, clips: list[Clip]) -> list[Tensor]:
        """Cut a random crop out of each clip, or stretch it for the device to crop."""
        if self.canvas is not None:
            return [stretch(clip.frames, self.canvas) for clip in clips]
        views = []
        for view, (config, clip) in enumerate(zip(self.views, clips, strict=True)):
            assert config.size is not None  # filled in before a run starts
            full_size = clip.full_size or (clip.frames.shape[-2], clip.frames.shape[-1])
            box = scale_box(self.box(epoch, index, view, *full_size), full_size, clip.frames)
            views.append(crop_resize(clip.frames, box, config.size))
        return views

    def least_scale(self, epoch: int, index: int, height: int, width: int) -> float:
        """Return the largest of what the views need: their size of the crop's, or of the whole for the device."""
        if self.canvas is not None:
            return self.canvas / min(height, width)
        boxes = [self.box(epoch, index, view, height, width) for view in range(len(self.views))]
        return max((config.size or 0) / min(box[2:]) for config, box in zip(self.views, boxes, strict=True))

    def box(self, epoch: int, index: int, view: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the crop (top, left, height, width) that a view takes of a frame of this size."""
        return self.views[view].draw_box(generator_for(self.seed, epoch, index, view, "crop"), height, width)


class EvaluationClips(Clips):
    """Evenly spaced clips of each record and crops of each clip: nothing random. The views are clips x crops.

    Args:
        manifest: The records.
        spec: Frames, seconds and crop size of a clip.
        decoder: Reads the videos.
        num_clips: Clips per video where they are evenly spaced.
        num_crops: Crops per clip, 1 or 3.
        short_side: Pixels of the short side before the crop.
        clips: "even", or how else a video is covered: a key of `COVERS`, which gives each video its own number.
    """

    def __init__(
        self,
        manifest: Manifest,
        spec: InputSpec,
        decoder: Decoder,
        num_clips: int,
        num_crops: int,
        short_side: int,
        clips: str = "even",
    ) -> None:
        self.manifest, self.spec, self.decoder = manifest, spec, decoder
        self.num_clips, self.num_crops, self.short_side, self.clips = num_clips, num_crops, short_side, clips

    def choose_spans(self, epoch: int, index: int, timing: Timing) -> list[ClipSpan]:
        """Spread the clips evenly, or cover the video."""
        if self.clips == "even":
            return uniform_spans(timing.duration_s, self.clip_s(timing), self.num_clips)
        return COVERS[self.clips](timing.duration_s, self.clip_s(timing))

    def make_stackable(self, epoch: int, index: int, clips: list[Clip]) -> list[Tensor]:
        """Cut the crops out of each clip."""
        settings = (self.short_side, self.spec.size, self.num_crops)
        return [crop for clip in clips for crop in short_side_crops(clip.frames, *settings, clip.full_size)]

    def least_scale(self, epoch: int, index: int, height: int, width: int) -> float:
        """Return the scale at which the short side is as it will be."""
        return self.short_side / min(height, width)


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, record) pairs of this process, so that a sample knows its epoch in any worker.

    The order of an epoch depends on (seed, epoch) alone. Process r of W takes every W-th record, so the union of the
    processes' batches is the batch that one process would draw.

    Args:
        num_records: Length of the manifest.
        seed: Of the run.
        shuffle: A new order each epoch; otherwise the manifest's.
    """

    def __init__(self, num_records: int, seed: int, shuffle: bool) -> None:
        self.num_records, self.seed, self.shuffle = num_records, seed, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = list(range(self.num_records))
        if self.shuffle:
            order = torch.randperm(
                self.num_records, generator=generator_for(self.seed, self.epoch, 0, 0, "order")
            ).tolist()
        rank, world_size = distributed.rank(), distributed.world_size()
        mine = order[rank::world_size]
        if self.shuffle:  # training: all processes take the same number of steps
            mine = mine[: self.num_records // world_size]
        return iter([(self.epoch, index) for index in mine])

    def __len__(self) -> int:
        rank, world_size = distributed.rank(), distributed.world_size()
        if self.shuffle:
            return self.num_records // world_size
        return len(range(rank, self.num_records, world_size))
