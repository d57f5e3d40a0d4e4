"""Views: random crops of a clip, augmented and normalized on the device.

`ViewConfig` holds the settings of a view. Its box is drawn by a data worker or by `View.crop_on_device`; everything
after the crop runs on the device, in `View`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from eztorch_sce.augment import ops
from eztorch_sce.augment.crops import Box, random_crop_box, random_square_box, stretch_box
from eztorch_sce.augment.draws import UNCHANGED, ViewParameters, draw_parameters
from eztorch_sce.augment.ops import LinearColor
from eztorch_sce.augment.statistics import PER_CLIP, STATISTICS, ChannelStatistics, statistics_names
from eztorch_sce.errors import ConfigError
from eztorch_sce.settings import Settings, invalid_settings, setting, show
from eztorch_sce.types import InputSpec

_UNNORMALIZED = ChannelStatistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_CACHE_PIXELS = 2**17  # pixels processed at a time on a CPU: about what fits into its cache
_LARGE_SAMPLE_PIXELS = 2**14  # process larger samples one by one, which saves copying those that draw an operation


@dataclass
class ViewConfig(Settings):
    """A random crop, and operations applied to each sample independently with the given probabilities."""

    size: int | None = setting(
        224, at_least=2, help="Side of the square crop in pixels; null means the size that the weights were trained on."
    )
    scale: list[float] = setting(
        [0.2, 1.0],
        above=0,
        at_most=1,
        help="[min, max] fraction of the frame's area that the crop covers; its aspect ratio is 3/4 to 4/3.",
    )
    short_side: list[float] = setting(
        [],
        at_least=1,
        help="[min, max] short side, in multiples of `size`, to which the frame is resized at random before a square "
        "of `size` is cropped; replaces `scale` unless empty.",
    )
    brightness: float = setting(
        0.0, at_least=0, help="Brightness jitter x: a factor from max(0, 1 - x) to 1 + x; 0 is off."
    )
    contrast: float = setting(
        0.0, at_least=0, help="Contrast jitter x: a factor from max(0, 1 - x) to 1 + x; 0 is off."
    )
    saturation: float = setting(
        0.0, at_least=0, help="Saturation jitter x: a factor from max(0, 1 - x) to 1 + x; 0 is off."
    )
    hue: float = setting(0.0, at_least=0, at_most=0.5, help="Hue jitter h: a shift from -h to h in turns; 0 is off.")
    jitter_p: float = setting(
        0.8, at_least=0, at_most=1, help="Probability of color jitter; its operations run in random order."
    )
    gray: float = setting(0.0, at_least=0, at_most=1, help="Probability of converting to gray.")
    blur: float = setting(
        0.0,
        at_least=0,
        at_most=1,
        help="Probability of a Gaussian blur with a sigma of 0.1 to 2 pixels; the kernel has 23 pixels at size 224.",
    )
    solarize: float = setting(0.0, at_least=0, at_most=1, help="Probability of inverting pixels of 0.5 or brighter.")
    flip: float = setting(
        0.0, at_least=0, at_most=1, help="Probability of a horizontal flip; keep 0 if left and right differ in meaning."
    )
    temporal_difference: float = setting(
        0.0, at_least=0, at_most=1, help="Probability of replacing frames by differences of consecutive frames."
    )
    input: str | None = setting(
        "rgb",
        choices=("rgb", "difference"),
        help="rgb for frames, or difference for differences of consecutive frames in training and evaluation; null "
        "means the input that the weights were trained on.",
    )
    stats: str | None = setting(
        "image",
        choices=statistics_names,
        help="Mean and standard deviation for normalization; clip computes them for each clip; null means those "
        "that the weights were trained on.",
    )

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per rule that is broken across settings, such as ranges out of order."""
        messages = []
        if not _is_ascending_pair(self.scale):
            messages.append(f"{prefix}.scale={show(self.scale)} must be [min, max] in ascending order")
        if self.short_side and not _is_ascending_pair(self.short_side):
            messages.append(
                f"{prefix}.short_side={show(self.short_side)} must be empty, or [min, max] in ascending order"
            )
        if self.input == "difference" and self.temporal_difference != 0:
            messages.append(
                f"{prefix}.temporal_difference={show(self.temporal_difference)} must be 0 with "
                f"{prefix}.input=difference, which already replaces every frame"
            )
        return messages

    def strengths(self) -> dict[str, float]:
        """Return the jitter strengths in the form that `draw_parameters` expects."""
        return {
            "brightness": self.brightness,
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": self.hue,
        }

    def probabilities(self) -> dict[str, float]:
        """Return the probabilities in the form that `draw_parameters` expects."""
        return {
            "jitter": self.jitter_p if any(self.strengths().values()) else 0.0,
            "gray": self.gray,
            "blur": self.blur,
            "solarize": self.solarize,
            "flip": self.flip,
            "temporal_difference": self.temporal_difference,
        }

    def filled_in(self, spec: InputSpec) -> "ViewConfig":
        """Return a copy in which size, input and stats, if null, are taken from `spec`."""
        return replace(
            self,
            size=self.size or spec.size,
            input=self.input or spec.input,
            stats=self.stats or spec.stats,
        )

    def draw_box(self, generator: torch.Generator, height: int, width: int) -> Box:
        """Draw the box to crop from a frame of `height` x `width` pixels."""
        if self.short_side:
            assert self.size is not None  # filled in before anything is drawn
            return random_square_box(generator, height, width, self.size, self.short_side)
        return random_crop_box(generator, height, width, self.scale)


