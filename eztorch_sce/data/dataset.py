"""Datasets of clips: choose spans, decode them, and crop or stretch the frames so that samples can be stacked.

All of it runs in the worker processes, on uint8 tensors on the CPU.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from eztorch_sce import distributed
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.data.clip_sampling import COVERS, near_spans, random_span, strided_clip_s, uniform_spans
from eztorch_sce.data.decoders.base import Decoder, Timing, grace_s
from eztorch_sce.data.decoders.by_kind import decoder_of
from eztorch_sce.data.epoch_order import shuffled
from eztorch_sce.data.heartbeat import expect_clips
from eztorch_sce.data.shaping import crop_resize, scale_box, short_side_crops, stretch
from eztorch_sce.data.shared_memory import clip_bytes
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.errors import MediaError, SourceError
from eztorch_sce.seeding import generator_for
from eztorch_sce.types import Clip, ClipSpan, Failure, InputSpec, MediaRecord, Sample


def segment_of(record: MediaRecord, timing: Timing) -> ClipSpan:
    """Return the part of a video to use.

    An end that is past the video by no more than the last frame may stay on screen is moved to the video's end.

    Raises:
        MediaError: If the segment does not lie in the video.
    """
    start_s = record.start_s or 0.0
    end_s = timing.duration_s if record.end_s is None else record.end_s
    grace = grace_s(1 / timing.fps if timing.fps else 0.0)
    if (record.start_s is not None and start_s >= timing.duration_s) or end_s > timing.duration_s + grace:
        segment = f"from {start_s:g} s to " + ("its end" if record.end_s is None else f"{end_s:g} s")
        raise MediaError(record.path, f"lasts {timing.duration_s:.2f} s; the listed segment {segment} is not in it")
    return ClipSpan(start_s, min(end_s, timing.duration_s))


class EvaluationSampling(NamedTuple):
    """Clips and crops of each record in evaluation.

    Attributes:
        num_clips: Evenly spaced clips per video.
        num_crops: Crops per clip, 1 or 3.
        short_side: Length of the short side in pixels before cropping.
        clips: "even", or a key of `COVERS`: the video is then covered by as many clips as its length requires.
    """

    num_clips: int
    num_crops: int
    short_side: int
    clips: str = "even"


class Clips(Dataset[Sample | Failure], ABC):
    """Dataset of decoded records that can be stacked. Subclasses choose the spans and the crops.

    Args:
        manifest: The records.
        spec: Frames, length and size of a clip.
        decoder: The video decoder.
    """

    def __init__(self, manifest: Manifest, spec: InputSpec, decoder: Decoder) -> None:
        self.manifest, self.spec, self.decoder = manifest, spec, decoder

    def __len__(self) -> int:
        return len(self.manifest.records)

    def __getitem__(self, key: tuple[int, int]) -> Sample | Failure:
        """Return the sample of (epoch, record index)."""
        epoch, index = key
        records = self.manifest.records
        record = records[index]
        decoder = decoder_of(records, index, self.decoder, partial(self.least_scale, epoch, index))
        try:
            clips = decoder.read(
                record.path, partial(self._spans_in_segment, epoch, index, record), self.spec.num_frames
            )
        except MediaError as error:
            return Failure(index, error.path, error.reason)
        except SourceError:
            raise
        except Exception as error:  # a bug in a library or in this package stops the run and names the file
            raise RuntimeError(f"reading {record.path} failed: please report this file") from error
        frames = self.make_stackable(epoch, index, clips)
        height, width = clips[0].full_size or clips[0].frames.shape[-2:]
        return Sample(frames, -1 if record.label is None else record.label, index, epoch, width / height)

    def _spans_in_segment(self, epoch: int, index: int, record: MediaRecord, timing: Timing) -> list[ClipSpan]:
        """Choose spans as if the segment of the record were the whole video, and return them in the video's time."""
        segment = segment_of(record, timing)
        spans = self.choose_spans(epoch, index, Timing(segment.end_s - segment.start_s, timing.fps))
        expect_clips(len(spans))
        return [ClipSpan(segment.start_s + span.start_s, segment.start_s + span.end_s) for span in spans]

    @abstractmethod
    def choose_spans(self, epoch: int, index: int, timing: Timing) -> list[ClipSpan]:
        """Return the spans of time to decode, given the timing of the video or of the record's segment of it."""

    def clip_s(self, timing: Timing) -> float:
        """Return the length of a clip in seconds."""
        if self.spec.frame_stride is None:
            return self.spec.clip_s
        return strided_clip_s(self.spec.num_frames, self.spec.frame_stride, timing.fps)

    @property
    @abstractmethod
    def sample_bytes(self) -> int:
        """Bytes of the frames of one sample, those of all its views, as the loader delivers them."""

    @abstractmethod
    def make_stackable(self, epoch: int, index: int, clips: list[Clip]) -> list[UInt8[Tensor, "C T _ _"]]:
        """Return the square frames of each view, uint8 (C, T, S, S); views may differ in size."""

    @abstractmethod
    def least_scale(self, epoch: int, index: int, height: int, width: int) -> float:
        """Return the smallest scale at which the image can be decoded without upsampling any view."""


