"""A view: what a network sees of a clip, drawn at random from a seed.

A view is a handful of numbers (`ViewConfig`). The crop can be cut in the worker (`ViewConfig.draw_box` with
`data.shaping.crop_resize`) or on the device (`View.crop_on_device`); all other operations run on the device, in `View`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from eztorch_sce.augment import ops
from eztorch_sce.augment.ops import LinearColor
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import InputSpec

Box = tuple[int, int, int, int]

STATS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "image": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "video": ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2009, 0.1984, 0.2023)),
    "difference": ((0.5, 0.5, 0.5), (0.1, 0.1, 0.1)),
}
"""Mean and standard deviation per channel by name."""
STANDARDIZED = "clip"
"""In place of a name in `STATS`: the clip's own mean and deviation, so that neither light nor contrast counts."""
ALL_STATS = (*STATS, STANDARDIZED)

INPUTS = ("rgb", "difference")
ASPECT = (3 / 4, 4 / 3)
BLUR_SIGMA = (0.1, 2.0)
JITTER = ("brightness", "contrast", "saturation", "hue")
_CACHE_PIXELS = 2**17  # what a CPU works on at a time, at most: about what stays in its cache
_LARGE_PIXELS = 2**14  # a sample of so many is worked on alone: more calls, but no copies of those that draw something
_NUM_UNIFORMS = 15  # per sample: order (4), factors (4), and jitter, gray, blur, sigma, solarize, flip, difference


@dataclass
class ViewConfig:
    """The numbers of one view. As it stands it only crops; probabilities are per sample, independent of each other.

    Attributes:
        size: Edge of the square crop, pixels; null, like null for `input` and `stats`: what the weights were trained
            with.
        scale: [min, max] share of the frame's area that the crop takes; its aspect is 3/4 to 4/3.
        short_side: Empty, or instead of `scale` [min, max] of the short side in multiples of `size`: the frame is
            resized so that its short side is of a length drawn between them, and a square of `size` is cut out.
        brightness: Jitter strength x: a factor from max(0, 1 - x) to 1 + x; 0 is off.
        contrast: The same.
        saturation: The same.
        hue: Jitter strength h: a shift from -h to h in turns, at most 0.5; 0 is off.
        jitter_p: Probability of the jitter; the four then come in a random order.
        gray: Probability of gray.
        blur: Probability of a Gaussian blur of sigma 0.1 to 2 pixels; the kernel is 23 pixels wide at size 224.
        solarize: Probability of inverting what is 0.5 or brighter.
        flip: Probability of swapping left and right; 0 for data where they mean something.
        temporal_difference: Probability of showing the differences of successive frames instead of the frames.
        input: "rgb", or "difference": every clip is the differences of its frames, in training and in evaluation.
        stats: Mean and standard deviation to normalize with: a name in `STATS`, or "clip" for those of the clip itself.
    """

    size: int | None = 224
    scale: list[float] = field(default_factory=lambda: [0.2, 1.0])
    short_side: list[float] = field(default_factory=list)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter_p: float = 0.8
    gray: float = 0.0
    blur: float = 0.0
    solarize: float = 0.0
    flip: float = 0.0
    temporal_difference: float = 0.0
    input: str | None = "rgb"
    stats: str | None = "image"

    def problems(self, prefix: str) -> list[str]:
        """Return one sentence for each setting that cannot be; `prefix` is where this view is, as in "views.1"."""
        found = []

        def check(possible: bool, name: str, allowed: str) -> None:
            if not possible:
                found.append(f"{prefix}.{name}={getattr(self, name)!r}: {allowed}".removeprefix("."))

        check(self.size is None or self.size >= 2, "size", "pixels, a whole number of at least 2")
        check(_is_range(self.scale, above=0, at_most=1), "scale", "two area shares [min, max], 0 < min <= max <= 1")
        check(
            not self.short_side or _is_range(self.short_side, at_least=1),
            "short_side",
            "empty, or two multiples of `size` [min, max], 1 <= min <= max",
        )
        for name in ("brightness", "contrast", "saturation"):
            check(0 <= getattr(self, name) < math.inf, name, "a jitter strength of at least 0 (0 is off)")
        check(0 <= self.hue <= 0.5, "hue", "turns, from 0 (off) to 0.5")
        for name in ("jitter_p", "gray", "blur", "solarize", "flip", "temporal_difference"):
            check(0 <= getattr(self, name) <= 1, name, "a probability, from 0 (never) to 1 (always)")
        check(self.input is None or self.input in INPUTS, "input", f"one of {', '.join(INPUTS)}")
        check(
            self.input != "difference" or self.temporal_difference == 0,
            "temporal_difference",
            "must be 0 with input=difference, which takes the difference of every clip already",
        )
        check(self.stats is None or self.stats in ALL_STATS, "stats", f"one of {', '.join(ALL_STATS)}")
        return found

    def filled_in(self, spec: InputSpec) -> "ViewConfig":
        """Return a copy whose size, input and stats are those of `spec` where they were left open."""
        return replace(
            self,
            size=self.size or spec.size,
            input=self.input or spec.input,
            stats=self.stats or spec.stats,
        )

    def draw_box(self, generator: torch.Generator, height: int, width: int) -> Box:
        """Draw the crop of a frame of this many pixels: top, left, height, width."""
        if self.short_side:
            assert self.size is not None  # filled in before anything is drawn
            return random_square_box(generator, height, width, self.size, self.short_side)
        return random_crop_box(generator, height, width, self.scale)


