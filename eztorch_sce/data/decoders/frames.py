"""Folders of numbered images: videos that a data set stores as extracted frames."""

import os
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import UInt8

from eztorch_sce.data.decoders.base import Spans, Timing, choose_spans, ends_early, frame_times, grace_s, shown_at
from eztorch_sce.data.decoders.image import decode_image, load_image, read_bytes
from eztorch_sce.data.frame_names import frame_sequence, image_names, split_frames_path
from eztorch_sce.errors import MediaError
from eztorch_sce.types import Clip, MediaInfo

FPS = 25.0  # assumed, since images do not record a frame rate


class FramesDecoder:
    """Decoder of a folder of images as a video, in natural order of their names: 2.jpg comes before 10.jpg.

    A path may end in a pattern, such as `clip/img_*.jpg`, that chooses one of several sequences in the folder.

    Args:
        fps: Images per second.
    """

    def __init__(self, fps: float = FPS) -> None:
        if not fps > 0:
            raise ValueError(f"fps={fps} must be greater than 0")
        self.fps = fps

    def probe(self, path: str) -> MediaInfo:
        """Return the duration (images divided by frame rate) and the size of the first image."""
        names = _image_names(path)
        [(height, width, _)] = [image.shape for image in _load(path, names, [0]).values()]
        return MediaInfo(len(names) / self.fps, self.fps, width, height, codec="frames")

    def read(self, path: str, spans: Spans, num_frames: int) -> list[Clip]:
        """Return one clip per span, loading each required image once.

        Raises:
            MediaError: If the folder has no images, a required image cannot be read, or they differ in size.
        """
        names = _image_names(path)
        rows = frames_shown(path, len(names), self.fps, spans, num_frames)
        images = _load(path, names, sorted({number for row in rows for number in row}))
        return [
            Clip(
                torch.from_numpy(np.stack([images[number] for number in row])).permute(3, 0, 1, 2),  # (3, T, H, W)
                torch.tensor([number / self.fps for number in row], dtype=torch.float64),
            )
            for row in rows
        ]

    def check(self, path: str, full: bool) -> tuple[int, list[str]]:
        """Decode the first, middle and last image, or all images with `full`.

        Returns:
            The number of images, and the remarks of `decode_image` on those that were decoded, without repeats.

        Raises:
            MediaError: If one of them cannot be read, or they differ in size.
        """
        names = _image_names(path)
        last = len(names) - 1
        folder, _ = split_frames_path(path)
        shapes, remarks = set(), dict[str, None]()
        for number in range(len(names)) if full else sorted({0, last // 2, last}):
            file = os.path.join(folder, names[number])
            pixels, _, found = decode_image(file, read_bytes(file))
            shapes.add(pixels.shape)
            remarks |= dict.fromkeys(found)
        if len(shapes) > 1:
            raise MediaError(path, "contains images of different sizes")
        return len(names), list(remarks)


def frames_shown(path: str, length: int, fps: float, spans: Spans, num_frames: int) -> list[list[int]]:
    """Return the numbers of the frames of each clip of a video whose frames are equally far apart.

    Args:
        path: The video, named in errors.
        length: Number of its frames.
        fps: Frames per second.
        spans: The spans, or a function that chooses them.
        num_frames: Frames per clip.

    Raises:
        MediaError: If a span ends after the video.
    """
    pts_s, end_s = [number / fps for number in range(length)], length / fps
    rows = []
    for span in choose_spans(spans, lambda: Timing(end_s, fps)):
        times_s = frame_times(span, num_frames)
        if times_s[-1] > end_s + grace_s(1 / fps):
            raise ends_early(path, times_s[-1], end_s, end_s)
        rows.append([shown_at(pts_s, time_s) for time_s in times_s])
    return rows


def _load(path: str, names: list[str], numbers: Iterable[int]) -> dict[int, UInt8[np.ndarray, "_ _ 3"]]:
    folder, _ = split_frames_path(path)
    images = {number: load_image(os.path.join(folder, names[number])) for number in numbers}
    if len({image.shape for image in images.values()}) > 1:
        raise MediaError(path, "contains images of different sizes")
    return images


def _image_names(path: str) -> list[str]:
    folder, pattern = split_frames_path(path)
    try:
        return frame_sequence(image_names(os.listdir(folder)), pattern)
    except OSError as error:
        raise MediaError(path, f"cannot be listed ({error.strerror})") from error
    except ValueError as error:
        cure = "; choose one with data.frames_pattern" if "several" in str(error) else ""
        raise MediaError(path, f"{error}{cure}") from error
