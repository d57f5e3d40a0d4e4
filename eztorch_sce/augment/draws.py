"""Random parameters of a view, drawn for each sample from its seed."""

from collections.abc import Mapping
from typing import NamedTuple

import torch

JITTER = ("brightness", "contrast", "saturation", "hue")
BLUR_SIGMA = (0.1, 2.0)  # pixels
_NUM_DRAWS = 15


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


UNCHANGED = ViewParameters(False, (), 1.0, 1.0, 1.0, 0.0, False, 0.0, False, False)


def draw_parameters(seed: int, strengths: Mapping[str, float], probabilities: Mapping[str, float]) -> ViewParameters:
    """Draw the parameters of the sample with this seed.

    Args:
        seed: Seed of the sample.
        strengths: Jitter strength of each operation in `JITTER`; 0 turns it off. A strength x gives a factor in
            [max(0, 1 - x), 1 + x], or a hue shift in [-x, x] turns.
        probabilities: Probability of "jitter", "gray", "blur", "solarize", "flip" and "temporal_difference".
    """
    generator = torch.Generator().manual_seed(seed)
    # Every number has a fixed position, so changing one setting never changes the other draws.
    draws: list[float] = torch.rand(_NUM_DRAWS, generator=generator, dtype=torch.float64).tolist()
    ranks, levels = draws[:4], dict(zip(JITTER, draws[4:8], strict=True))
    jitter, gray, blur, sigma, solarize, flip, difference = draws[8:]
    order = [name for _, name in sorted(zip(ranks, JITTER, strict=True)) if strengths[name] > 0]

    def factor(name: str) -> float:
        return uniform(levels[name], max(0.0, 1 - strengths[name]), 1 + strengths[name])

    return ViewParameters(
        temporal_difference=difference < probabilities["temporal_difference"],
        jitter=tuple(order) if jitter < probabilities["jitter"] else (),
        brightness=factor("brightness"),
        contrast=factor("contrast"),
        saturation=factor("saturation"),
        hue=uniform(levels["hue"], -strengths["hue"], strengths["hue"]),
        gray=gray < probabilities["gray"],
        blur_sigma=uniform(sigma, *BLUR_SIGMA) if blur < probabilities["blur"] else 0.0,
        solarize=solarize < probabilities["solarize"],
        flip=flip < probabilities["flip"],
    )


def uniform(draw: float, low: float, high: float) -> float:
    """Map a draw from [0, 1) to [low, high).

    >>> uniform(0.25, 10, 20)
    12.5
    """
    return low + draw * (high - low)
