"""What crosses the border of a package, with its shapes.

Visual tensors are (B, C, T, H, W) everywhere: a picture is a clip with T = 1.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor


class MediaRecord(NamedTuple):
    """A video, a picture or a folder of frames on disk.

    Attributes:
        path: Absolute path of the file or frame folder.
        label: Index into the class names, or None where there is no label.
        kind: "video", "image" or "frames".
    """

    path: str
    label: int | None
    kind: str


class ClipSpan(NamedTuple):
    """A stretch of time, half-open, in seconds from the first frame of the video."""

    start_s: float
    end_s: float


class MediaInfo(NamedTuple):
    """What a decoder tells of a file without decoding it whole. A picture has duration 0 and one frame."""

    duration_s: float
    fps: float
    width: int
    height: int
    codec: str


class Clip(NamedTuple):
    """Frames of a stretch of time.

    Attributes:
        frames: uint8 (C, T, H, W).
        pts_s: When each is first shown: float64 seconds (T,).
        full_size: Height and width to show the frames at, where they are not those of `frames`: the file was decoded at
            a smaller scale, or its pixels are not square.
    """

    frames: Tensor
    pts_s: Tensor
    full_size: tuple[int, int] | None = None


class Sample(NamedTuple):
    """One record, decoded and stackable.

    Attributes:
        views: One uint8 (C, T, S, S) per view.
        label: Class index, -1 where there is none.
        record: Index of the record in its manifest.
        epoch: The epoch that the sample was drawn for.
        aspect: Width over height of the video as shown; the views may be stretched to a square.
    """

    views: list[Tensor]
    label: int
    record: int
    epoch: int
    aspect: float


class Failure(NamedTuple):
    """A record that could not be read, and why."""

    record: int
    path: str
    reason: str


class Batch(NamedTuple):
    """What the training step and the evaluation receive.

    Attributes:
        views: One uint8 (B, C, T, S, S) per view; views may differ in size.
        label: int64 (B,), -1 where there is none.
        record: int64 (B,), indices into the manifest.
        epoch: int64 (B,), the epoch that each sample was drawn for.
        aspect: float32 (B,), width over height of each video.
        failures: The records of this batch that could not be read; they have no row in the tensors.
    """

    views: list[Tensor]
    label: Tensor
    record: Tensor
    epoch: Tensor
    aspect: Tensor
    failures: list[Failure]


class Embeddings(NamedTuple):
    """What an encoder gives for one view: h (B, F) backbone features, z (B, D) projections, q (B, D) predictions.

    z and q have unit norm; q is z where there is no predictor.
    """

    h: Tensor
    z: Tensor
    q: Tensor


class StepOutput(NamedTuple):
    """A scalar loss with its graph, detached scalars worth logging, and detached embeddings (B, D) to look at."""

    loss: Tensor
    metrics: dict[str, Tensor]
    embeddings: Tensor


@dataclass
class InputSpec:
    """What a network sees, kept with its weights so that every later use shows it the same.

    Attributes:
        num_frames: Frames of a clip (T).
        clip_s: Seconds that a clip covers.
        frame_stride: The frames of a clip lie this many frames of the video apart, in place of `clip_s`; or None.
        size: Side of the square crop in pixels (S).
        stats: Name of the mean and standard deviation (see `augment.view.ALL_STATS`).
        input: "rgb", or "difference" for the difference of consecutive frames.
    """

    num_frames: int = 8
    clip_s: float = 2.56
    size: int = 224
    stats: str = "video"
    input: str = "rgb"
    frame_stride: int | None = None

    @property
    def test_short_side(self) -> int:
        """Pixels of the short side that a test crop is cut from, where nobody says otherwise: 256 for a crop of 224."""
        return round(self.size * 8 / 7)


@dataclass
class FeatureBank:
    """Features of a list of records.

    Attributes:
        features: float32 (N, F).
        labels: int64 (N,), -1 where there is none.
        paths: The N files.
        classes: Names of the classes.
        protocol: How the features were made: views, crop, list, weights.
    """

    features: Tensor
    labels: Tensor
    paths: list[str]
    classes: list[str]
    protocol: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write to a file that `torch.load(..., weights_only=True)` reads."""
        torch.save(vars(self), path)

    @classmethod
    def load(cls, path: Path) -> "FeatureBank":
        """Read what `save` wrote; the features stay in the file until they are used, so they may exceed the memory."""
        return cls(**torch.load(path, weights_only=True, mmap=True))


@dataclass
class Report:
    """The numbers of a run and how they were made; `report.json` in the run directory.

    Attributes:
        command: "pretrain", "knn", ...
        metrics: Numbers by name; rates are in [0, 1].
        protocol: Views, crop, list file, seed, hash of the weights: what makes the numbers comparable.
        run_dir: Where it was written.
    """

    command: str
    metrics: dict[str, float]
    protocol: dict[str, Any]
    run_dir: Path
