"""Loaders of batches of clips."""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from eztorch_sce.data.collate import collate
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.dataset import Clips, EpochSampler, EvaluationClips, EvaluationSampling
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.types import InputSpec


class TimedLoader(DataLoader[Any]):
    """DataLoader that records how long its consumer waited for batches.

    Attributes:
        waited_s: Total waiting time in seconds.
    """

    waited_s: float = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        started = time.perf_counter()
        batches = super().__iter__()  # starts the workers
        while True:
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - started
            if batch is None:
                return
            yield batch
            started = time.perf_counter()


def evaluation_loader(
    config: DataConfig, manifest: Manifest, spec: InputSpec, sampling: EvaluationSampling
) -> TimedLoader:
    """Return a loader of the clips and crops of each record, in the order of the manifest."""
    if manifest.records.all_images():
        sampling = sampling._replace(num_clips=1)  # an image has no time to spread clips over
    dataset = EvaluationClips(manifest, spec, config.build_decoder(), sampling)
    sampler = EpochSampler(len(manifest.records), seed=0, shuffle=False)
    batch_size = 1  # videos of different length are covered by different numbers of clips, which cannot be stacked
    if sampling.clips == "even":
        num_views = sampling.num_clips * sampling.num_crops
        batch_size = max(1, config.samples_per_step // num_views)  # as many clips at once as in training
    return clip_loader(dataset, sampler, batch_size, config.workers(), drop_last=False)


def clip_loader(
    dataset: Clips, sampler: EpochSampler, batch_size: int, num_workers: int, drop_last: bool
) -> TimedLoader:
    """Return a loader of batches of `dataset` in the order of `sampler`."""
    return TimedLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        drop_last=drop_last,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
    )
