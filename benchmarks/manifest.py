"""Files per second: how fast a run knows its files, from the doctor's table and from the tree; how fast the doctor is.

python benchmarks/manifest.py --json benchmarks/results/manifest.json

The tree has files of one byte in 400 class folders: nobody opens them, to know them is all. Each way is timed in a
process of its own that has its imports behind it, and the ways take turns. Peer: `make_dataset`, which torchvision's
data sets start with; the same tree without the table is ours beside it.

The doctor then scans real videos, 25 frames of 64 x 48 pixels each, with a process per core: the first, middle and last
frames of each, and all with `full=true`.
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
from eztorch_sce.data.sources.media_table import NAME, MediaRow, write_table

US, PEER = "eztorch_sce", "torchvision"
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


def make_tree(root: Path, num_files: int) -> list[MediaRow]:
    """Write the files; return the rows that the doctor would write of them, were they videos."""
    for number in range(NUM_CLASSES):
        (root / f"class_{number:03d}").mkdir(parents=True)
    names = sorted(f"class_{number % NUM_CLASSES:03d}/{number:06d}.mp4" for number in range(num_files))
    for name in names:
        (root / name).write_bytes(b"0")
    return [MediaRow(name, "video", True, [], 1, "", 10.0, 25.0, 320, 240, "h264", 250, 10) for name in names]


def seconds_to_know(code: str, root: Path, num_files: int) -> tuple[float, float]:
    """Return the seconds that a way takes in a process of its own, by the clock and of the processor."""
    done = subprocess.run([sys.executable, "-c", code, str(root)], check=True, capture_output=True, text=True)
    found, seconds, of_processor = done.stdout.split()
    assert int(found) == num_files, f"{found} of {num_files} files found"
    return float(seconds), float(of_processor)


def make_videos(root: Path, num_videos: int) -> None:
    draw = torch.Generator().manual_seed(0)
    for number in range(num_videos):
        blocks = torch.randint(256, (25, 6, 8, 3), generator=draw, dtype=torch.uint8)
        folder = root / f"class_{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{number:06d}.mp4", blocks.repeat_interleave(8, 1).repeat_interleave(8, 2), fps=25)


def main() -> None:
    """Measure, print, write."""
    parser = arguments(str(__doc__))
    parser.add_argument("--files", type=int, default=100_000, help="in the tree")
    parser.add_argument("--videos", type=int, default=1000, help="that the doctor scans")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    seconds: dict[str, list[tuple[float, float]]] = {"table": [], "tree": [], "peer": []}
    with tempfile.TemporaryDirectory() as folder:
        tree, videos = Path(folder, "tree"), Path(folder, "videos")
        rows_of_table = make_tree(tree, options.files)
        for _ in range(options.repeats):
            (tree / NAME).unlink(missing_ok=True)
            seconds["tree"].append(seconds_to_know(_OURS, tree, options.files))
            seconds["peer"].append(seconds_to_know(_TORCHVISION, tree, options.files))
            write_table(tree, rows_of_table)
            seconds["table"].append(seconds_to_know(_OURS, tree, options.files))
        make_videos(videos, options.videos)
        scans = {"": diagnose(videos), "full=true": diagnose(videos, DoctorConfig(full=True))}
    assert all(scan.num_unusable == 0 and len(scan.rows) == options.videos for scan in scans.values())

    median = {way: statistics.median(by_clock for by_clock, _ in times) for way, times in seconds.items()}
    used = {way: statistics.median(of_processor for _, of_processor in times) for way, times in seconds.items()}
    what = f"files known, of {options.files} in {NUM_CLASSES} folders"
    rows = [
        row(f"{what}, from the doctor's table", US, options.files / median["table"], "files/s"),
        row(f"{what}, from the tree", US, options.files / median["tree"], "files/s"),
        row(f"{what}, from the tree", f"{PEER}, make_dataset", options.files / median["peer"], "files/s"),
    ]
    for how, scan in scans.items():
        what = (
            f"files scanned by data doctor {how}".rstrip()
            + f", {options.videos} videos, {num_usable_cores()} processes"
        )
        rows.append(row(what, US, len(scan.rows) / scan.seconds, "files/s"))
    slowest = max(by_clock for by_clock, _ in seconds["table"])
    notes = [
        f"{options.files} files are known in {median['table']:.2f} s from the table ({used['table']:.2f} s of the "
        f"processor; the slowest of {options.repeats} processes took {slowest:.2f} s), in {median['tree']:.2f} s "
        f"({used['tree']:.2f} s) from the tree, whose folders the system had at hand: on a network disk it has not"
    ]
    finish(rows, ["torch", "torchvision", "pyarrow", "av", "eztorch-sce"], options.json, notes)


if __name__ == "__main__":
    main()
