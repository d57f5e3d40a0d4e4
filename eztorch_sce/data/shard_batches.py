"""Batches of the shards of a job: none holds records of two shards, so that a shard is done as soon as its batches are.

A batch of the network depends on its shard alone. It may be loaded in several pieces, if shared memory is small, and
the processes that were launched together take turns with the batches.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Dataset, Sampler

from eztorch_sce import distributed
from eztorch_sce.data.dataset import EvaluationClips
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.types import Batch, Failure, Sample

Piece = list[tuple[int, int]]
"""Split and record index of samples that are loaded together."""


class ShardClips(Dataset[Sample | Failure]):
    """Clips and crops of the records of shards, which belong to several splits; an item is (split, record index).

    Args:
        clips: The clips of all records as each split samples them: an image has one clip in a split of images.
    """

    def __init__(self, clips: Sequence[EvaluationClips]) -> None:
        self._clips = list(clips)

    def __len__(self) -> int:
        return len(self._clips[0])

    def __getitem__(self, key: tuple[int, int]) -> Sample | Failure:
        split, index = key
        return self._clips[split][0, index]

    @property
    def manifest(self) -> Manifest:
        """The records of all shards."""
        return self._clips[0].manifest

    @property
    def sample_bytes(self) -> int:
        """The most bytes of the clips and crops of one record."""
        return max(clips.sample_bytes for clips in self._clips)


class ShardSize(NamedTuple):
    """The records of a shard, which follow each other.

    Attributes:
        start: Index of the first.
        by_split: Number of records of each split, one split after the other.
    """

    start: int
    by_split: Sequence[int]


class ShardBatches(Sampler[Piece]):
    """The pieces that this process loads, one shard after the other.

    Args:
        sizes: The shards.
        batch_sizes: Records of each split that go through the network together.
        piece_size: Records that are loaded together.
    """

    def __init__(self, sizes: Sequence[ShardSize], batch_sizes: Sequence[int], piece_size: int) -> None:
        self._sizes, self._batch_sizes, self._piece_size = sizes, batch_sizes, piece_size

    def of_shard(self, number: int) -> list[list[Piece]]:
        """Return the batches of a shard that this process computes, each as its pieces."""
        start, batches = self._sizes[number].start, list[Piece]()
        for split, count in enumerate(self._sizes[number].by_split):
            keys = [(split, index) for index in range(start, start + count)]
            batches += _parts(keys, self._batch_sizes[split])
            start += count
        own = batches[distributed.rank() :: distributed.world_size()]
        return [_parts(batch, self._piece_size) for batch in own]

    def __iter__(self) -> Iterator[Piece]:
        for number in range(len(self._sizes)):
            for batch in self.of_shard(number):
                yield from batch

    def __len__(self) -> int:
        return sum(len(batch) for number in range(len(self._sizes)) for batch in self.of_shard(number))


def joined(pieces: Sequence[Batch]) -> Batch:
    """Return the batch whose pieces were loaded one by one."""
    if len(pieces) == 1:
        return pieces[0]
    filled = [piece for piece in pieces if piece.frames] or [pieces[0]]
    columns = {
        name: torch.cat([getattr(piece, name) for piece in filled]) for name in ("label", "record", "epoch", "aspect")
    }
    frames = [torch.cat(views) for views in zip(*(piece.frames for piece in filled), strict=True)]
    return Batch(frames=frames, failures=[each for piece in pieces for each in piece.failures], **columns)


def _parts(keys: Piece, size: int) -> list[Piece]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]
