"""What the settings of several commands are made of: where a run writes, how it trains, on what it is tested."""

from dataclasses import dataclass

from eztorch_sce.data.clip_sampling import COVERS
from eztorch_sce.data.config import DataConfig


@dataclass
class RunConfig:
    """Where a run writes, and how often.

    Attributes:
        dir: The run directory; null is the next free runs/<command>-<n>.
        resume: Go on from `last.ckpt` of the directory.
        log_every_n_steps: Steps between two lines of the log.
        save_every_n_epochs: Also keep the backbone every n epochs; null keeps the last alone.
    """

    dir: str | None = None
    resume: bool = False
    log_every_n_steps: int = 10
    save_every_n_epochs: int | None = None


@dataclass
class TrainerConfig:
    """How Lightning runs.

    Attributes:
        max_epochs: Passes over the data.
        accelerator: "auto", "gpu" or "cpu".
        devices: Devices per node; null is all GPUs, or one process without any.
        num_nodes: Machines.
        precision: "32-true", "16-mixed" or "bf16-mixed".
        accumulate: Loader batches per optimizer step; `data.batch_size` is divided by it.
        sync_batchnorm: Batch statistics over all devices; null is true on GPUs. Torch has none for CPUs.
    """

    max_epochs: int = 200
    accelerator: str = "auto"
    devices: int | None = None
    num_nodes: int = 1
    precision: str = "32-true"
    accumulate: int = 1
    sync_batchnorm: bool | None = None

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        found = []
        allowed = {"accelerator": ["auto", "gpu", "cpu"], "precision": ["32-true", "16-mixed", "bf16-mixed"]}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                found.append(f"{prefix}.{name}={getattr(self, name)} must be one of {', '.join(values)}")
        for name in ("max_epochs", "num_nodes", "accumulate"):
            if getattr(self, name) < 1:
                found.append(f"{prefix}.{name}={getattr(self, name)} must be at least 1")
        if self.sync_batchnorm and self.accelerator == "cpu":
            found.append(f"{prefix}.sync_batchnorm=true needs GPUs, and {prefix}.accelerator=cpu: leave it out")
        return found


@dataclass
class EvaluationViewsConfig:
    """What a record is tested on: clips spread over time, crops spread over space.

    Attributes:
        clips: "even" spreads `num_clips` over the video; "half_overlap" (each starts in the middle of the one before)
            and "cover" (as few as can be) take as many as cover it; "whole" spreads the frames of one over all of it.
        num_clips: Clips per video if evenly spaced; an image has one.
        num_crops: 1 (center) or 3 along the long side.
        short_side: Pixels of the short side before the crop; null is 8/7 of the crop (256 for 224).
    """

    clips: str = "even"
    num_clips: int = 10
    num_crops: int = 3
    short_side: int | None = None

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        found = []
        if self.clips not in ("even", *COVERS):
            found.append(f"{prefix}.clips={self.clips} must be one of even, {', '.join(COVERS)}")
        if self.num_clips < 1:
            found.append(f"{prefix}.num_clips={self.num_clips} must be at least 1")
        if self.num_crops not in (1, 3):
            found.append(f"{prefix}.num_crops={self.num_crops} must be 1 (center) or 3")
        return found


def clips_problems(data: DataConfig, num_views: int) -> list[str]:
    """Name what does not fit between the clips and the number of views that they are for."""
    if data.near_power is not None and num_views != 2:
        return [f"data.near_power={data.near_power} draws the distance of two clips, and there are {num_views} views"]
    return []


def batch_problems(data: DataConfig, trainer: TrainerConfig) -> list[str]:
    """Name what does not fit between the batch and the devices that share it."""
    parts = (trainer.devices or 1) * trainer.num_nodes * trainer.accumulate
    if parts >= 1 and (data.batch_size % parts or data.batch_size < 2 * parts):
        return [
            f"data.batch_size={data.batch_size} is of one optimizer step: it must divide by devices x nodes x "
            f"accumulate = {parts} and leave 2 or more each"
        ]
    return []
