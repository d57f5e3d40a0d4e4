"""Views: random crops of a clip, augmented and normalized on the device.

`ViewConfig` holds the settings of a view. Its box is drawn by a data worker or by `View.crop_on_device`; everything
after the crop runs on the device, in `View`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor, nn

from eztorch_sce.augment import on_cpu, ops
from eztorch_sce.augment.crops import (
    NUM_CROP_DRAWS,
    NUM_SQUARE_DRAWS,
    Box,
    random_crop_box,
    random_crop_boxes,
    random_square_boxes,
    stretch_boxes,
)
from eztorch_sce.augment.device_numbers import ViewWork
from eztorch_sce.augment.draws import NUM_DRAWS, Draws, ViewParameters, draw_parameters, unchanged
from eztorch_sce.augment.on_device import DeviceAugmentation
from eztorch_sce.augment.statistics import PER_CLIP, STATISTICS, ChannelStatistics, statistics_names
from eztorch_sce.augment.uniform import uniform_numbers
from eztorch_sce.errors import ConfigError
from eztorch_sce.settings import Settings, invalid_settings, setting, show
from eztorch_sce.types import InputSpec

_UNNORMALIZED = ChannelStatistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
Seeds: TypeAlias = Sequence[int] | NDArray[np.uint64]


@dataclass
class ViewConfig(Settings):
    """A random crop, and operations applied to each sample with the given probabilities."""

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
        numbers = torch.rand(1, self.num_box_draws(), generator=generator, dtype=torch.float64)
        if not self.short_side:
            return random_crop_box(numbers[0].tolist(), height, width, self.scale)
        (box,) = self.draw_boxes(numbers.numpy(), np.array([height]), np.array([width])).tolist()
        return Box(*box)

    def num_box_draws(self) -> int:
        """Return how many random numbers a box takes."""
        return NUM_SQUARE_DRAWS if self.short_side else NUM_CROP_DRAWS

    def draw_boxes(
        self, numbers: NDArray[np.float64], heights: NDArray[np.int64], widths: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the boxes (B, 4) to crop from frames of these sizes (B,), from random numbers (B, num_box_draws)."""
        if self.short_side:
            assert self.size is not None  # filled in before anything is drawn
            return random_square_boxes(numbers, heights, widths, self.size, self.short_side)
        return random_crop_boxes(numbers, heights, widths, self.scale)


def evaluation_view(spec: InputSpec) -> ViewConfig:
    """Return the view for evaluation: the input described by `spec`, without random operations."""
    return ViewConfig(size=spec.size, input=spec.input, stats=spec.stats)


