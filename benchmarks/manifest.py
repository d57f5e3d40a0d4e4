"""Benchmark of listing files, from the table of `data doctor` and from the folders, and of `data doctor` itself.

python benchmarks/manifest.py --json benchmarks/results/manifest.json

The listed files have one byte each, in 400 class folders; none is opened. Each method is timed in a process of its own,
after its imports, and the methods alternate. Baseline: `make_dataset`, the first step of torchvision's datasets;
compare it with our listing of the same folders without the table.

`data doctor` then scans real videos of 25 frames of 64 x 48 pixels with one process per core: the first, middle and
last frames of each, and all frames with `full=true`.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from common import arguments, finish, row

from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.doctor import diagnose
from eztorch_sce.curation.settings import DoctorConfig
from eztorch_sce.curation.video_writer import write_video
from eztorch_sce.data.sources.media_table import TABLE_NAME, MediaRow, write_table

US, BASELINE = "eztorch_sce", "torchvision"
NUM_CLASSES = 400

_OURS = """
import sys, time
from eztorch_sce.data.config import DataConfig
started, used = time.perf_counter(), time.process_time()
num_files = len(DataConfig(root=sys.argv[1]).open().train.records)
print(num_files, time.perf_counter() - started, time.process_time() - used)
"""
_TORCHVISION = """
import sys, time
from eztorch_sce.compat import declare_missing_torchvision_operators
declare_missing_torchvision_operators()
from torchvision.datasets.folder import find_classes, make_dataset
started, used = time.perf_counter(), time.process_time()
num_files = len(make_dataset(sys.argv[1], find_classes(sys.argv[1])[1], extensions=(".mp4",)))
print(num_files, time.perf_counter() - started, time.process_time() - used)
"""


def make_files(root: Path, num_files: int) -> list[MediaRow]:
    """Write the files and return the rows that `data doctor` would write if they were videos."""
    for number in range(NUM_CLASSES):
        (root / f"class_{number:03d}").mkdir(parents=True)
    names = sorted(f"class_{number % NUM_CLASSES:03d}/{number:06d}.mp4" for number in range(num_files))
    for name in names:
        (root / name).write_bytes(b"0")
    return [MediaRow(name, "video", True, [], 1, "", 10.0, 25.0, 320, 240, "h264", 250, 10) for name in names]


def listing_seconds(code: str, root: Path, num_files: int) -> tuple[float, float]:
    """Return the wall time and the CPU time in seconds of a method, run in a process of its own."""
    process = subprocess.run([sys.executable, "-c", code, str(root)], check=True, capture_output=True, text=True)
    num_listed, wall_s, cpu_s = process.stdout.split()
    assert int(num_listed) == num_files, f"{num_listed} of {num_files} files listed"
    return float(wall_s), float(cpu_s)


def make_videos(root: Path, num_videos: int) -> None:
    """Write videos of random blocks, 25 frames of 64 x 48 pixels each."""
    draw = torch.Generator().manual_seed(0)
    for number in range(num_videos):
        blocks = torch.randint(256, (25, 6, 8, 3), generator=draw, dtype=torch.uint8)
        folder = root / f"class_{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{number:06d}.mp4", blocks.repeat_interleave(8, 1).repeat_interleave(8, 2), fps=25)


def main() -> None:
    """Measure, print the table and write the results."""
    parser = arguments(str(__doc__))
    parser.add_argument("--files", type=int, default=100_000, help="number of listed files")
    parser.add_argument("--videos", type=int, default=1000, help="number of videos that data doctor scans")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    times_s: dict[str, list[tuple[float, float]]] = {"table": [], "folders": [], "baseline": []}
    with tempfile.TemporaryDirectory() as folder:
        files, videos = Path(folder, "files"), Path(folder, "videos")
        table_rows = make_files(files, options.files)
        for _ in range(options.repeats):
            (files / TABLE_NAME).unlink(missing_ok=True)
            times_s["folders"].append(listing_seconds(_OURS, files, options.files))
            times_s["baseline"].append(listing_seconds(_TORCHVISION, files, options.files))
            write_table(files, table_rows)
            times_s["table"].append(listing_seconds(_OURS, files, options.files))
        make_videos(videos, options.videos)
        scans = {"": diagnose(videos), " full=true": diagnose(videos, DoctorConfig(full=True))}
    assert all(scan.num_unusable == 0 and len(scan.rows) == options.videos for scan in scans.values())

    wall_s = {method: statistics.median(wall for wall, _ in times) for method, times in times_s.items()}
    cpu_s = {method: statistics.median(cpu for _, cpu in times) for method, times in times_s.items()}
    what = f"listing {options.files} files in {NUM_CLASSES} folders"
    rows = [
        row(f"{what}, from the table of data doctor", US, options.files / wall_s["table"], "files/s"),
        row(f"{what}, from the folders", US, options.files / wall_s["folders"], "files/s"),
        row(f"{what}, from the folders", f"{BASELINE}, make_dataset", options.files / wall_s["baseline"], "files/s"),
    ]
    for setting, scan in scans.items():
        what = f"data doctor{setting}, {options.videos} videos, {num_usable_cores()} processes"
        rows.append(row(what, US, len(scan.rows) / scan.seconds, "files/s"))
    slowest_s = max(wall for wall, _ in times_s["table"])
    notes = [
        f"{options.files} files are listed in {wall_s['table']:.2f} s from the table ({cpu_s['table']:.2f} s of CPU "
        f"time; {slowest_s:.2f} s in the slowest of {options.repeats} processes) and in {wall_s['folders']:.2f} s from "
        f"the folders ({cpu_s['folders']:.2f} s of CPU time), which were in the file system cache: a network disk is "
        "slower"
    ]
    finish(rows, ["torch", "torchvision", "pyarrow", "av", "eztorch-sce"], options.json, notes)


if __name__ == "__main__":
    main()
