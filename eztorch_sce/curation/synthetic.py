"""Synthetic mp4 files of textured shapes whose class is their motion, for the demo and the tests."""

import csv
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from eztorch_sce import signals
from eztorch_sce.curation.video_writer import write_video
from eztorch_sce.progress import track
from eztorch_sce.seeding import generator_for

MOTIONS = ("left", "right", "up", "down", "clockwise", "counterclockwise", "growing", "shrinking")
_HEADINGS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # x to the right, y downward
_TURNS = {"clockwise": 1, "counterclockwise": -1}  # as seen on screen, with y downward
_GROWTH = {"growing": 1, "shrinking": -1}


@dataclass
class MovingShapes:
    """Size and number of synthetic videos.

    A video is a sequence of scenes. Each scene has its own background, shape, texture, colors, position and speed; only
    the kind of motion is the same throughout the video. Two clips of a video therefore share their motion and little
    else, and a single frame says nothing about the class.

    Attributes:
        num_train: Number of train videos, spread evenly over the eight motions.
        num_test: Number of test videos, spread in the same way.
        size: Height and width of the frames in pixels; even.
        fps: Frames per second.
        num_scenes: Scenes per video.
        scene_frames: Frames per scene.
        seed: Seed of all random choices.
    """

    num_train: int = 256
    num_test: int = 128
    size: int = 64
    fps: int = 16
    num_scenes: int = 4
    scene_frames: int = 16
    seed: int = 0


def write_moving_shapes(folder: str | Path, shapes: MovingShapes, num_processes: int = 1) -> None:
    """Write `train/<motion>/<n>.mp4` and `test/<motion>/<n>.mp4`, and the list files `train.csv` and `test.csv`."""
    folder, jobs = Path(folder), []
    for split, count in (("train", shapes.num_train), ("test", shapes.num_test)):
        rows = []
        for number in range(count):
            motion = MOTIONS[number % len(MOTIONS)]
            path = folder / split / motion / f"{number:04d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows.append((str(path.relative_to(folder)), motion))
            jobs.append((path, motion, shapes, number + (1_000_000 if split == "test" else 0)))
        with (folder / f"{split}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("path", "label"), *rows])
    with ProcessPoolExecutor(num_processes, initializer=_begin_worker) as pool:
        try:
            with signals.sheltered():  # starts the processes
                written = pool.map(_write_one, jobs, chunksize=8)
            for _ in track(written, len(jobs), "synthetic videos"):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or all videos would be written first
            raise


def _begin_worker() -> None:
    signals.ignore()
    torch.set_num_threads(1)


def _write_one(job: tuple[Path, str, MovingShapes, int]) -> None:
    path, motion, shapes, number = job
    write_video(path, draw_video(motion, shapes, number), shapes.fps)


def draw_video(motion: str, shapes: MovingShapes, number: int) -> UInt8[Tensor, "T H W 3"]:
    """Return the frames of a video; the same arguments give the same frames."""
    generator = generator_for(shapes.seed, 0, number, 0, "moving shapes")
    scenes = [_draw_scene(motion, shapes, generator) for _ in range(shapes.num_scenes)]
    return (torch.cat(scenes) * 255).round().to(torch.uint8)


def _draw_scene(motion: str, shapes: MovingShapes, generator: torch.Generator) -> Float[Tensor, "T H W 3"]:
    """Return frames in [0, 1]."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    t = torch.arange(shapes.scene_frames) / shapes.scene_frames  # (T,) in [0, 1)
    heading, turn, growth = _HEADINGS.get(motion, (0, 0)), _TURNS.get(motion, 0), _GROWTH.get(motion, 0)
    distance, speed, zoom = uniform(0.8, 1.6), uniform(0.5, 1.0) * math.pi, uniform(0.7, 1.0)
    x = uniform(-0.6, 0.6) + heading[0] * distance * (t - 0.5) * 2  # (T,); the frame is [-1, 1]
    y = uniform(-0.6, 0.6) + heading[1] * distance * (t - 0.5) * 2
    angle = uniform(0, 2 * math.pi) + turn * speed * t
    radius = uniform(0.4, 0.6) * torch.exp(growth * zoom * (t - 0.5))

    axis = (torch.arange(shapes.size) + 0.5) / shapes.size * 2 - 1
    down, across = torch.meshgrid(axis, axis, indexing="ij")  # (H, W)
    # The frame is a torus: a shape that leaves on one side enters on the other, so its position does not reveal the
    # direction.
    dx = _wrap(across - x[:, None, None])  # (T, H, W)
    dy = _wrap(down - y[:, None, None])
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    u = (cosine * dx + sine * dy) / radius[:, None, None]  # (T, H, W), coordinates of the shape
    v = (cosine * dy - sine * dx) / radius[:, None, None]
    inside = _OUTLINES[int(uniform(0, len(_OUTLINES)))](u, v)  # (T, H, W)

    texture = _texture(shapes.size, generator)
    background = _texture(shapes.size, generator)
    skin = F.grid_sample(
        texture.expand(len(t), -1, -1, -1),
        torch.stack([u, v], dim=-1) / 1.5,
        align_corners=False,
        padding_mode="border",
    )  # (T, 3, H, W): the texture moves, turns and grows with the shape
    edge = (inside * shapes.size / 4).clamp(0, 1)[:, None]  # antialiased over a pixel or two
    frames: Tensor = edge * skin + (1 - edge) * background  # (T, 3, H, W)
    return frames.movedim(1, -1)


def _texture(size: int, generator: torch.Generator) -> Float[Tensor, "3 H W"]:
    """Return blobs of two random colors."""
    coarse = torch.rand(1, 1, 8, 8, generator=generator)
    blobs = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)[0]
    blobs = ((blobs - 0.5) * 6).sigmoid()  # (1, H, W)
    first, second = torch.rand(2, 3, 1, 1, generator=generator)
    texture: Tensor = blobs * first + (1 - blobs) * second
    return texture


def _wrap(distance: Tensor) -> Tensor:
    """Return the signed distance on a circle of circumference 2, in [-1, 1)."""
    return (distance + 1).remainder(2) - 1


# Signed distances, positive inside, of shapes within the unit circle. A small rotation changes how each one looks; the
# disc changes through its texture.
_OUTLINES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda u, v: 0.9 - (u * u + v * v).sqrt(),  # disc
    lambda u, v: 0.7 - torch.maximum(u.abs(), v.abs()),  # square
    lambda u, v: torch.minimum(0.9 - u.abs(), 0.4 - v.abs()),  # bar
    lambda u, v: torch.minimum(0.6 - v, 0.5 + v * 0.5 - u.abs()),  # triangle
    lambda u, v: torch.maximum(
        torch.minimum(0.9 - u.abs(), 0.3 - v.abs()), torch.minimum(0.3 - u.abs(), 0.9 - v.abs())
    ),  # cross
)