class View(nn.Module):
    """Augment and normalize crops on their device, reproducible from their seeds.

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
        self.statistics = None if config.stats == PER_CLIP else statistics
        self.register_buffer("mean", torch.tensor(statistics.mean), persistent=False)  # set by the config
        self.register_buffer("std", torch.tensor(statistics.std), persistent=False)
        self.strengths, self.probabilities = config.strengths(), config.probabilities()
        self.is_random = any(self.probabilities.values())
        self.needs_frames = config.input == "difference" or config.temporal_difference > 0
        self._on_device = DeviceAugmentation()

    def extra_repr(self) -> str:
        """Show the settings when printed."""
        return repr(self.config)

    @torch.no_grad()
    def forward(self, clips: Shaped[Tensor, "B 3 *T S S"], seeds: Seeds = ()) -> Float[Tensor, "B 3 *T S S"]:
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
        work = self.work(clips, self.draw_all(seeds) if self.is_random else None)
        if clips.device.type == "cpu":
            return self.on_cpu(work)
        (view,) = self._on_device([work], self.dtype, self.channels_last)
        return view

    def work(
        self, clips: Shaped[Tensor, "B 3 T H W"], draws: Draws | None, boxes: NDArray[np.float64] | None = None
    ) -> ViewWork:
        """Return clips with what their samples draw, for `on_cpu` or `DeviceAugmentation`.

        Args:
            clips: Crops, or whole frames with boxes.
            draws: The parameters of each sample; None if nothing is random.
            boxes: Top, left, height and width of the crop of each sample, (B, 4).

        Raises:
            ValueError: As `forward`.
        """
        ops.check_pixels(clips)
        if draws is None:
            draws = unchanged(len(clips))
        if len(draws.flip) != len(clips):
            raise ValueError(f"a random view needs one seed per sample: {len(draws.flip)} seeds for {len(clips)} clips")
        if self.needs_frames:
            ops.check_has_differences(clips)
        if self.config.input == "difference":
            draws = draws._replace(temporal_difference=np.ones(len(clips), dtype=bool))
        return ViewWork(clips, draws, boxes, self.size, self.statistics, self.strengths, self.probabilities)

    def on_cpu(self, work: ViewWork) -> Float[Tensor, "B 3 T S S"]:
        """Return the view by the form for CPUs, the reference; it runs on any device."""
        if work.boxes is not None:
            work = work._replace(frames=self.crop(work.frames, work.boxes), boxes=None)
        mean, std = self.mean.to(work.frames.device), self.std.to(work.frames.device)
        return on_cpu.augment(work, (mean, std), self.dtype, self.channels_last)

    def draw(self, seed: int) -> ViewParameters:
        """Return the parameters of the sample with this seed."""
        return self.draw_all([seed]).samples()[0]

    def draw_all(self, seeds: Seeds) -> Draws:
        """Return the parameters of the samples with these seeds."""
        return self.draws_of(uniform_numbers(seeds, NUM_DRAWS))

    def draws_of(self, numbers: NDArray[np.float64]) -> Draws:
        """Return the parameters of samples with these random numbers, (B, NUM_DRAWS)."""
        return draw_parameters(numbers, self.strengths, self.probabilities)

    def denormalize(self, view: Float[Tensor, "3 T S S"]) -> Float[Tensor, "3 T S S"]:
        """Undo the normalization of one clip; a clip normalized by its own statistics is centered at 0.5."""
        if self.config.stats == PER_CLIP:
            return view / 4 + 0.5
        return view * self.std.view(-1, 1, 1, 1) + self.mean.view(-1, 1, 1, 1)

    @torch.no_grad()
    def crop_on_device(
        self, clips: Shaped[Tensor, "B C *T H W"], aspect: Float[Tensor, " B"], seeds: Seeds
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
        numbers = uniform_numbers(seeds, self.config.num_box_draws())
        return self.crop(clips, self.boxes_of(clips, aspect, numbers))

    @torch.no_grad()
    def crop(self, clips: Shaped[Tensor, "B C T H W"], boxes: NDArray[np.float64]) -> Float[Tensor, "B C T S S"]:
        """Crop boxes (B, 4) and resize them; return float32 in [0, 1]."""
        ops.check_pixels(clips)
        resized = ops.resized_crops(ops.to_float(clips), torch.from_numpy(boxes), self.size)
        return resized.clamp_(0, 1)

    def boxes_of(
        self, clips: Shaped[Tensor, "B C T H W"], aspect: Float[Tensor, " B"], numbers: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the boxes that `crop_on_device` crops, (B, 4), in pixels of the stretched frames.

        Args:
            clips, aspect: As `crop_on_device` takes them.
            numbers: Random numbers in [0, 1) of each sample, at least `ViewConfig.num_box_draws`.
        """
        height, stretched_width = clips.shape[-2:]
        aspects = aspect.cpu().numpy().astype(np.float64)
        heights = np.full(len(aspects), height)
        widths = np.maximum(1, np.rint(heights * aspects)).astype(np.int64)
        boxes = self.config.draw_boxes(numbers[:, : self.config.num_box_draws()], heights, widths)
        return stretch_boxes(boxes, widths, stretched_width)


def _is_ascending_pair(values: Sequence[float]) -> bool:
    return len(values) == 2 and values[0] <= values[1]
