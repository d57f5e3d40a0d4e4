"""Random parameters of a view, drawn for each sample from its seed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

JITTER = ("brightness", "contrast", "saturation", "hue")
BLUR_SIGMA = (0.1, 2.0)  # pixels
NUM_DRAWS = 15


class ViewParameters(NamedTuple):
    """The parameters drawn for one sample; all frames of its clip share them.

    Attributes:
        temporal_difference: Whether frames are replaced by their temporal differences.
        jitter: Color jitter operations in the order of application; empty for no jitter.
        brightness, contrast, saturation: Jitter factors, 1 for no change; used only if listed in `jitter`.
        hue: Hue shift in turns; used only if listed in `jitter`.
        gray: Whether to convert to gray.
        blur_sigma: Standard deviation of the Gaussian blur in pixels; 0 for no blur.
        solarize: Whether to solarize.
        flip: Whether to flip left and right.
    """

    temporal_difference: bool
    jitter: tuple[str, ...]
    brightness: float
    contrast: float
    saturation: float
    hue: float
    gray: bool
    blur_sigma: float
    solarize: bool
    flip: bool


class Draws(NamedTuple):
    """The parameters drawn for N samples, one array per parameter.

    Attributes:
        temporal_difference: See `ViewParameters`; bool (N,).
        order: Indices into `JITTER` in the order of application, int (N, 4).
        jitters: Whether each operation of `JITTER` is applied, bool (N, 4).
        levels: Factor of each operation of `JITTER`, or the hue shift in turns, float64 (N, 4).
        gray, solarize, flip: See `ViewParameters`; bool (N,).
        blur_sigma: See `ViewParameters`; float64 (N,).
    """

    temporal_difference: NDArray[np.bool_]
    order: NDArray[np.int64]
    jitters: NDArray[np.bool_]
    levels: NDArray[np.float64]
    gray: NDArray[np.bool_]
    blur_sigma: NDArray[np.float64]
    solarize: NDArray[np.bool_]
    flip: NDArray[np.bool_]

    def samples(self) -> list[ViewParameters]:
        """Return the parameters of each sample."""
        jitters = [
            tuple(JITTER[operation] for operation in order if applied[operation])
            for order, applied in zip(self.order.tolist(), self.jitters.tolist(), strict=True)
        ]
        columns = [*self.levels.T, self.gray, self.blur_sigma, self.solarize, self.flip]
        rows = zip(self.temporal_difference.tolist(), jitters, *(column.tolist() for column in columns), strict=True)
        return [ViewParameters(*row) for row in rows]

    def rows(self, rows: slice) -> "Draws":
        """Return the parameters of some samples."""
        return Draws(**{name: column[rows] for name, column in self._asdict().items()})

    @staticmethod
    def joined(draws: Sequence["Draws"]) -> "Draws":
        """Return the parameters of several batches as one."""
        return Draws(*map(np.concatenate, zip(*draws, strict=True)))


def unchanged(num_samples: int) -> Draws:
    """Return the parameters that leave samples unchanged."""
    no, levels = np.zeros(num_samples, dtype=bool), np.array([1.0, 1.0, 1.0, 0.0])
    order, sigma = np.tile(np.arange(4), (num_samples, 1)), np.zeros(num_samples)
    return Draws(
        no, order, np.zeros((num_samples, 4), dtype=bool), np.tile(levels, (num_samples, 1)), no, sigma, no, no
    )


def draw_parameters(
    numbers: NDArray[np.float64], strengths: Mapping[str, float], probabilities: Mapping[str, float]
) -> Draws:
    """Return the parameters of samples.

    Args:
        numbers: Random numbers in [0, 1) of each sample, (N, NUM_DRAWS).
        strengths: Jitter strength of each operation in `JITTER`; 0 turns it off. A strength x gives a factor in
            [max(0, 1 - x), 1 + x], or a hue shift in [-x, x] turns.
        probabilities: Probability of "jitter", "gray", "blur", "solarize", "flip" and "temporal_difference".
    """
    # Every number has a fixed position, so changing one setting never changes the other draws.
    jitter, gray, blur, sigma, solarize, flip, difference = numbers[:, 8:].T
    strength = np.array([strengths[name] for name in JITTER])
    low, high = np.maximum(0.0, 1 - strength), 1 + strength
    low[3], high[3] = -strength[3], strength[3]
    return Draws(
        temporal_difference=difference < probabilities["temporal_difference"],
        order=np.argsort(numbers[:, :4], axis=1, kind="stable"),
        jitters=(jitter < probabilities["jitter"])[:, None] & (strength > 0),
        levels=low + numbers[:, 4:8] * (high - low),
        gray=gray < probabilities["gray"],
        blur_sigma=np.where(blur < probabilities["blur"], uniform(sigma, *BLUR_SIGMA), 0.0),
        solarize=solarize < probabilities["solarize"],
        flip=flip < probabilities["flip"],
    )


def uniform(draw: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Map draws from [0, 1) to [low, high).

    >>> uniform(np.array(0.25), 10, 20).item()
    12.5
    """
    return low + draw * (high - low)
