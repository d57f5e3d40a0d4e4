"""Encodings for the copies of `data prepare`: their size, their quality, and how fast clips are read from them.

    python benchmarks/prepare.py VIDEOS --json benchmarks/results/prepare.json

Every video under VIDEOS is shrunk to a short side of 128 pixels and encoded with each alternative. Quality is the PSNR
of the copies against the shrunk frames, in dB. Each call reads two clips from random places, as pretraining does; the
places are the same for all encodings. Rates are per second of CPU time on one thread. The time of a file is the
shortest of the rounds, in which the encodings take turns.
"""

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from common import Row, cpu_name, row

from eztorch_sce.curation.video_writer import fast_to_decode, write_frames
from eztorch_sce.data.decoders.pyav.decoder import PyAVDecoder
from eztorch_sce.data.sources.folder import find_media
from eztorch_sce.types import ClipSpan

SHORT_SIDE, CRF = 128, 18
Clips = tuple[float, int]  # seconds and frames
CLIPS: tuple[Clips, ...] = ((0.5, 8), (1.28, 8), (2.56, 8), (5.0, 8), (2.56, 32), (5.0, 32))
NUM_PLACES = 2  # pairs of clips per file
BASELINE, CHOSEN = "gop 16, no B-frames, preset veryfast", "chosen: gop 16, 7 B-frames"
WITHOUT_B_FRAMES = {"crf": str(CRF), "preset": "veryfast", "tune": "fastdecode", "g": "16", "bf": "0"}


def encodings() -> dict[str, dict[str, str]]:
    """Return the options of libx264 of each alternative, by name."""
    chosen = fast_to_decode(16, CRF)
    parameters = chosen["x264-params"]
    named = {BASELINE: WITHOUT_B_FRAMES, CHOSEN: chosen}
    for gop in (8, 16, 24, 32):
        for b_frames in (0, 3, 7, 15):
            if b_frames < gop and (gop, b_frames) != (16, 7):
                named[f"gop {gop}, {b_frames} B-frames"] = fast_to_decode(gop, CRF, b_frames)
    changes: dict[str, dict[str, str]] = {
        "CABAC": {"x264-params": f"{parameters}:cabac=1"},
        "deblocking": {"x264-params": f"{parameters}:no-deblock=0"},
        "weighted prediction": {"x264-params": f"{parameters}:weightp=1"},
        "3 reference frames": {"x264-params": parameters.replace("ref=1", "ref=3")},
        "pyramid of B-frames": {"x264-params": parameters.replace("b-pyramid=none", "b-pyramid=normal")},
        "adaptive quantization": {
            "crf": "17.75",
            "x264-params": parameters.replace("aq-strength=0.25", "aq-strength=1"),
        },
        "scene cuts": {"x264-params": parameters.replace("scenecut=0", "scenecut=40")},
        "B-frames placed by x264": {"x264-params": parameters.replace("b-adapt=0", "b-adapt=1")},
        "4 slices": {"x264-params": f"{parameters}:slices=4"},
        "preset veryfast": {"preset": "veryfast"},
        "preset slow": {"preset": "slow"},
    }
    named |= {f"chosen, {change}": chosen | options for change, options in changes.items()}
    return named | {f"chosen, crf {crf}": fast_to_decode(16, crf) for crf in (16, 17, 19, 20)}


def encode(video: str, folder: Path, named: dict[str, dict[str, str]]) -> dict[str, tuple[str, int, float]]:
    """Encode a video with each alternative; return the path, the size in bytes and the PSNR of each copy."""
    decoder = PyAVDecoder()
    frames = list(decoder.frames(video, SHORT_SIDE))
    fps, copies = decoder.probe(video).fps, {}
    for number, (name, options) in enumerate(named.items()):
        path = folder / f"{Path(video).stem}-{number}.mp4"
        write_frames(path, ((time_s, np.ascontiguousarray(pixels)) for time_s, pixels in frames), fps, options)
        quality = [
            psnr(pixels, shown)
            for (_, pixels), (_, shown) in zip(frames, decoder.frames(str(path), SHORT_SIDE), strict=True)
        ]
        copies[name] = str(path), path.stat().st_size, float(np.mean(quality))
    return copies


