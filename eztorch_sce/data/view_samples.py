"""Views of some records with their random parameters: what a network sees, for people to look at."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eztorch_sce.augment.crops import Box
from eztorch_sce.augment.draws import ViewParameters
from eztorch_sce.augment.view import View
from eztorch_sce.augment.views import Views
from eztorch_sce.data.dataset import TrainingClips
from eztorch_sce.data.decoders.by_kind import decoder_of
from eztorch_sce.errors import MediaError
from eztorch_sce.files import replacing, write_text
from eztorch_sce.types import ViewBatch

VIEWS_FILE, TILES_FILE = "views.json", "views_tiles.webp"
_TILE_PX, _MAX_FRAMES, _MAX_ROWS = 112, 8, 32
_FRAME_MS = (80, 400)  # range of the time that a frame is shown, in milliseconds


class ViewSample(NamedTuple):
    """A view of a record.

    Attributes:
        pixels: Frames in [0, 1] before normalization, on the CPU.
        caption: The size of the view, then its random parameters in the order of application.
    """

    pixels: Float[Tensor, "3 T S S"]
    caption: list[str]


class RecordViews(NamedTuple):
    """A record and its views.

    Attributes:
        path: Path of the record.
        size: Height and width of its frames in pixels; None if they are not known.
        views: The views in order.
    """

    path: str
    size: tuple[int, int] | None
    views: list[ViewSample]


def num_records_shown(num_views: int) -> int:
    """Return how many records a run keeps the views of."""
    return max(1, min(6, _MAX_ROWS // num_views))


def record_views(
    dataset: TrainingClips, augmentation: Views, batch: ViewBatch, epochs: Int64[Tensor, " B"], count: int | None = None
) -> list[RecordViews]:
    """Return the views of the first records of a batch, all of them if `count` is None, and how they came about.

    The crops of records of a Python object are left out, since only reading the record would tell the frames' size.

    Args:
        dataset: The dataset that the batch comes from.
        augmentation: What made the views.
        batch: The views.
        epochs: Epoch that each record was drawn for.
        count: Number of records.
    """
    views = [cast(View, module) for module in augmentation.views]
    parameters = augmentation.parameters_of(epochs[:count], batch.record[:count])
    on_host = [pixels[:count].float().cpu() for pixels in batch.views]
    shown = []
    for sample, (epoch, index) in enumerate(zip(epochs[:count].tolist(), batch.record[:count].tolist(), strict=True)):
        size = _frame_size(dataset, index)
        samples = []
        for number, view in enumerate(views):
            caption = [f"view {number}: {view.size} px" + _input_of(view), *_crop(dataset, epoch, index, number, size)]
            caption += describe(parameters[number][sample])
            samples.append(ViewSample(view.denormalize(on_host[number][sample]), caption))
        shown.append(RecordViews(dataset.manifest.records[index].path, size, samples))
    return shown


def _frame_size(dataset: TrainingClips, index: int) -> tuple[int, int] | None:
    records = dataset.manifest.records
    if records.place_in_source(index) is not None:
        return None
    try:
        info = decoder_of(records, index, dataset.decoder).probe(records[index].path)
    except (MediaError, OSError):  # it has been read, and is gone by now
        return None
    return info.height, info.width


def _input_of(view: View) -> str:
    return ", temporal difference" if view.config.input == "difference" else ""


def _crop(dataset: TrainingClips, epoch: int, index: int, view: int, size: tuple[int, int] | None) -> list[str]:
    """Return the crop of a view in words."""
    if size is None:
        return []
    height, width = size
    if dataset.canvas:  # the box is drawn relative to this size; see `View.crop_on_device`
        height, width = dataset.canvas, max(1, round(dataset.canvas * float(np.float32(width / height))))
    box = Box(*dataset.box(epoch, index, view, height, width))
    fraction = box.height * box.width / (height * width)
    return [f"crop {fraction:.0%}: {box.height} x {box.width} at {box.top}, {box.left}"]


def describe(parameters: ViewParameters) -> list[str]:
    """Describe the operations on a sample in the order of application."""
    lines = ["temporal difference"] if parameters.temporal_difference else []
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


def write_views(run_dir: Path, records: Sequence[RecordViews], clip_s: float | None) -> None:
    """Write views to `views_tiles.webp`, a row of frames for each, and what they are to `views.json`.

    Args:
        run_dir: Run directory.
        records: The records, each with equally many views; of more than fit, the first.
        clip_s: Duration of a clip in seconds; None if it differs between records.
    """
    records = records[: max(1, _MAX_ROWS // len(records[0].views))]
    views = [view for record in records for view in record.views]
    num_frames = min(_MAX_FRAMES, max(view.pixels.shape[1] for view in views))
    tiles = np.concatenate([_row(view, num_frames) for view in views])
    with replacing(run_dir / TILES_FILE) as partial:
        Image.fromarray(tiles).save(partial, "webp", quality=80, method=2)
    frame_ms = 160.0 if clip_s is None else min(max(1000 * clip_s / num_frames, _FRAME_MS[0]), _FRAME_MS[1])
    content = {
        "tile_px": _TILE_PX,
        "frames": num_frames,
        "frame_ms": round(frame_ms),
        "records": [
            {"path": record.path, "size": record.size, "views": [view.caption for view in record.views]}
            for record in records
        ],
    }
    write_text(run_dir / VIEWS_FILE, json.dumps(content, indent=1) + "\n")


def _row(view: ViewSample, num_frames: int) -> UInt8[NDArray[np.uint8], "H W 3"]:
    """Return frames of a view beside each other, evenly spaced in time."""
    times = torch.linspace(0, view.pixels.shape[1] - 1, num_frames).round().long()
    return np.concatenate([to_image(view.pixels[:, time], _TILE_PX) for time in times.tolist()], axis=1)


def to_image(frame: Float[Tensor, "3 S S"], side: int) -> Image.Image:
    """Return a frame in [0, 1] as an image of `side` pixels."""
    pixels = (frame.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    resampling = Image.Resampling.NEAREST if max(pixels.shape) < side else Image.Resampling.BICUBIC
    return Image.fromarray(pixels).resize((side, side), resampling)
