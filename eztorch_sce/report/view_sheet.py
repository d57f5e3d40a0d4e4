"""What the network sees, as an image: some records with all their views, and what each view drew."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from eztorch_sce.augment.view import Box, View, ViewParameters
from eztorch_sce.data.dataset import TrainingClips
from eztorch_sce.data.decoders.by_kind import decoder_for
from eztorch_sce.training.device_views import Views
from eztorch_sce.types import Batch

_EDGE, _GAP, _LINE = 192, 12, 15  # pixels: of a view, between two, of a line of text
_FRAME_MS = 200


class ShownView(NamedTuple):
    """A view to be drawn.

    Attributes:
        pixels: (3, T, S, S) in [0, 1].
        lines: What stands under it.
    """

    pixels: Tensor
    lines: Sequence[str]


def rows_to_show(dataset: TrainingClips, views: Views, batch: Batch) -> list[tuple[str, list[ShownView]]]:
    """Return the path of each record of a batch and its views, as they are before they are normalized."""
    made, draws = views(batch), views.draws(batch)
    rows = []
    for place, (epoch, index) in enumerate(zip(batch.epoch.tolist(), batch.record.tolist(), strict=True)):
        record = dataset.manifest.records[index]
        info = decoder_for(record.kind, dataset.decoder).probe(record.path)
        # The geometry in which the crop is drawn: see `View.crop_on_device`.
        height = dataset.canvas or info.height
        width = max(1, round(height * batch.aspect[place].item())) if dataset.canvas else info.width
        shown = []
        for number, view in enumerate(views.views):
            assert isinstance(view, View)
            lines = describe(draws[number][place], dataset.box(epoch, index, number, height, width), height, width)
            pixels = view.before_normalization(made[number][place])
            what = ", difference of frames" if view.config.input == "difference" else ""
            shown.append(ShownView(pixels, [f"view {number}: {view.size} px{what}", *lines]))
        rows.append((f"{record.path}  ({info.width} x {info.height})", shown))
    return rows


def describe(drawn: ViewParameters, box: Box, height: int, width: int) -> list[str]:
    """Return what a view drew, in the order in which it is done; `box` is its crop of a frame of this size."""
    top, left, box_height, box_width = box
    lines = [f"crop {box_height * box_width / (height * width):.0%}: {box_height} x {box_width} at {top}, {left}"]
    if drawn.temporal_difference:
        lines.append("difference of frames")
    for name in drawn.jitter:
        value = getattr(drawn, name)
        lines.append(f"hue {value:+.3f} turns" if name == "hue" else f"{name} x {value:.2f}")
    if drawn.gray:
        lines.append("gray")
    if drawn.blur_sigma:
        lines.append(f"blur, sigma {drawn.blur_sigma:.2f} px")
    if drawn.solarize:
        lines.append("solarized")
    if drawn.flip:
        lines.append("flipped")
    return lines


def draw_views(file: Path, rows: Sequence[tuple[str, Sequence[ShownView]]]) -> Path:
    """Draw a row of views per record; of clips an animation.

    Args:
        file: Where to, without suffix: .png is added for images, .webp for clips.
        rows: What stands above each row, and its views.

    Returns:
        The file.
    """
    num_frames = max(view.pixels.shape[1] for _, views in rows for view in views)
    moments = [_draw(rows, time) for time in range(num_frames)]
    if num_frames == 1:
        target = file.with_suffix(".png")
        moments[0].save(target)
    else:
        target = file.with_suffix(".webp")
        moments[0].save(target, save_all=True, append_images=moments[1:], duration=_FRAME_MS, loop=0, quality=90)
    return target


def _draw(rows: Sequence[tuple[str, Sequence[ShownView]]], time: int) -> Image.Image:
    font = ImageFont.load_default(size=11)
    num_lines = [max(len(view.lines) for view in views) for _, views in rows]
    heights = [_LINE + _EDGE + 4 + _LINE * lines + _GAP for lines in num_lines]
    width = _GAP + max(len(views) for _, views in rows) * (_EDGE + _GAP)
    sheet = Image.new("RGB", (width, _GAP + sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    top = _GAP
    for (title, views), height in zip(rows, heights, strict=True):
        pen.text((_GAP, top), _fitting(title, width - 2 * _GAP, font), "black", font)
        for place, view in enumerate(views):
            left = _GAP + place * (_EDGE + _GAP)
            frame = view.pixels[:, min(time, view.pixels.shape[1] - 1)]
            sheet.paste(_image(frame), (left, top + _LINE))
            for number, line in enumerate(view.lines):
                pen.text((left, top + _LINE + _EDGE + 4 + _LINE * number), line, "black", font)
        top += height
    return sheet


def _fitting(title: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return a title, or its end where it is wider than so many pixels: the end tells files apart."""
    start = 0
    while font.getlength(shown := title if start == 0 else f"...{title[start:]}") > width and start < len(title):
        start += 1
    return shown


def _image(frame: Tensor) -> Image.Image:
    pixels = (frame.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    way = Image.Resampling.NEAREST if max(pixels.shape) < _EDGE else Image.Resampling.BICUBIC
    return Image.fromarray(pixels).resize((_EDGE, _EDGE), way)
