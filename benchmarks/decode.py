"""Clips per second from video files, ours beside others', on one core in one run.

    python benchmarks/decode.py DATA --json benchmarks/results/decode.json

DATA is the folder with `kinetics/` and `assorted/` (see FILES). Every reader returns the same thing: two clips of 8 RGB
frames of full size, spread over 2.56 s, uint8, from one file; the starts are drawn once and are the same for all.
Peers are used as their documentation shows, with one decoding thread, and are given both clips at once where they can
take them. The order of the readers changes from file to file and round to round; a reader's time of a file is the
median over the rounds; a rate is clips over the sum of those times.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

CORE = sorted(os.sched_getaffinity(0))[-1]
os.sched_setaffinity(0, {CORE})
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402  (before decord)
from common import cpu_name  # noqa: E402

from eztorch_sce.compat import declare_missing_torchvision_operators  # noqa: E402
from eztorch_sce.curation.prepare import prepare  # noqa: E402
from eztorch_sce.curation.settings import PrepareConfig  # noqa: E402
from eztorch_sce.data.decoders.base import frame_times  # noqa: E402
from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig  # noqa: E402
from eztorch_sce.types import ClipSpan  # noqa: E402

FILES = (
    "kinetics/videos/*/*.mp4",
    "assorted/real/mmaction2__test.mp4",  # Kinetics, 340x256
    "assorted/real/mmskeleton__skateboarding.mp4",  # Kinetics, 340x256
    "assorted/real/paddlevideo__example.avi",  # UCF101, 320x240, xvid
)
CLIP_S, NUM_FRAMES, NUM_CLIPS = 2.56, 8, 2
Reader = Callable[[str, list[ClipSpan]], Any]

UNTOUCHED = "clips of untouched videos"
LIMIT = "clips of untouched videos, decoded and not converted"
PREPARED = "clips of the same videos after data prepare"
PREPARED_LIMIT = "clips of the same videos after data prepare, decoded and not converted"


def ours(path: str, spans: list[ClipSpan]) -> Any:
    return PyAVConfig().build().read(path, spans, NUM_FRAMES)


def pyav_seeking(path: str, spans: list[ClipSpan]) -> Any:
    """Seek to each clip, decode to its end, convert the wanted frames."""
    import av

    clips = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for span in spans:
            wanted = iter(frame_times(span, NUM_FRAMES))
            due = next(wanted)
            container.seek(int(span.start_s / stream.time_base), stream=stream)
            frames: list[Any] = []
            for frame in container.decode(stream):
                while due is not None and frame.time + 1 / float(stream.average_rate) > due:
                    frames.append(frame.to_ndarray(format="rgb24"))
                    due = next(wanted, None)
                if due is None:
                    break
            clips.append(np.stack(frames))
    return clips


def with_decord(path: str, spans: list[ClipSpan]) -> Any:
    import decord

    reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    fps, last = reader.get_avg_fps(), len(reader) - 1
    return reader.get_batch(
        [min(int(t * fps), last) for span in spans for t in frame_times(span, NUM_FRAMES)]
    ).asnumpy()


def with_torchcodec(seek_mode: str) -> Reader:
    def read(path: str, spans: list[ClipSpan]) -> Any:
        from torchcodec.decoders import VideoDecoder

        reader = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode=seek_mode)
        begin_s = reader.metadata.begin_stream_seconds
        return reader.get_frames_played_at([begin_s + t for span in spans for t in frame_times(span, NUM_FRAMES)]).data

    return read


def with_pytorchvideo(path: str, spans: list[ClipSpan]) -> Any:
    from pytorchvideo.data.encoded_video import EncodedVideo

    video = EncodedVideo.from_path(path, decode_audio=False)
    clips = []
    for span in spans:
        frames = video.get_clip(span.start_s, span.end_s)["video"]  # (C, all of them, H, W), float
        clips.append(frames[:, torch.linspace(0, frames.shape[1] - 1, NUM_FRAMES).long()].to(torch.uint8))
    video.close()
    return clips


def bare(path: str, spans: list[ClipSpan]) -> Any:
    """Decode each stretch once from its key frame on, and convert nothing: no reader of every frame can be faster."""
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        reached_s = 0.0
        for span in sorted(spans):
            if span.start_s > reached_s:
                container.seek(int(span.start_s / stream.time_base), stream=stream)
            end_s = span.end_s - (span.end_s - span.start_s) / NUM_FRAMES / 2  # the last wanted time
            if end_s > reached_s:
                for frame in container.decode(stream):
                    if frame.time >= end_s:
                        break
                reached_s = end_s
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    declare_missing_torchvision_operators()
    warnings.simplefilter("ignore")
    data = options.data.resolve()  # copies are made through links, which a relative path would lead astray
    paths = [str(path) for pattern in FILES for path in sorted(data.glob(pattern))]
    assert paths, f"no video below {options.data}"
    readers: dict[tuple[str, str], Reader] = {
        (UNTOUCHED, "eztorch_sce"): ours,
        (UNTOUCHED, "av"): pyav_seeking,
        (UNTOUCHED, "decord"): with_decord,
        (UNTOUCHED, "torchcodec"): with_torchcodec("exact"),
        (UNTOUCHED + ", seek_mode=approximate", "torchcodec"): with_torchcodec("approximate"),
        (UNTOUCHED, "pytorchvideo"): with_pytorchvideo,
        (LIMIT, "av"): bare,
    }
    missing = check(readers, paths)
    with tempfile.TemporaryDirectory() as folder:
        copies = make_copies(paths, Path(folder))
        jobs = {key: (reader, paths) for key, reader in readers.items() if key not in missing}
        jobs |= {
            (PREPARED, who): (reader, copies)
            for (what, who), reader in readers.items()
            if what == UNTOUCHED and (what, who) not in missing
        }
        jobs[PREPARED_LIMIT, "av"] = (bare, copies)
        rates = measure(jobs, options.rounds)
    report(rates, missing, paths, options)


def check(readers: dict[tuple[str, str], Reader], paths: list[str]) -> dict[tuple[str, str], str]:
    """Read one clip with each reader; return why those that cannot cannot."""
    missing = {}
    for key, reader in readers.items():
        try:
            for path in paths:
                reader(path, [ClipSpan(0.5, 0.6)])
        except Exception as error:  # whatever a peer raises is the answer
            missing[key] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return missing


def make_copies(paths: list[str], folder: Path) -> list[str]:
    source = folder / "source"
    source.mkdir()
    for number, path in enumerate(paths):
        (source / f"{number:02d}{Path(path).suffix}").symlink_to(path)
    made = prepare(source, folder / "copies", PrepareConfig(workers=1))
    assert not made.failed, made.failed
    return sorted(map(str, (folder / "copies").glob("*.mp4")))


def measure(jobs: dict[tuple[str, str], tuple[Reader, list[str]]], rounds: int) -> dict[tuple[str, str], float]:
    draw = random.Random(0)
    lasts_s = [PyAVConfig().build().probe(path).duration_s for path in next(iter(jobs.values()))[1]]
    seconds: dict[tuple[str, str], list[list[float]]] = {key: [[] for _ in lasts_s] for key in jobs}
    for number in range(rounds):
        for place, duration_s in enumerate(lasts_s):
            starts = random.Random(place).choices(
                [i / 100 for i in range(int((duration_s - CLIP_S) * 100))], k=NUM_CLIPS
            )
            spans = [ClipSpan(start, start + CLIP_S) for start in starts]
            for key in draw.sample(list(jobs), len(jobs)):
                reader, paths = jobs[key]
                started = time.perf_counter()
                reader(paths[place], spans)
                seconds[key][place].append(time.perf_counter() - started)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return {
        key: NUM_CLIPS * len(lasts_s) / sum(statistics.median(times) for times in of_files)
        for key, of_files in seconds.items()
    }


def report(
    rates: dict[tuple[str, str], float], missing: dict[tuple[str, str], str], paths: list[str], options: Any
) -> None:
    mine, limit = rates[UNTOUCHED, "eztorch_sce"], rates[LIMIT, "av"]
    rows = [
        {"what": what, "who": who, "value": round(rate, 2), "unit": "clips/s"} for (what, who), rate in rates.items()
    ]
    peers: dict[str, float] = {}
    for (what, who), rate in rates.items():
        if what.split(", seek_mode")[0] == UNTOUCHED and who != "eztorch_sce":
            peers[who] = max(rate, peers.get(who, 0.0))  # of two ways to use a peer the better one
    ratios = {f"{UNTOUCHED}: ours over {who}": mine / rate for who, rate in peers.items()}
    ratios[f"{UNTOUCHED}: ours over the bare decoder that skips no frame"] = mine / limit
    if "pytorchvideo" in peers:
        ratios["prepared, ours, over untouched, pytorchvideo"] = rates[PREPARED, "eztorch_sce"] / peers["pytorchvideo"]
    rows += [
        {"what": what, "who": "eztorch_sce", "value": round(ratio, 3), "unit": "x"} for what, ratio in ratios.items()
    ]
    for row in rows:
        print(f"{row['value']:9.2f} {row['unit']:8} {row['who']:13} {row['what']}")
    for (what, who), why in missing.items():
        print(f"not measured: {who}, {what}: {why}")
    if options.json:
        packages = ("eztorch-sce", "av", "decord", "torchcodec", "pytorchvideo", "torch", "numpy")
        found = {
            "python": platform.python_version(),
            "cpu": cpu_name(),
            "cores used": "1",
            "rounds": str(options.rounds),
        }
        found |= {name: version(name) for name in packages if not any(who == name for _, who in missing)}
        found |= {f"not measured: {who}, {what}": why for (what, who), why in missing.items()}
        found["files"] = ", ".join(Path(path).name for path in paths)
        options.json.write_text(json.dumps({"versions": found, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
