"""Small real mp4 files of textured shapes whose class lies in how they move: the data of the demo and of tests."""

import csv
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.curation.video_writer import write_video
from eztorch_sce.seeding import generator_for

MOTIONS = ("left", "right", "up", "down", "clockwise", "counterclockwise", "growing", "shrinking")
_HEADINGS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # x to the right, y downwards
_TURNS = {"clockwise": 1, "counterclockwise": -1}  # as seen, with y downwards
_GROWTH = {"growing": 1, "shrinking": -1}


@dataclass
class MovingShapes:
    """What to write.

    A video is a row of scenes. A scene has its own background, shape, texture, colors, place and speed; only the kind
    of motion lasts through the video. So two clips of a video share their motion and little else, and a single frame
    says nothing about the class.

    Attributes:
        num_train, num_test: Videos, spread evenly over the eight motions.
        size: Edge of the frames in pixels.
        fps: Frames per second.
        num_scenes: Scenes of a video.
        scene_frames: Frames of a scene.
        seed: Of everything drawn.
    """

    num_train: int = 256
    num_test: int = 128
    size: int = 64
    fps: int = 16
    num_scenes: int = 4
    scene_frames: int = 16
    seed: int = 0


def write_moving_shapes(folder: Path, shapes: MovingShapes, num_processes: int) -> None:
    """Write `train/<motion>/<n>.mp4` and `test/<motion>/<n>.mp4`, and the lists `train.csv` and `test.csv`."""
    jobs = []
    for part, count in (("train", shapes.num_train), ("test", shapes.num_test)):
        rows = []
        for number in range(count):
            motion = MOTIONS[number % len(MOTIONS)]
            path = folder / part / motion / f"{number:04d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows.append((str(path.relative_to(folder)), motion))
            jobs.append((path, motion, shapes, number + (part == "test") * 1_000_000))
        with (folder / f"{part}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("path", "label"), *rows])
    with ProcessPoolExecutor(num_processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in pool.map(_write_one, jobs, chunksize=8):
            pass


def _write_one(job: tuple[Path, str, MovingShapes, int]) -> None:
    path, motion, shapes, number = job
    write_video(path, draw_video(motion, shapes, number), shapes.fps)


def draw_video(motion: str, shapes: MovingShapes, number: int) -> Tensor:
    """Return uint8 frames (T, H, W, 3) of a video; the same arguments give the same frames."""
    generator = generator_for(shapes.seed, 0, number, 0, "moving shapes")
    scenes = [_draw_scene(motion, shapes, generator) for _ in range(shapes.num_scenes)]
    return (torch.cat(scenes) * 255).round().to(torch.uint8)


def _draw_scene(motion: str, shapes: MovingShapes, generator: torch.Generator) -> Tensor:
    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    t = torch.arange(shapes.scene_frames) / shapes.scene_frames  # (T,) from 0 to 1 over the scene
    heading, turn, growth = _HEADINGS.get(motion, (0, 0)), _TURNS.get(motion, 0), _GROWTH.get(motion, 0)
    distance, speed, zoom = uniform(0.8, 1.6), uniform(0.5, 1.0) * math.pi, uniform(0.7, 1.0)
    x = uniform(-0.6, 0.6) + heading[0] * distance * (t - 0.5) * 2  # (T,) in [-1, 1] across the frame
    y = uniform(-0.6, 0.6) + heading[1] * distance * (t - 0.5) * 2
    angle = uniform(0, 2 * math.pi) + turn * speed * t
    radius = uniform(0.4, 0.6) * torch.exp(growth * zoom * (t - 0.5))

    axis = (torch.arange(shapes.size) + 0.5) / shapes.size * 2 - 1
    down, across = torch.meshgrid(axis, axis, indexing="ij")  # (H, W)
    # The frame is a torus: what leaves on one side enters on the other, so that no place tells the direction.
    dx, dy = (_wrap(a - b[:, None, None]) for a, b in ((across, x), (down, y)))  # (T, H, W)
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    u, v = (cosine * dx + sine * dy) / radius[:, None, None], (cosine * dy - sine * dx) / radius[:, None, None]
    inside = _OUTLINES[int(uniform(0, len(_OUTLINES)))](u, v)  # (T, H, W)

    texture, background = (_texture(shapes.size, generator) for _ in range(2))  # (3, H, W)
    skin = F.grid_sample(
        texture.expand(len(t), -1, -1, -1),
        torch.stack([u, v], dim=-1) / 1.5,
        align_corners=False,
        padding_mode="border",
    )  # (T, 3, H, W): it moves, turns and grows with the shape
    edge = (inside * shapes.size / 4).clamp(0, 1)[:, None]  # soft over a pixel or two
    return (edge * skin + (1 - edge) * background).movedim(1, -1)


def _texture(size: int, generator: torch.Generator) -> Tensor:
    """Return blobs of two random colors (3, H, W)."""
    coarse = torch.rand(1, 1, 8, 8, generator=generator)
    blobs = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)[0]
    blobs = ((blobs - 0.5) * 6).sigmoid()  # (1, H, W)
    first, second = torch.rand(2, 3, 1, 1, generator=generator)
    return blobs * first + (1 - blobs) * second


def _wrap(distance: Tensor) -> Tensor:
    return (distance + 1).remainder(2) - 1


# Signed distances, positive inside, of shapes that fit in the unit circle; none looks the same after a small turn but
# for its texture in the case of the disc.
_OUTLINES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda u, v: 0.9 - (u * u + v * v).sqrt(),  # disc
    lambda u, v: 0.7 - torch.maximum(u.abs(), v.abs()),  # square
    lambda u, v: torch.minimum(0.9 - u.abs(), 0.4 - v.abs()),  # bar
    lambda u, v: torch.minimum(0.6 - v, 0.5 + v * 0.5 - u.abs()),  # triangle
    lambda u, v: torch.maximum(
        torch.minimum(0.9 - u.abs(), 0.3 - v.abs()), torch.minimum(0.3 - u.abs(), 0.9 - v.abs())
    ),  # cross
)
