"""Contact sheet of a batch: some records with all their views and the random parameters of each view."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from eztorch_sce.augment.crops import Box
from eztorch_sce.augment.draws import ViewParameters
from eztorch_sce.augment.view import View
from eztorch_sce.augment.views import Views
from eztorch_sce.data.dataset import TrainingClips
from eztorch_sce.data.decoders.by_kind import decoder_of
from eztorch_sce.printing import visible
from eztorch_sce.types import Batch

_VIEW_PX, _GAP_PX, _LINE_PX, _CAPTION_GAP_PX = 192, 12, 15, 4
_FONT_SIZE = 11
_FRAME_MS = 200


class CaptionedView(NamedTuple):
    """A view and its caption.

    Attributes:
        pixels: Frames in [0, 1] before normalization.
        caption: Lines of text below the view.
    """

    pixels: Float[Tensor, "3 T S S"]
    caption: Sequence[str]


class SheetRow(NamedTuple):
    """A record and its views.

    Attributes:
        title: Line of text above the views.
        views: The views from left to right.
    """

    title: str
    views: Sequence[CaptionedView]


def sheet_rows(dataset: TrainingClips, augmentation: Views, batch: Batch) -> list[SheetRow]:
    """Return one row per record of a batch, with the views that the network would receive."""
    views, parameters = augmentation(batch).views, augmentation.parameters_of(batch)
    rows = []
    for sample, (epoch, index) in enumerate(zip(batch.epoch.tolist(), batch.record.tolist(), strict=True)):
        records = dataset.manifest.records
        record = records[index]
        info = decoder_of(records, index, dataset.decoder).probe(record.path)
        # The box is drawn relative to this size; see `View.crop_on_device`.
        height = dataset.canvas or info.height
        width = max(1, round(height * batch.aspect[sample].item())) if dataset.canvas else info.width
        captioned = []
        for number, module in enumerate(augmentation.views):
            view = cast(View, module)
            box = Box(*dataset.box(epoch, index, number, height, width))
            title = f"view {number}: {view.size} px"
            if view.config.input == "difference":
                title += ", temporal difference"
            caption = [title, *describe(parameters[number][sample], box, height, width)]
            captioned.append(CaptionedView(view.denormalize(views[number][sample]), caption))
        rows.append(SheetRow(f"{visible(record.path)}  ({info.width} x {info.height})", captioned))
    return rows


def describe(parameters: ViewParameters, box: Box, height: int, width: int) -> list[str]:
    """Describe the operations on a sample in the order of application.

    Args:
        parameters: The random parameters of the sample.
        box: Its crop.
        height, width: Size of the frame that was cropped.
    """
    fraction = box.height * box.width / (height * width)
    lines = [f"crop {fraction:.0%}: {box.height} x {box.width} at {box.top}, {box.left}"]
    if parameters.temporal_difference:
        lines.append("temporal difference")
    for name in parameters.jitter:
        value = getattr(parameters, name)
        lines.append(f"hue {value:+.3f} turns" if name == "hue" else f"{name} x {value:.2f}")
    if parameters.gray:
        lines.append("gray")
    if parameters.blur_sigma:
        lines.append(f"blur, sigma {parameters.blur_sigma:.2f} px")
    if parameters.solarize:
        lines.append("solarized")
    if parameters.flip:
        lines.append("flipped")
    return lines


def write_contact_sheet(file: Path, rows: Sequence[SheetRow]) -> Path:
    """Write a contact sheet: a PNG image, or an animated WebP if the views have several frames.

    Args:
        file: Path without suffix; .png or .webp is added.
        rows: The records from top to bottom.

    Returns:
        The path with its suffix.
    """
    num_frames = max(view.pixels.shape[1] for row in rows for view in row.views)
    sheets = [_render(rows, time) for time in range(num_frames)]
    if num_frames == 1:
        target = file.with_suffix(".png")
        sheets[0].save(target)
    else:
        target = file.with_suffix(".webp")
        sheets[0].save(target, save_all=True, append_images=sheets[1:], duration=_FRAME_MS, loop=0, quality=90)
    return target


def _render(rows: Sequence[SheetRow], time: int) -> Image.Image:
    """Render frame `time` of all views; shorter clips show their last frame."""
    font = ImageFont.load_default(size=_FONT_SIZE)
    num_lines = [max(len(view.caption) for view in row.views) for row in rows]
    heights = [_LINE_PX + _VIEW_PX + _CAPTION_GAP_PX + _LINE_PX * lines + _GAP_PX for lines in num_lines]
    width = _GAP_PX + max(len(row.views) for row in rows) * (_VIEW_PX + _GAP_PX)
    sheet = Image.new("RGB", (width, _GAP_PX + sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    top = _GAP_PX
    for row, height in zip(rows, heights, strict=True):
        pen.text((_GAP_PX, top), _shortened(row.title, width - 2 * _GAP_PX, font), "black", font)
        for column, view in enumerate(row.views):
            left = _GAP_PX + column * (_VIEW_PX + _GAP_PX)
            frame = view.pixels[:, min(time, view.pixels.shape[1] - 1)]
            sheet.paste(_to_image(frame), (left, top + _LINE_PX))
            for number, line in enumerate(view.caption):
                pen.text((left, top + _LINE_PX + _VIEW_PX + _CAPTION_GAP_PX + _LINE_PX * number), line, "black", font)
        top += height
    return sheet


def _shortened(title: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Cut off the start of a title to fit into `width` pixels, since the end of a path distinguishes files."""
    if font.getlength(title) <= width:
        return title
    for start in range(1, len(title)):
        shortened = f"...{title[start:]}"
        if font.getlength(shortened) <= width:
            return shortened
    return "..."


def _to_image(frame: Float[Tensor, "3 S S"]) -> Image.Image:
    pixels = (frame.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    resampling = Image.Resampling.NEAREST if max(pixels.shape) < _VIEW_PX else Image.Resampling.BICUBIC
    return Image.fromarray(pixels).resize((_VIEW_PX, _VIEW_PX), resampling)