class TrainingClips(Clips):
    """Random clips of each record, one per view. Draws depend only on (seed, epoch, record, view).

    Args:
        manifest: The records.
        views: Settings of the views, which draw the crops.
        spec: Frames and length of a clip.
        decoder: The video decoder.
        seed: Seed of the run.
        canvas: Side in pixels of the square that whole frames are stretched to, for the device to crop; None crops
            here, in the worker.
        near_power: Power of the density of the distance between two clips, see `near_spans`; None draws the clips
            independently.
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
        super().__init__(manifest, spec, decoder)
        self.views, self.seed, self.canvas, self.near_power = views, seed, canvas, near_power

    @property
    def sample_bytes(self) -> int:
        """Bytes of the frames of one sample, those of all its views, as the loader delivers them."""
        sizes = [self.canvas or view.size or self.spec.size for view in self.views]
        return sum(clip_bytes(self.spec.num_frames, size) for size in sizes)

    def choose_spans(self, epoch: int, index: int, timing: Timing) -> list[ClipSpan]:
        """Draw one span per view: independently, or two spans at a random distance."""
        if self.near_power is not None:
            draw = generator_for(self.seed, epoch, index, 0, "clip")
            return near_spans(timing.duration_s, self.clip_s(timing), draw, self.near_power)
        return [
            random_span(timing.duration_s, self.clip_s(timing), generator_for(self.seed, epoch, index, view, "clip"))
            for view in range(len(self.views))
        ]

    def make_stackable(self, epoch: int, index: int, clips: list[Clip]) -> list[UInt8[Tensor, "C T _ _"]]:
        """Cut a random crop out of each clip, or stretch the clip for the device to crop."""
        if self.canvas is not None:
            return [stretch(clip.frames, self.canvas) for clip in clips]
        crops = []
        for view, (config, clip) in enumerate(zip(self.views, clips, strict=True)):
            assert config.size is not None  # filled in before a run starts
            full_size = clip.full_size or (clip.frames.shape[-2], clip.frames.shape[-1])
            box = scale_box(self.box(epoch, index, view, *full_size), full_size, clip.frames)
            crops.append(crop_resize(clip.frames, box, config.size))
        return crops

    def least_scale(self, epoch: int, index: int, height: int, width: int) -> float:
        """Return the largest scale that any view needs: view size over crop size, or canvas size over short side."""
        if self.canvas is not None:
            return self.canvas / min(height, width)
        boxes = [self.box(epoch, index, view, height, width) for view in range(len(self.views))]
        return max((config.size or 0) / min(box[2:]) for config, box in zip(self.views, boxes, strict=True))

    def box(self, epoch: int, index: int, view: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the crop (top, left, height, width) of a view in a frame of `height` x `width` pixels."""
        return self.views[view].draw_box(generator_for(self.seed, epoch, index, view, "crop"), height, width)


