"""Contact sheet of a batch: some records with all their views and the random parameters of each view."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from eztorch_sce.data.view_samples import RecordViews, to_image
from eztorch_sce.printing import visible

_VIEW_PX, _GAP_PX, _LINE_PX, _CAPTION_GAP_PX = 192, 12, 15, 4
_FONT_SIZE = 11
_FRAME_MS = 200


def write_contact_sheet(file: Path, rows: Sequence[RecordViews]) -> Path:
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


def _render(rows: Sequence[RecordViews], time: int) -> Image.Image:
    """Render frame `time` of all views; shorter clips show their last frame."""
    font = ImageFont.load_default(size=_FONT_SIZE)
    num_lines = [max(len(view.caption) for view in row.views) for row in rows]
    heights = [_LINE_PX + _VIEW_PX + _CAPTION_GAP_PX + _LINE_PX * lines + _GAP_PX for lines in num_lines]
    width = _GAP_PX + max(len(row.views) for row in rows) * (_VIEW_PX + _GAP_PX)
    sheet = Image.new("RGB", (width, _GAP_PX + sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    top = _GAP_PX
    for row, height in zip(rows, heights, strict=True):
        pen.text((_GAP_PX, top), _shortened(_title(row), width - 2 * _GAP_PX, font), "black", font)
        for column, view in enumerate(row.views):
            left = _GAP_PX + column * (_VIEW_PX + _GAP_PX)
            frame = view.pixels[:, min(time, view.pixels.shape[1] - 1)]
            sheet.paste(to_image(frame, _VIEW_PX), (left, top + _LINE_PX))
            for number, line in enumerate(view.caption):
                pen.text((left, top + _LINE_PX + _VIEW_PX + _CAPTION_GAP_PX + _LINE_PX * number), line, "black", font)
        top += height
    return sheet


def _title(row: RecordViews) -> str:
    if row.size is None:
        return visible(row.path)
    height, width = row.size
    return f"{visible(row.path)}  ({width} x {height})"


def _shortened(title: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Cut off the start of a title to fit into `width` pixels, since the end of a path distinguishes files."""
    if font.getlength(title) <= width:
        return title
    for start in range(1, len(title)):
        shortened = f"...{title[start:]}"
        if font.getlength(shortened) <= width:
            return shortened
    return "..."