def evaluation_view(spec: InputSpec) -> ViewConfig:
    """Return the view of a network input without anything random."""
    return ViewConfig(size=spec.size, input=spec.input, stats=spec.stats)


class ViewParameters(NamedTuple):
    """What one sample drew.

    Attributes:
        temporal_difference: Whether its frames become differences.
        jitter: The names of its color jitter operations in their order; empty without jitter.
        brightness, contrast, saturation: Factors, 1 changes nothing; they count where `jitter` names them.
        hue: Shift in turns.
        gray: Whether it becomes gray.
        blur_sigma: In pixels; 0 without blur.
        solarize: Whether it is solarized.
        flip: Whether left and right are swapped.
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


class View(nn.Module):
    """Turn raw clips into what the network sees: random operations by seed, then normalized.

    The order is temporal difference, color jitter, gray, blur, solarize, flip, normalize. A sample draws from its own
    seed, so it is the same alone and in any batch: to the bit on a CPU, to rounding between devices. The frames of a
    clip share one draw. Two views that differ in one setting agree in all other draws.

    Args:
        config: The numbers of the view.
        dtype: What comes out; computed is in float32, and rounded once, at the end.

    Raises:
        ConfigError: If a setting is impossible.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ViewConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if problems := config.problems("view"):
            raise ConfigError(problems)
        if config.size is None or config.input is None or config.stats is None:
            raise ConfigError([f"a view must say its size, input and stats: {config}"])
        self.config, self.size, self.dtype = config, config.size, dtype
        mean, std = STATS.get(config.stats, ((0.0,) * 3, (1.0,) * 3))
        self.register_buffer("mean", torch.tensor(mean), persistent=False)  # a setting, not a weight
        self.register_buffer("std", torch.tensor(std), persistent=False)
        self.strengths = {name: getattr(config, name) for name in JITTER if getattr(config, name) > 0}
        jitters = bool(self.strengths) and config.jitter_p > 0
        probabilities = (config.gray, config.blur, config.solarize, config.flip, config.temporal_difference)
        self.is_random = jitters or any(probabilities)
        self.needs_frames = config.input == "difference" or config.temporal_difference > 0

    def extra_repr(self) -> str:
        """Show the settings when printed."""
        return repr(self.config)

    @torch.no_grad()
    def forward(self, clips: Tensor, seeds: Sequence[int] = ()) -> Tensor:
        """Return (B, C, T, S, S), normalized.

        Args:
            clips: (B, 3, T, S, S), uint8, or float in [0, 1]. They are left as they are.
            seeds: One per sample; they may be left out where nothing is random (evaluation).

        Raises:
            ValueError: If the seeds are not one per sample, or a difference is asked of a single frame.
        """
        if self.is_random and len(seeds) != len(clips):
            raise ValueError(f"a random view needs one seed per sample: {len(seeds)} seeds for {len(clips)} clips")
        if self.needs_frames and clips.shape[2] == 1:
            ops.temporal_difference(clips)  # refuses, whether or not a sample draws it
        draws = [self.draw(seed) for seed in seeds] if self.is_random else [UNCHANGED] * len(clips)
        standardized = self.config.stats == STANDARDIZED
        dtype = torch.float32 if standardized else self.dtype
        seen = torch.empty((len(clips), 3, *clips.shape[2:]), dtype=dtype, device=clips.device)
        white = 255.0 if clips.dtype == torch.uint8 else 1.0
        with torch.inference_mode():  # a tenth faster; what is returned was made outside, and can be trained on
            for samples, frames in _parts(clips):
                drawn, part = draws[samples], clips[samples]
                always = self.config.input == "difference"
                if differing := [row for row, draw in enumerate(drawn) if draw.temporal_difference or always]:
                    difference = partial(ops.temporal_difference, white=white)
                    part = ops.apply_to_rows(part.to(torch.float32, copy=True), differing, difference)
                for some in frames:
                    pixels = self._augment(part[:, :, some].to(torch.float32, copy=True), 1 / white, drawn)
                    ops.normalize(pixels, self.mean, self.std, out=seen[samples, :, some])
        return ops.standardize(seen).to(self.dtype) if standardized else seen

    def draw(self, seed: int) -> ViewParameters:
        """Return what the sample of this seed draws."""
        generator = torch.Generator().manual_seed(seed)
        # All at once and each at its place, so that a setting never changes what the others draw.
        uniforms: list[float] = torch.rand(_NUM_UNIFORMS, generator=generator, dtype=torch.float64).tolist()
        places, shares = uniforms[:4], dict(zip(JITTER, uniforms[4:8], strict=True))
        jitter, gray, blur, sigma, solarize, flip, difference = uniforms[8:]
        config = self.config
        order = [name for _, name in sorted(zip(places, JITTER, strict=True)) if name in self.strengths]

        def factor(name: str) -> float:
            strength = getattr(config, name)
            return _between(shares[name], max(0.0, 1 - strength), 1 + strength)

        return ViewParameters(
            temporal_difference=difference < config.temporal_difference,
            jitter=tuple(order) if jitter < config.jitter_p else (),
            brightness=factor("brightness"),
            contrast=factor("contrast"),
            saturation=factor("saturation"),
            hue=_between(shares["hue"], -config.hue, config.hue),
            gray=gray < config.gray,
            blur_sigma=_between(sigma, *BLUR_SIGMA) if blur < config.blur else 0.0,
            solarize=solarize < config.solarize,
            flip=flip < config.flip,
        )

    def before_normalization(self, view: Tensor) -> Tensor:
        """Return what `forward` made of a clip, (3, T, S, S), as it was before; what was standardized, about 0.5."""
        if self.config.stats == STANDARDIZED:
            return view / 4 + 0.5
        return view * self.std.view(-1, 1, 1, 1) + self.mean.view(-1, 1, 1, 1)

    @torch.no_grad()
    def crop_on_device(self, clips: Tensor, aspect: Tensor, crop_seeds: Sequence[int]) -> Tensor:
        """Draw a crop for each clip and resize it: float32 (B, C, T, S, S) in [0, 1].

        Args:
            clips: (B, C, T, H, W), whole frames stretched to one size, uint8, or float in [0, 1].
            aspect: (B,): width over height of the frames before they were stretched; the crops are drawn in this
                geometry, so that the stretch is undone.
            crop_seeds: One per sample.
        """
        height, width = clips.shape[-2:]
        boxes = []
        for ratio, seed in zip(aspect.tolist(), crop_seeds, strict=True):
            shown_width = max(1, round(height * ratio))
            generator = torch.Generator().manual_seed(seed)
            top, left, box_height, box_width = self.config.draw_box(generator, height, shown_width)
            stretched = width / shown_width
            boxes.append((top, left * stretched, box_height, box_width * stretched))
        return ops.crop_and_resize(ops.to_float(clips), torch.tensor(boxes), self.size).clamp_(0, 1)

    def _augment(self, clips: Tensor, scale: float, draws: Sequence[ViewParameters]) -> Tensor:
        """Scale to [0, 1] and apply what the samples drew, from the jitter to the flip; reuses the clips' memory."""

        def rows(drawn: Callable[[ViewParameters], object]) -> list[int]:
            return [row for row, draw in enumerate(draws) if drawn(draw)]

        steps = [color_steps(draw, scale) for draw in draws]
        for place in range(max(map(len, steps))):
            at_place = {row: steps[row][place] for row in range(len(steps)) if place < len(steps[row])}
            changes = {row: step for row, step in at_place.items() if isinstance(step, LinearColor)}
            turns = {row: step for row, step in at_place.items() if isinstance(step, float)}
            linear = partial(ops.linear_color, changes=list(changes.values()))
            clips = ops.apply_to_rows(clips, list(changes), linear)
            clips = ops.apply_to_rows(clips, list(turns), partial(ops.adjust_hue, turns=list(turns.values())))
        blurred = rows(lambda draw: draw.blur_sigma)
        sigmas = [draws[row].blur_sigma for row in blurred]
        blur = partial(ops.gaussian_blur, sigmas=sigmas, kernel_size=blur_kernel_size(clips.shape[-1]))
        clips = ops.apply_to_rows(clips, blurred, blur)
        clips = ops.apply_to_rows(clips, rows(lambda draw: draw.solarize), ops.solarize)
        return ops.apply_to_rows(clips, rows(lambda draw: draw.flip), ops.horizontal_flip)