class EvaluationClips(Clips):
    """Evenly spaced clips of each record and crops of each clip, without randomness. Each crop is one view.

    Args:
        manifest: The records.
        spec: Frames, length and crop size of a clip.
        decoder: The video decoder.
        sampling: Clips and crops of each record.
    """

    def __init__(self, manifest: Manifest, spec: InputSpec, decoder: Decoder, sampling: EvaluationSampling) -> None:
        super().__init__(manifest, spec, decoder)
        self.sampling = sampling

    @property
    def sample_bytes(self) -> int:
        """Bytes of the clips and crops of one record; of a covered video, whose number of clips is unknown, of 10."""
        num_clips = self.sampling.num_clips if self.sampling.clips == "even" else 10
        return num_clips * self.sampling.num_crops * clip_bytes(self.spec.num_frames, self.spec.size)

    def choose_spans(self, epoch: int, index: int, timing: Timing) -> list[ClipSpan]:
        """Space the clips evenly, or cover the video."""
        if self.sampling.clips == "even":
            return uniform_spans(timing.duration_s, self.clip_s(timing), self.sampling.num_clips)
        return COVERS[self.sampling.clips](timing.duration_s, self.clip_s(timing))

    def make_stackable(self, epoch: int, index: int, clips: list[Clip]) -> list[UInt8[Tensor, "C T _ _"]]:
        """Cut the crops out of each clip."""
        short_side, num_crops = self.sampling.short_side, self.sampling.num_crops
        crops = []
        for clip in clips:
            crops += short_side_crops(clip.frames, short_side, self.spec.size, num_crops, clip.full_size)
        return crops

    def least_scale(self, epoch: int, index: int, height: int, width: int) -> float:
        """Return the scale that gives the short side its final length."""
        return self.sampling.short_side / min(height, width)


class EpochSampler(Sampler[tuple[int, int]]):
    """Sampler of (epoch, record index) pairs for this process, so that a worker knows the epoch of each sample.

    Each iteration is the next epoch, whether or not the last one ran to its end; `set_epoch` chooses another, and
    `start_at` a place in it. The order of an epoch depends only on (seed, epoch). However a step is divided among
    processes and batches, see `divide`, it has the same records, and an epoch the same steps.

    Args:
        num_records: Number of records in the manifest.
        seed: Seed of the run.
        shuffle: Draw a new order for each epoch, and drop the remainder so that all processes have equally many
            records; otherwise keep the order of the manifest, of which process r of W takes every W-th record.

    Attributes:
        epoch: The epoch of the next iteration.
        num_skipped: Samples of all processes that the next iteration leaves out, at its start.
    """

    def __init__(self, num_records: int, seed: int, shuffle: bool) -> None:
        self.num_records, self.seed, self.shuffle = num_records, seed, shuffle
        self.epoch, self.num_skipped = 0, 0
        self.batch_size = self.samples_per_step = 1

    def divide(self, samples_per_step: int, batch_size: int) -> None:
        """Divide each step into batches of a process, in the order of the records; leave out an incomplete last step.

        Args:
            samples_per_step: Samples of a step in all processes and batches.
            batch_size: Samples of a batch of one process.
        """
        self.samples_per_step, self.batch_size = samples_per_step, batch_size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration. Called by Lightning."""
        if epoch != self.epoch:
            self.epoch, self.num_skipped = epoch, 0

    def start_at(self, epoch: int, num_samples: int) -> None:
        """Let the next iteration continue an epoch after its first samples, a multiple of the number of processes."""
        self.epoch, self.num_skipped = epoch, num_samples

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank, world_size, epoch = distributed.rank(), distributed.world_size(), self.epoch
        num_skipped = self.num_skipped // world_size
        self.epoch, self.num_skipped = epoch + 1, 0
        own: Iterable[int] = range(rank, self.num_records, world_size)
        if self.shuffle:
            own = shuffled(self.num_records, self.seed, epoch, rank, world_size, self.batch_size)
        return ((epoch, index) for index in islice(own, num_skipped, len(self)))

    def __len__(self) -> int:
        rank, world_size = distributed.rank(), distributed.world_size()
        if self.shuffle:  # all processes must take the same number of training steps
            return self.num_records // self.samples_per_step * self.samples_per_step // world_size
        return len(range(rank, self.num_records, world_size))
