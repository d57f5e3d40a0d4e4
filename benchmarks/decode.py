"""Clips per second read from video files, compared with other libraries on one core in the same run.

    python benchmarks/decode.py DATA --json benchmarks/results/decode.json

DATA is the folder with `kinetics/` and `assorted/` (see FILES). Every reader returns the same data from a file: two
clips of 8 uint8 RGB frames at full size, spread over 2.56 s. The start times are drawn once and shared by all readers.
Baselines are used as documented, with one decoding thread, and read both clips in one call if they support it. The
order of the readers changes with every file and round. The time of a reader on a file is the median over the rounds,
and its rate is the number of clips over the sum of these times.
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

CORE = sorted(os.sched_getaffinity(0))[-1]
os.sched_setaffinity(0, {CORE})
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402  (before decord)
from common import cpu_name  # noqa: E402
from prepare import SHORT_SIDE, WITHOUT_B_FRAMES  # noqa: E402

from eztorch_sce.compat import declare_missing_torchvision_operators  # noqa: E402
from eztorch_sce.curation.prepare import prepare  # noqa: E402
from eztorch_sce.curation.settings import PrepareConfig  # noqa: E402
from eztorch_sce.curation.video_writer import write_frames  # noqa: E402
from eztorch_sce.data.decoders.base import frame_times  # noqa: E402
from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig, PyAVDecoder  # noqa: E402
from eztorch_sce.types import ClipSpan  # noqa: E402

FILES = (
    "kinetics/videos/*/*.mp4",
    "assorted/real/mmaction2__test.mp4",  # Kinetics, 340x256
    "assorted/real/mmskeleton__skateboarding.mp4",  # Kinetics, 340x256
    "assorted/real/paddlevideo__example.avi",  # UCF101, 320x240, xvid
)
CLIP_S, NUM_FRAMES, NUM_CLIPS = 2.56, 8, 2
Reader = Callable[[str, list[ClipSpan]], object]
Key = tuple[str, str]  # the task and the library

UNTOUCHED = "clips of untouched videos"
APPROXIMATE = "clips of untouched videos, seek_mode=approximate"
LIMIT = "clips of untouched videos, decoded and not converted"
PREPARED = "clips of the same videos after data prepare"
WITHOUT_B = "clips of the same videos in copies without B-frames"
PREPARED_LIMIT = "clips of the same videos after data prepare, decoded and not converted"


def with_eztorch_sce(path: str, spans: list[ClipSpan]) -> object:
    return PyAVConfig().build().read(path, spans, NUM_FRAMES)


def with_av(path: str, spans: list[ClipSpan]) -> object:
    """Seek to each clip, decode to its end, and convert the requested frames."""
    import av

    clips = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        assert stream.average_rate is not None
        interval_s = 1 / float(stream.average_rate)
        for span in spans:
            times_s = frame_times(span, NUM_FRAMES)
            container.seek(int(span.start_s / stream.time_base), stream=stream)
            frames: list[np.ndarray] = []
            for frame in container.decode(stream):
                assert frame.time is not None
                while len(frames) < NUM_FRAMES and frame.time + interval_s > times_s[len(frames)]:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == NUM_FRAMES:
                    break
            clips.append(np.stack(frames))
    return clips


def with_decord(path: str, spans: list[ClipSpan]) -> object:
    import decord

    reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    fps, last = reader.get_avg_fps(), len(reader) - 1
    numbers = [min(int(time_s * fps), last) for span in spans for time_s in frame_times(span, NUM_FRAMES)]
    return reader.get_batch(numbers).asnumpy()


def with_torchcodec(seek_mode: str) -> Reader:
    def read(path: str, spans: list[ClipSpan]) -> object:
        from torchcodec.decoders import VideoDecoder

        reader = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode=seek_mode)
        begin_s = reader.metadata.begin_stream_seconds
        times_s = [begin_s + time_s for span in spans for time_s in frame_times(span, NUM_FRAMES)]
        return reader.get_frames_played_at(times_s).data

    return read


def with_pytorchvideo(path: str, spans: list[ClipSpan]) -> object:
    from pytorchvideo.data.encoded_video import EncodedVideo

    video = EncodedVideo.from_path(path, decode_audio=False)
    clips = []
    for span in spans:
        frames = video.get_clip(span.start_s, span.end_s)["video"]  # (C, T, H, W) with every frame, float
        clips.append(frames[:, torch.linspace(0, frames.shape[1] - 1, NUM_FRAMES).long()].to(torch.uint8))
    video.close()
    return clips


def decode_only(path: str, spans: list[ClipSpan]) -> object:
    """Decode each span once from its key frame on, and convert nothing: the limit of readers that skip no frame."""
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        reached_s = 0.0
        for span in sorted(spans):
            if span.start_s > reached_s:
                container.seek(int(span.start_s / stream.time_base), stream=stream)
            end_s = span.end_s - (span.end_s - span.start_s) / NUM_FRAMES / 2  # the last requested time
            if end_s > reached_s:
                for frame in container.decode(stream):
                    if frame.time is not None and frame.time >= end_s:
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
    data = options.data.resolve()  # symbolic links to a relative path would be broken
    paths = [str(path) for pattern in FILES for path in sorted(data.glob(pattern))]
    assert paths, f"no video under {options.data}"
    readers: dict[Key, Reader] = {
        (UNTOUCHED, "eztorch_sce"): with_eztorch_sce,
        (UNTOUCHED, "av"): with_av,
        (UNTOUCHED, "decord"): with_decord,
        (UNTOUCHED, "torchcodec"): with_torchcodec("exact"),
        (APPROXIMATE, "torchcodec"): with_torchcodec("approximate"),
        (UNTOUCHED, "pytorchvideo"): with_pytorchvideo,
        (LIMIT, "av"): decode_only,
    }
    failures = try_readers(readers, paths)
    with tempfile.TemporaryDirectory() as folder:
        copies = make_copies(paths, Path(folder))
        jobs = {key: (reader, paths) for key, reader in readers.items() if key not in failures}
        for what, who in list(jobs):
            if what == UNTOUCHED:
                jobs[PREPARED, who] = (readers[what, who], copies)
        jobs[PREPARED_LIMIT, "av"] = (decode_only, copies)
        jobs[WITHOUT_B, "eztorch_sce"] = (with_eztorch_sce, copies_without_b_frames(paths, Path(folder) / "without"))
        rates = measure(jobs, options.rounds)
    ratios = compare(rates)
    show(rates, ratios, failures)
    if options.json:
        write_json(options.json, rates, ratios, versions(failures, paths, options.rounds))


def try_readers(readers: dict[Key, Reader], paths: list[str]) -> dict[Key, str]:
    """Read a short clip of every video with each reader; return the errors of those that fail."""
    failures = {}
    for key, reader in readers.items():
        try:
            for path in paths:
                reader(path, [ClipSpan(0.5, 0.6)])
        except Exception as error:  # a baseline may raise any error; it is reported as the result
            failures[key] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return failures


def make_copies(paths: list[str], folder: Path) -> list[str]:
    """Return copies of the videos made by `data prepare`."""
    source = folder / "source"
    source.mkdir()
    for number, path in enumerate(paths):
        (source / f"{number:02d}{Path(path).suffix}").symlink_to(path)
    result = prepare(source, folder / "copies", PrepareConfig(workers=1))
    assert not result.failed, result.failed
    return sorted(map(str, (folder / "copies").glob("*.mp4")))


def copies_without_b_frames(paths: list[str], folder: Path) -> list[str]:
    """Return copies in which every frame is needed to decode the frames after it, up to the next key frame."""
    folder.mkdir()
    copies = []
    for number, path in enumerate(paths):
        frames = ((time_s, np.ascontiguousarray(pixels)) for time_s, pixels in PyAVDecoder().frames(path, SHORT_SIDE))
        copies.append(str(folder / f"{number:02d}.mp4"))
        write_frames(Path(copies[-1]), frames, PyAVDecoder().probe(path).fps, WITHOUT_B_FRAMES)
    return copies


def measure(jobs: dict[Key, tuple[Reader, list[str]]], rounds: int) -> dict[Key, float]:
    """Return the clips per second of each reader over its files."""
    draw = random.Random(0)
    durations_s = [PyAVConfig().build().probe(path).duration_s for path in next(iter(jobs.values()))[1]]
    seconds: dict[Key, list[list[float]]] = {key: [[] for _ in durations_s] for key in jobs}
    for number in range(rounds):
        for file, duration_s in enumerate(durations_s):
            starts_s = [start / 100 for start in range(int((duration_s - CLIP_S) * 100))]
            chosen_s = random.Random(file).choices(starts_s, k=NUM_CLIPS)
            spans = [ClipSpan(start_s, start_s + CLIP_S) for start_s in chosen_s]
            for key in draw.sample(list(jobs), len(jobs)):
                reader, paths = jobs[key]
                started = time.perf_counter()
                reader(paths[file], spans)
                seconds[key][file].append(time.perf_counter() - started)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return {
        key: NUM_CLIPS * len(durations_s) / sum(statistics.median(times) for times in times_by_file)
        for key, times_by_file in seconds.items()
    }


def compare(rates: dict[Key, float]) -> dict[str, float]:
    """Return the speed of eztorch_sce over the best rate of each baseline."""
    ours = rates[UNTOUCHED, "eztorch_sce"]
    baselines: dict[str, float] = {}
    for (what, who), rate in rates.items():
        if what in (UNTOUCHED, APPROXIMATE) and who != "eztorch_sce":
            baselines[who] = max(rate, baselines.get(who, 0.0))
    ratios = {f"{UNTOUCHED}: ours over {who}": ours / rate for who, rate in baselines.items()}
    ratios[f"{UNTOUCHED}: ours over the bare decoder that skips no frame"] = ours / rates[LIMIT, "av"]
    prepared = rates[PREPARED, "eztorch_sce"]
    for (what, who), rate in rates.items():
        if what == PREPARED and who != "eztorch_sce":
            ratios[f"{PREPARED}: ours over {who}"] = prepared / rate
    ratios[f"{PREPARED}: ours over copies without B-frames"] = prepared / rates[WITHOUT_B, "eztorch_sce"]
    if "pytorchvideo" in baselines:
        ratios["prepared, ours, over untouched, pytorchvideo"] = prepared / baselines["pytorchvideo"]
    return ratios


def show(rates: dict[Key, float], ratios: dict[str, float], failures: dict[Key, str]) -> None:
    for (what, who), rate in rates.items():
        print(f"{rate:9.2f} {'clips/s':8} {who:13} {what}")
    for what, ratio in ratios.items():
        print(f"{ratio:9.2f} {'x':8} {'eztorch_sce':13} {what}")
    for (what, who), reason in failures.items():
        print(f"not measured: {who}, {what}: {reason}")


def versions(failures: dict[Key, str], paths: list[str], rounds: int) -> dict[str, str]:
    """Return the versions and conditions on which the numbers depend."""
    packages = ("eztorch-sce", "av", "decord", "torchcodec", "pytorchvideo", "torch", "numpy")
    failed = {who for _, who in failures}
    facts = {"python": platform.python_version(), "cpu": cpu_name(), "cores used": "1", "rounds": str(rounds)}
    facts |= {name: version(name) for name in packages if name not in failed}
    facts |= {f"not measured: {who}, {what}": reason for (what, who), reason in failures.items()}
    facts["files"] = ", ".join(Path(path).name for path in paths)
    return facts


def write_json(file: Path, rates: dict[Key, float], ratios: dict[str, float], facts: dict[str, str]) -> None:
    rows: list[dict[str, str | float]] = [
        {"what": what, "who": who, "value": round(rate, 2), "unit": "clips/s"} for (what, who), rate in rates.items()
    ]
    rows += [
        {"what": what, "who": "eztorch_sce", "value": round(ratio, 3), "unit": "x"} for what, ratio in ratios.items()
    ]
    file.write_text(json.dumps({"versions": facts, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