def color_steps(draw: ViewParameters, scale: float) -> list[LinearColor | float]:
    """Return the passes over the pixels that scaling, jitter and gray take: turns of the hue, and linear changes.

    Linear changes in a row are one pass, up to one that may leave [0, 1]: it is cut off there before the next. The hue
    does not see how bright an image is, so it comes before a change that only darkens, which can then join what
    follows.
    """
    linear = {"brightness": ops.brightness, "contrast": ops.contrast, "saturation": ops.saturation}
    steps: list[LinearColor | float] = [LinearColor(scale)] if scale != 1 else []
    for name in (*draw.jitter, "gray") if draw.gray else draw.jitter:
        before = steps[-1] if steps else None
        if name == "hue":
            darkens = isinstance(before, LinearColor) and not (before.gray or before.mean or before.clamps)
            steps.insert(len(steps) - darkens, draw.hue)
            continue
        change = ops.GRAY if name == "gray" else linear[name](getattr(draw, name))
        if isinstance(before, LinearColor) and not before.clamps:
            steps[-1] = before.then(change)
        else:
            steps.append(change)
    return steps


def _parts(clips: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Yield (samples, [frames of all of them, ...]) to be worked on one after the other.

    A GPU takes all at once. A CPU is twice as fast with parts that stay in its cache from one operation to the next.
    """
    batch, _, num_frames, height, width = clips.shape
    if clips.device.type != "cpu":
        yield slice(0, batch), [slice(0, num_frames)]
        return
    pixels = num_frames * height * width
    num_samples = 1 if pixels >= _LARGE_PIXELS else _CACHE_PIXELS // pixels
    frames_at_once = math.ceil(num_frames / math.ceil(pixels / _CACHE_PIXELS))  # of equal parts
    frames = [slice(first, first + frames_at_once) for first in range(0, num_frames, frames_at_once)]
    for first in range(0, batch, num_samples):
        yield slice(first, first + num_samples), frames


def blur_kernel_size(size: int) -> int:
    """Return the odd kernel that is to `size` what 23 is to 224, at least 3.

    >>> blur_kernel_size(224), blur_kernel_size(112), blur_kernel_size(32)
    (23, 11, 3)
    """
    return max(3, 2 * round((size * 23 / 224 - 1) / 2) + 1)


def random_crop_box(generator: torch.Generator, height: int, width: int, scale: Sequence[float]) -> Box:
    """Draw a box (top, left, height, width) of a share of the area in `scale`, of aspect 3/4 to 4/3, log-uniform.

    A shape that does not fit is drawn again, ten times at most; then the box is the largest at the center whose aspect
    is in the range.
    """
    for share, shape, down, right in torch.rand(10, 4, generator=generator, dtype=torch.float64).tolist():
        area = height * width * _between(share, scale[0], scale[1])
        aspect = math.exp(_between(shape, math.log(ASPECT[0]), math.log(ASPECT[1])))
        box_height, box_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 1 <= box_height <= height and 1 <= box_width <= width:
            top, left = int(down * (height - box_height + 1)), int(right * (width - box_width + 1))
            return top, left, box_height, box_width
    box_height = max(1, min(height, round(width / ASPECT[0])))
    box_width = max(1, min(width, round(height * ASPECT[1])))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def random_square_box(
    generator: torch.Generator, height: int, width: int, size: int, short_side: Sequence[float]
) -> Box:
    """Draw the square box that a crop of `size` takes from the frame resized to a random short side.

    Args:
        generator: Where the numbers come from.
        height, width: Of the frame, pixels.
        size: Of the crop, pixels.
        short_side: [min, max] of the short side, in multiples of `size`; each whole number of pixels is as likely.
    """
    share, down, right = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    shortest, longest = round(short_side[0] * size), round(short_side[1] * size)
    resized_to = shortest + int(share * (longest - shortest + 1))
    edge = max(1, round(min(height, width) * size / resized_to))
    return int(down * (height - edge + 1)), int(right * (width - edge + 1)), edge, edge


def _between(share: float, low: float, high: float) -> float:
    return low + share * (high - low)


def _is_range(
    values: Sequence[float], above: float = -math.inf, at_least: float = 0, at_most: float = math.inf
) -> bool:
    if len(values) != 2:
        return False
    low, high = values
    return above < low and at_least <= low <= high <= at_most and high < math.inf
