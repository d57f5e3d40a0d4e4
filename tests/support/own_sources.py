"""Sources of generated frames for the tests of data that are not files."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


class Arrays:
    """Frames in memory, labeled 0, 1, 0, 1, ...

    Args:
        frames: uint8 (C, T, H, W) or (C, H, W) of each record.
        prefix: What names begin with.
    """

    def __init__(self, frames: Sequence[Pixels], prefix: str = "r") -> None:
        self.frames, self.prefix = frames, prefix

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int) -> Pixels:
        return self.frames[index]

    def label(self, index: int) -> int | str | None:
        return index % 2

    def name(self, index: int) -> str:
        return f"{self.prefix}{index:03d}"


class Broken(Arrays):
    """Frames of which some cannot be read.

    Args:
        frames: As of `Arrays`.
        error: The exception that reading raises.
        numbers: Indices of the records that cannot be read.
    """

    def __init__(self, frames: Sequence[Pixels], error: Exception, numbers: Sequence[int]) -> None:
        super().__init__(frames)
        self.error, self.numbers = error, numbers

    def read(self, index: int) -> Pixels:
        if index in self.numbers:
            raise self.error
        return super().read(index)


def noise(count: int, *shape: int, seed: int = 0) -> list[Pixels]:
    """Return random frames; those of one record are of one color, and classes differ in brightness."""
    generator = np.random.default_rng(seed)
    low = [100 * (number % 2) for number in range(count)]
    return [generator.integers(start, start + 156, shape, dtype=np.uint8) for start in low]


def changed(**methods: Callable[..., object] | object) -> Arrays:
    """Return a source of six images with some methods or attributes replaced; methods take the index alone."""
    source = Arrays(noise(6, 3, 8, 8))
    for name, value in methods.items():
        setattr(source, name, value)
    return source
