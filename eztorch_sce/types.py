"""Types shared between packages, with their shapes.

Visual tensors are (B, C, T, H, W) everywhere: an image is a clip with T = 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Float64, Int64, Shaped, UInt8
from torch import Tensor

from eztorch_sce import torch_file
from eztorch_sce.chance import Chance
from eztorch_sce.files import replacing


class MediaRecord(NamedTuple):
    """A video, an image or a folder of frames on disk.

    Attributes:
        path: Absolute path of the file or frame folder.
        label: Index into the class names, or None if unlabeled.
        kind: "video", "image" or "frames".
        start_s: Second at which the part of the video to use begins; None for its start.
        end_s: Second at which that part ends; None for the end of the video.
    """

    path: str
    label: int | None
    kind: str
    start_s: float | None = None
    end_s: float | None = None


class ClipSpan(NamedTuple):
    """A half-open span of time, in seconds from the first frame of the video."""

    start_s: float
    end_s: float


class MediaInfo(NamedTuple):
    """Properties of a file that are known without decoding all of it. An image has a duration of 0."""

    duration_s: float
    fps: float
    width: int
    height: int
    codec: str


class Clip(NamedTuple):
    """Decoded frames of a span of time.

    Attributes:
        frames: Pixels, uint8 (C, T, H, W).
        pts_s: Presentation time of each frame in seconds, float64 (T,).
        full_size: Display height and width if they differ from those of `frames`, because the file was decoded at a
            reduced scale or its pixels are not square.
    """

    frames: UInt8[Tensor, "C T H W"]
    pts_s: Float[Tensor, " T"]
    full_size: tuple[int, int] | None = None


class Sample(NamedTuple):
    """One record, decoded and ready to be stacked.

    Attributes:
        frames: One uint8 (C, T, S, S) per view; views may differ in size.
        label: Class index, -1 if unlabeled.
        record: Index of the record in its manifest.
        epoch: The epoch the sample was drawn for.
        aspect: Width over height of the video as shown; the frames may be stretched to a square.
    """

    frames: list[UInt8[Tensor, "C T _ _"]]
    label: int
    record: int
    epoch: int
    aspect: float


class Failure(NamedTuple):
    """A record that could not be read, and the reason."""

    record: int
    path: str
    reason: str


class Batch(NamedTuple):
    """Raw frames from the loader. Evaluation uses them directly; training turns them into a `ViewBatch`.

    `frames` and `label` move to the device; the other columns stay on the host, which seeds the views with them.

    Attributes:
        frames: One uint8 (B, C, T, S, S) per view; views may differ in size.
        label: Class indices, int64 (B,), -1 if unlabeled.
        record: Indices into the manifest, int64 (B,).
        epoch: The epoch each sample was drawn for, int64 (B,).
        aspect: Width over height of each video, float32 (B,).
        failures: Records of this batch that could not be read; they have no row in the tensors.
    """

    frames: list[UInt8[Tensor, "B C T _ _"]]
    label: Int64[Tensor, " B"]
    record: Int64[Tensor, " B"]
    epoch: Int64[Tensor, " B"]
    aspect: Float[Tensor, " B"]
    failures: list[Failure]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Return the batch with frames and labels on a device; the other columns are used on the host and stay there.

        Args:
            device: The device of the network.
            non_blocking: Do not wait for the copy; see `torch.Tensor.to`. The loaders pin memory, so it is then
                concurrent.
        """
        frames = [clips.to(device, non_blocking=non_blocking) for clips in self.frames]
        return self._replace(frames=frames, label=self.label.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """Return the batch with what moves to a GPU, the frames and labels, in page-locked memory. Called by torch."""
        return self._replace(frames=[clips.pin_memory() for clips in self.frames], label=self.label.pin_memory())


class ViewBatch(NamedTuple):
    """Augmented and normalized views on the device, as the training step receives them.

    Attributes:
        views: One float (B, C, T, S, S) per view; views may differ in size.
        label: Class indices, int64 (B,), -1 if unlabeled.
        record: Indices into the manifest, int64 (B,), on the host.
        failures: Records of this batch that could not be read; they have no row in the tensors.
    """

    views: list[Float[Tensor, "B C T _ _"]]
    label: Int64[Tensor, " B"]
    record: Int64[Tensor, " B"]
    failures: list[Failure]


class Embeddings(NamedTuple):
    """Embeddings of one view.

    Attributes:
        h: Backbone features (B, F).
        z: Projections (B, D), unit vectors unless the loss takes others.
        q: Predictions (B, D), likewise; z if there is no predictor.
    """

    h: Float[Tensor, "B F"]
    z: Float[Tensor, "B D"]
    q: Float[Tensor, "B D"]


class StepOutput(NamedTuple):
    """Output of a method for one batch.

    Attributes:
        loss: Scalar with its graph.
        metrics: Detached scalars to log. They are read in the steps that log only.
        embeddings: Detached embeddings (B, D) for diagnostics.
    """

    loss: Float[Tensor, ""]
    metrics: dict[str, Tensor]
    embeddings: Float[Tensor, "B D"]


@dataclass
class InputSpec:
    """Input specification of a network, stored with its weights so that every later use prepares the same input.

    Attributes:
        num_frames: Frames per clip (T).
        clip_s: Duration of a clip in seconds.
        size: Side of the square crop in pixels (S).
        stats: Name of the mean and standard deviation (see `augment.statistics`).
        input: "rgb", or "difference" for the difference of consecutive frames.
        frame_stride: Step from one frame of a clip to the next in video frames, replacing `clip_s`; or None.
    """

    num_frames: int = 8
    clip_s: float = 2.56
    size: int = 224
    stats: str = "video"
    input: str = "rgb"
    frame_stride: int | None = None

    @property
    def test_short_side(self) -> int:
        """Default short side in pixels before the test crop: 256 for a crop of 224."""
        return round(self.size * 8 / 7)


class StoredRows(ABC):
    """Rows of features in files, float32 (N, F), which may exceed memory: those are read that an index asks for.

    Indexing returns a new tensor on the CPU.

    Args:
        num_rows: Number of rows (N).
        num_features: Width of a row (F).
    """

    ndim = 2
    device = torch.device("cpu")

    def __init__(self, num_rows: int, num_features: int) -> None:
        self.shape = torch.Size((num_rows, num_features))

    @abstractmethod
    def read(self, start: int, stop: int) -> Float[Tensor, "n F"]:
        """Return consecutive rows."""

    @abstractmethod
    def take(self, index: Int64[Tensor, " n"]) -> Float[Tensor, "n F"]:
        """Return the rows of indices, which are not negative."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return 4 * self.shape.numel()

    def __getitem__(self, index: slice | Shaped[Tensor, " k"]) -> Float[Tensor, "n F"]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self.read(start, max(start, stop))
            index = torch.arange(start, stop, step)
        return self.take(index.nonzero().flatten() if index.dtype == torch.bool else index.cpu())


if TYPE_CHECKING:
    Features: TypeAlias = Tensor
else:
    Features = Float[Tensor, "N F"] | StoredRows
"""Features of a bank. For type checkers they are a tensor, as they are unless `extract` has left them in shards."""


@dataclass
class FeatureBank:
    """Features of a list of records.

    Attributes:
        features: Features, float32 (N, F): a tensor, which may be memory-mapped, or `StoredRows` for features that
            `extract` has left in shards.
        labels: Class indices, int64 (N,), -1 if unlabeled.
        paths: Paths of the N files.
        classes: Class names.
        protocol: How the features were extracted: views, crops, list, weights.
        groups: Group of each record, int64 (N,), such as the source video of a clip; None if the data name no groups.
        segments: Start and end of each record in its file in seconds, float64 (N, 2), NaN where the file begins or
            ends; None if all records are whole files.
        places: Place of each record in the order of the data, int64 (N,); None if they are in this order.
    """

    features: Features
    labels: Int64[Tensor, " N"]
    paths: Sequence[str]
    classes: list[str]
    protocol: dict[str, Any] = field(default_factory=dict)
    groups: Int64[Tensor, " N"] | None = None
    segments: Float64[Tensor, "N 2"] | None = None
    places: Int64[Tensor, " N"] | None = None

    def in_order(self) -> Int64[Tensor, " N"]:
        """Return the index of each record in the order of the data, int64 (N,)."""
        return torch.arange(len(self.labels)) if self.places is None else self.places.argsort()

    def save(self, path: str | Path) -> None:
        """Write a file that `torch.load(..., weights_only=True)` reads, in place of an earlier one.

        The features must be a tensor, in the order of the data.
        """
        assert isinstance(self.features, Tensor)
        content = {name: value for name, value in vars(self).items() if name != "places"}
        with replacing(Path(path)) as partial:
            torch.save(content, partial)

    @classmethod
    def load(cls, path: str | Path) -> "FeatureBank":
        """Read a file written by `save`, memory-mapped: features are read when used, so they may exceed memory.

        Raises:
            DamagedFileError: If the file is damaged or is not such a file.
        """
        return cls(**torch_file.read(path, mmap=True))


class Predictions(NamedTuple):
    """What an evaluation says of each test record, in the order of the test split.

    Attributes:
        predicted: Class index, int64 (N,), -1 for none.
        score: Confidence of the prediction, float (N,), higher if more confident: the softmax probability of the class
            (linear, test, finetune), the fraction of the votes for it (knn), the cosine of the nearest record
            (retrieve) or the decision value of its machine (svm).
        nearest: Rows of the train split, int64 (N, K), nearest first; None if the evaluation does not search.
    """

    predicted: Int64[Tensor, " N"]
    score: Float[Tensor, " N"]
    nearest: Int64[Tensor, "N K"] | None = None


@dataclass
class Report:
    """Results of a run and how they were obtained; `report.json` in the run directory.

    Attributes:
        command: "pretrain", "knn", ...
        metrics: Metrics by name; rates are in [0, 1].
        protocol: Settings that numbers must share to be comparable: views, crops, list file, seed, hash of the weights.
        run_dir: The run directory.
        chance: What metrics would be by guessing, by the name of the metric.
        intervals: 95% confidence interval [low, high] of metrics, by the name of the metric: bootstrap percentiles
            over the test records, or over the tasks of few-shot.
        determinism: Whether a training with `trainer.deterministic` was deterministic, its number of threads, and the
            operations that were not, with the names of their layers; otherwise empty.
    """

    command: str
    metrics: dict[str, float]
    protocol: dict[str, Any]
    run_dir: Path
    chance: dict[str, Chance] = field(default_factory=dict)
    intervals: dict[str, list[float]] = field(default_factory=dict)
    determinism: dict[str, Any] = field(default_factory=dict)


class EarlierReport(Report):
    """Report of a run that was finished before the command was called, which has changed nothing."""