def evaluation_view(spec: InputSpec) -> ViewConfig:
    """Return the view for evaluation: the input described by `spec`, without random operations."""
    return ViewConfig(size=spec.size, input=spec.input, stats=spec.stats)


class View(nn.Module):
    """Augment and normalize crops on the device, reproducible from their seeds.

    The operations, in order: temporal difference, color jitter, gray, blur, solarize, flip, normalize. Each sample
    draws from its own seed, and its frames share the draw. The result is therefore the same alone and in any batch: bit
    for bit on a CPU, up to rounding across devices. Views that differ in one setting agree in all other draws.

    Args:
        config: The settings of the view.
        dtype: Type of the result. Computation is in float32, rounded once at the end.
        channels_last: Whether the result has the strides of `torch.channels_last_3d`, which many convolutions prefer.
            Without T, those of `torch.channels_last`.

    Raises:
        ConfigError: If a setting is invalid, or the size, input or stats are null.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ViewConfig, dtype: torch.dtype = torch.float32, *, channels_last: bool = False) -> None:
        super().__init__()
        if messages := invalid_settings(config, "view"):
            raise ConfigError(messages)
        if config.size is None or config.input is None or config.stats is None:
            raise ConfigError([f"a view needs a size, an input and stats, none of them null: {config}"])
        self.config, self.size = config, config.size
        self.dtype, self.channels_last = dtype, channels_last
        statistics = STATISTICS.get(config.stats, _UNNORMALIZED)  # PER_CLIP uses `standardize` instead
        self.register_buffer("mean", torch.tensor(statistics.mean), persistent=False)  # set by the config
        self.register_buffer("std", torch.tensor(statistics.std), persistent=False)
        self.strengths, self.probabilities = config.strengths(), config.probabilities()
        self.is_random = any(self.probabilities.values())
        self.needs_frames = config.input == "difference" or config.temporal_difference > 0

    def extra_repr(self) -> str:
        """Show the settings when printed."""
        return repr(self.config)

    @torch.no_grad()
    def forward(self, clips: Shaped[Tensor, "B 3 *T S S"], seeds: Sequence[int] = ()) -> Float[Tensor, "B 3 *T S S"]:
        """Return the augmented and normalized clips or images; the input is left unchanged.

        Args:
            clips: Crops, uint8 or float in [0, 1]; without T, they are images.
            seeds: One seed per sample; may be omitted if nothing is random.

        Raises:
            ValueError: If the view is random and there is not one seed per sample, if it needs differences and the
                clips have one frame, or if the pixels are neither uint8 nor floats.
        """
        if clips.ndim == 4:
            of_images: Tensor = self(clips.unsqueeze(2), seeds)
            return of_images.squeeze(2)
        ops.check_pixels(clips)
        if self.is_random and len(seeds) != len(clips):
            raise ValueError(f"a random view needs one seed per sample: {len(seeds)} seeds for {len(clips)} clips")
        if self.needs_frames:
            ops.check_has_differences(clips)
        parameters = [self.draw(seed) for seed in seeds] if self.is_random else [UNCHANGED] * len(clips)
        per_clip = self.config.stats == PER_CLIP
        memory_format = torch.channels_last_3d if self.channels_last else torch.contiguous_format
        # Statistics of a clip are summed in one order, so that they do not depend on the memory format.
        views = torch.empty(
            (len(clips), 3, *clips.shape[2:]),
            dtype=torch.float32 if per_clip else self.dtype,
            device=clips.device,
            memory_format=torch.contiguous_format if per_clip else memory_format,
        )
        white = 255.0 if clips.dtype == torch.uint8 else 1.0
        mean, std = self.mean.to(clips.device), self.std.to(clips.device)
        # Inference mode is a tenth faster. `views` is created outside it, so that autograd can use it.
        with torch.inference_mode():
            for samples, all_frames in _chunks(clips):
                drawn = parameters[samples]
                chunk = self._to_differences(clips[samples], drawn, white)
                for frames in all_frames:
                    pixels = chunk[:, :, frames].to(torch.float32, copy=True)
                    pixels = _augment(pixels, 1 / white, drawn)
                    ops.normalize(pixels, mean, std, out=views[samples, :, frames])
        return ops.standardize(views).to(self.dtype, memory_format=memory_format) if per_clip else views

    def draw(self, seed: int) -> ViewParameters:
        """Return the parameters of the sample with this seed."""
        return draw_parameters(seed, self.strengths, self.probabilities)

    def denormalize(self, view: Float[Tensor, "3 T S S"]) -> Float[Tensor, "3 T S S"]:
        """Undo the normalization of one clip; a clip normalized by its own statistics is centered at 0.5."""
        if self.config.stats == PER_CLIP:
            return view / 4 + 0.5
        return view * self.std.view(-1, 1, 1, 1) + self.mean.view(-1, 1, 1, 1)

    @torch.no_grad()
    def crop_on_device(
        self, clips: Shaped[Tensor, "B C *T H W"], aspect: Float[Tensor, " B"], seeds: Sequence[int]
    ) -> Float[Tensor, "B C *T S S"]:
        """Draw a crop for each clip or image and resize it; return float32 in [0, 1].

        Args:
            clips: Whole frames stretched to one size, uint8 or float in [0, 1]; without T, they are images.
            aspect: Width over height of each video before stretching. Crops are drawn in this geometry, so the stretch
                is undone.
            seeds: One seed per sample.
        """
        if clips.ndim == 4:
            return self.crop_on_device(clips.unsqueeze(2), aspect, seeds).squeeze(2)
        ops.check_pixels(clips)
        height, stretched_width = clips.shape[-2:]
        boxes = []
        for ratio, seed in zip(aspect.tolist(), seeds, strict=True):
            width = max(1, round(height * ratio))
            box = self.config.draw_box(torch.Generator().manual_seed(seed), height, width)
            boxes.append(stretch_box(box, width, stretched_width))
        return ops.resized_crops(ops.to_float(clips), torch.tensor(boxes), self.size).clamp_(0, 1)

    def _to_differences(self, clips: Tensor, parameters: Sequence[ViewParameters], white: float) -> Tensor:
        """Replace frames by temporal differences, on the scale [0, white], in the samples that drew this."""
        always = self.config.input == "difference"
        rows = [row for row, drawn in enumerate(parameters) if drawn.temporal_difference or always]
        if not rows:
            return clips
        difference = partial(ops.temporal_difference, white=white)
        return ops.apply_to_rows(clips.to(torch.float32, copy=True), rows, difference)


def _augment(clips: Tensor, scale: float, parameters: Sequence[ViewParameters]) -> Tensor:
    """Scale clips to [0, 1] and apply the drawn operations, from color jitter to flip; may overwrite the input."""
    clips = _change_colors(clips, [color_passes(drawn, scale) for drawn in parameters])
    blurred = [row for row, drawn in enumerate(parameters) if drawn.blur_sigma]
    sigmas = [parameters[row].blur_sigma for row in blurred]
    blur = partial(ops.gaussian_blur, sigmas=sigmas, kernel_size=ops.blur_kernel_size(clips.shape[-1]))
    clips = ops.apply_to_rows(clips, blurred, blur)
    solarized = [row for row, drawn in enumerate(parameters) if drawn.solarize]
    clips = ops.apply_to_rows(clips, solarized, ops.solarize)
    flipped = [row for row, drawn in enumerate(parameters) if drawn.flip]
    return ops.apply_to_rows(clips, flipped, ops.horizontal_flip)


def _change_colors(clips: Tensor, passes: Sequence[Sequence[LinearColor | float]]) -> Tensor:
    """Apply the color passes of each sample: the first pass of all samples, then the second, and so on."""
    for number in range(max(map(len, passes))):
        current = {row: steps[number] for row, steps in enumerate(passes) if number < len(steps)}
        changes = {row: step for row, step in current.items() if isinstance(step, LinearColor)}
        turns = {row: step for row, step in current.items() if isinstance(step, float)}
        linear = partial(ops.linear_color, changes=list(changes.values()))
        clips = ops.apply_to_rows(clips, list(changes), linear)
        clips = ops.apply_to_rows(clips, list(turns), partial(ops.adjust_hue, turns=list(turns.values())))
    return clips


def color_passes(parameters: ViewParameters, scale: float) -> list[LinearColor | float]:
    """Return the passes over the pixels that scaling, color jitter and gray need.

    A pass is a hue shift in turns, or a linear color change. Consecutive linear changes are merged into one pass, up to
    a change that may leave [0, 1], since its result is clamped. Brightness does not affect hue, so a hue shift moves
    ahead of a change that only darkens, which can then merge with the changes after it.
    """
    linear = {"brightness": ops.brightness, "contrast": ops.contrast, "saturation": ops.saturation}
    passes: list[LinearColor | float] = [LinearColor(scale)] if scale != 1 else []
    names = [*parameters.jitter, "gray"] if parameters.gray else parameters.jitter
    for name in names:
        last = passes[-1] if passes else None
        if name == "hue":
            position = len(passes)
            if isinstance(last, LinearColor) and last.only_scales():
                position -= 1
            passes.insert(position, parameters.hue)
            continue
        change = ops.GRAY if name == "gray" else linear[name](getattr(parameters, name))
        if isinstance(last, LinearColor) and not last.clamps:
            passes[-1] = last.then(change)
        else:
            passes.append(change)
    return passes


def _chunks(clips: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Yield chunks of samples with their chunks of frames, to be processed one after the other.

    A GPU takes everything at once. A CPU is twice as fast on chunks that stay in its cache between operations.
    """
    batch, _, num_frames, height, width = clips.shape
    if clips.device.type != "cpu":
        yield slice(0, batch), [slice(0, num_frames)]
        return
    pixels = num_frames * height * width
    num_samples = 1 if pixels >= _LARGE_SAMPLE_PIXELS else _CACHE_PIXELS // pixels
    num_chunks = math.ceil(pixels / _CACHE_PIXELS)
    frames_at_once = math.ceil(num_frames / num_chunks)
    frames = [slice(first, first + frames_at_once) for first in range(0, num_frames, frames_at_once)]
    for first in range(0, batch, num_samples):
        yield slice(first, first + num_samples), frames


def _is_ascending_pair(values: Sequence[float]) -> bool:
    return len(values) == 2 and values[0] <= values[1]