def psnr(image: np.ndarray, shown: np.ndarray) -> float:
    error = np.square(image.astype(np.float32) - shown).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def clips_per_s(copies: list[dict[str, tuple[str, int, float]]], rounds: int) -> dict[tuple[str, Clips], float]:
    """Return the clips read per second of CPU time, by encoding and kind of clips."""
    decoder = PyAVDecoder()
    shortest: dict[tuple[str, Clips], list[float]] = {}
    places = [(number, place) for number in range(len(copies)) for place in range(NUM_PLACES)]
    for number in range(rounds):
        for file, place in places:
            for clips in CLIPS:
                spans = draw_spans(copies[file], f"{file}.{place}", clips[0])
                for name, (path, _, _) in copies[file].items():
                    started = time.process_time()
                    decoder.read(path, spans, clips[1])
                    seconds = time.process_time() - started
                    times = shortest.setdefault((name, clips), [float("inf")] * len(places))
                    index = places.index((file, place))
                    times[index] = min(times[index], seconds)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return {key: 2 * len(times) / sum(times) for key, times in shortest.items()}


def draw_spans(copies: dict[str, tuple[str, int, float]], seed: str, clip_s: float) -> list[ClipSpan]:
    path = next(iter(copies.values()))[0]
    duration_s, draw = PyAVDecoder().probe(path).duration_s, random.Random(seed)
    clip_s = min(clip_s, duration_s)
    starts_s = [draw.uniform(0, duration_s - clip_s) for _ in range(2)]
    return [ClipSpan(start_s, start_s + clip_s) for start_s in starts_s]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    videos = [path for path, kind in find_media(options.videos, "VIDEOS") if kind == "video"]
    named = encodings()
    with tempfile.TemporaryDirectory() as folder:
        copies = [encode(video, Path(folder), named) for video in videos]
        rates = clips_per_s(copies, options.rounds)
    rows = table(named, copies, rates)
    if options.json:
        write_json(options.json, rows, videos, options.rounds)


def table(
    named: dict[str, dict[str, str]],
    copies: list[dict[str, tuple[str, int, float]]],
    rates: dict[tuple[str, Clips], float],
) -> list[Row]:
    """Print a line per encoding, and return its cells."""
    columns = " ".join(f"{f'{clip_s:g}s x{num_frames}':>9}" for clip_s, num_frames in CLIPS)
    print(f"{'encoding':<36} {'MB':>6} {'PSNR':>6} {columns}  (clips/s of CPU time)")
    rows: list[Row] = []
    for name in named:
        megabytes = sum(by_name[name][1] for by_name in copies) / 1e6
        quality = float(np.mean([by_name[name][2] for by_name in copies]))
        by_clip = {clip: rates[name, clip] for clip in CLIPS}
        print(f"{name:<36} {megabytes:6.2f} {quality:6.2f} {' '.join(f'{rate:9.0f}' for rate in by_clip.values())}")
        rows += [row("size", name, round(megabytes, 3), "MB"), row("quality", name, round(quality, 2), "dB")]
        rows += [
            row(f"clips of {clip_s:g} s, {num_frames} frames", name, round(rate, 1), "clips/s of CPU time")
            for (clip_s, num_frames), rate in by_clip.items()
        ]
    return rows


def write_json(file: Path, rows: list[Row], videos: list[str], rounds: int) -> None:
    packages = ("eztorch-sce", "av", "numpy", "torch")
    facts = {"python": platform.python_version(), "cpu": cpu_name(), "rounds": str(rounds)}
    facts |= {name: version(name) for name in packages}
    facts["files"] = ", ".join(Path(video).name for video in videos)
    file.write_text(json.dumps({"versions": facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
