"""Benchmark of listing files, from the table of `data doctor` and from the folders, and of the commands on files.

git worktree add ../before COMMIT
python benchmarks/manifest.py --baseline ../before --json benchmarks/results/manifest.json

The listed files have one byte each, in 400 class folders; none is opened. Each method is timed in a process of its own,
after its imports, and the methods alternate; making a first array imports pandas where it is installed. Baseline:
`make_dataset`, the first step of torchvision's datasets; compare it with our listing of the same folders without the
table.

A list of 240,000 of such files is opened with and without that table.

Memory is measured on records that do not exist on disk, since it does not depend on their content: what two loader
workers write to (private dirty pages) while they read the records of an epoch of 1.28 million, the size of ImageNet;
and the time and memory of a run that opens a table of 100 million records and reads the first sample, an image.

`data doctor` then inspects videos of 25 frames of 64 x 48 pixels with one process per core: the first, middle and last
frames of each, and all frames with `full=true`; and `data prepare` copies them. Each run starts anew, in a process of
its own, and is timed after its imports. Baseline: the same commands of another checkout of this package, such as an
earlier one; the checkouts take turns.
"""

import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from common import arguments, checkouts, finish, row, run_in
from PIL import Image

from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.video_writer import write_video
from eztorch_sce.data.epoch_order import shuffled
from eztorch_sce.data.sources.media_table import TABLE_NAME, MediaRow, folder_times, write_columns, write_table
from eztorch_sce.data.sources.records import KINDS

NUM_FOLDERS = 1000  # of the tables
US, BASELINE = "eztorch_sce", "torchvision"
ROOT = checkouts(None)[US]
NUM_CLASSES = 400

_OURS = """
import sys, time
import pyarrow as pa
from eztorch_sce.data.config import DataConfig
pa.array([0])
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

_OURS_LIST = """
import sys, time
import pyarrow as pa
from eztorch_sce.data.config import DataConfig
pa.array([0])
started, used = time.perf_counter(), time.process_time()
num_files = len(DataConfig(root=sys.argv[1], list=sys.argv[1] + "/list.csv").open().train.records)
print(num_files, time.perf_counter() - started, time.process_time() - used)
"""
_WORKERS = """
import sys
from pathlib import Path
from torch.utils.data import DataLoader, Dataset, get_worker_info
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.dataset import EpochSampler

def private_bytes():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty"))

class Reads(Dataset):  # reads records as training does, but not the files
    first = None
    def __init__(self, records):
        self.records = records
    def __getitem__(self, key):
        record = self.records[key[1]]
        self.first = self.first or private_bytes()
        return (get_worker_info().id, private_bytes() - self.first) if key[1] % 5000 == 0 else (0, 0)

records = DataConfig(root=sys.argv[1]).open().train.records
sampler = EpochSampler(len(records), seed=0, shuffle=True)
loader = DataLoader(Reads(records), batch_size=256, sampler=sampler, num_workers=2, collate_fn=max)
print(len(records), max(growth for _, growth in loader))
"""
_HUGE = """
import sys, time
import pyarrow as pa
from pathlib import Path
from eztorch_sce.config.compose import compose
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.data.loading import input_spec
from eztorch_sce.opening import summarize
from eztorch_sce.types import InputSpec, Sample

def private_bytes():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty"))

config = compose("pretrain", ["recipe=cifar10_resnet18", "data.layout=unlabeled", f"data.root={sys.argv[1]}"])
pa.array([0])
started = time.perf_counter()
splits = config.data.open_for_pretraining(seed=0)
summarize(splits)
train = splits.train
opened = time.perf_counter()
data = TrainingData(config.data, train, config.views, input_spec(config.data, train, InputSpec(), config.views[0]), 0)
sample = data.dataset[next(iter(data.sampler))]
first = time.perf_counter()
assert isinstance(sample, Sample), sample
print(len(train.records), opened - started, first - opened, private_bytes())
"""

_DOCTOR = """
import sys, time
from pathlib import Path
from eztorch_sce.curation.doctor import diagnose
from eztorch_sce.curation.settings import DoctorConfig
if __name__ == "__main__":
    config = DoctorConfig(full=sys.argv[2] == "full")
    started = time.perf_counter()
    result = diagnose(Path(sys.argv[1]), config)
    print(len(result.rows) - result.num_unusable, time.perf_counter() - started)
"""
_PREPARE = """
import sys, time
from pathlib import Path
from eztorch_sce.curation.prepare import prepare
from eztorch_sce.curation.settings import PrepareConfig
if __name__ == "__main__":
    root, out = map(Path, sys.argv[1:])
    started = time.perf_counter()
    prepare(root, out, PrepareConfig())
    print(sum(1 for _ in out.rglob("*.mp4")), time.perf_counter() - started)
"""


def make_files(root: Path, num_files: int) -> list[MediaRow]:
    """Write the files and return the rows that `data doctor` would write if they were videos."""
    for number in range(NUM_CLASSES):
        (root / f"class_{number:03d}").mkdir(parents=True)
    names = sorted(f"class_{number % NUM_CLASSES:03d}/{number:06d}.mp4" for number in range(num_files))
    for name in names:
        (root / name).write_bytes(b"0")
    return [media_row(name) for name in names]


def media_row(name: str) -> MediaRow:
    """Return the row that `data doctor` would write if a file were a video."""
    return MediaRow(name, "video", True, [], 1, "", 10.0, 25.0, 320, 240, "h264", 250, 10)


def listing_seconds(code: str, root: Path, num_files: int) -> tuple[float, float]:
    """Return the wall time and the CPU time in seconds of a method, run in a process of its own."""
    num_listed, wall_s, cpu_s = run_in(ROOT, code, root)
    assert num_listed == num_files, f"{num_listed} of {num_files} files listed"
    return wall_s, cpu_s


def write_list(root: Path, num_files: int) -> None:
    """Write the files and a list of them, with the class of each as a name."""
    make_files(root, num_files)
    names = (f"class_{number % NUM_CLASSES:03d}/{number:06d}.mp4" for number in range(num_files))
    lines = (f"{name},{name.split('/')[0]}\n" for name in names)
    (root / "list.csv").write_text("path,label\n" + "".join(lines))


def write_huge_table(root: Path, num_records: int) -> None:
    """Write the table of records in 1000 class folders, and the image that comes first in the first epoch."""
    numbers = np.arange(num_records)
    folder_of = (numbers * NUM_FOLDERS // num_records).astype(np.int32)
    names = np.full((num_records, len("000000000.png")), ord("0"), np.uint8)
    names[:, 9:] = np.frombuffer(b".png", np.uint8)
    for place in range(9):
        names[:, 8 - place] += (numbers // 10**place % 10).astype(np.uint8)
    offsets = np.arange(num_records + 1, dtype=np.int64) * names.shape[1]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(names)]
    folders = [f"{number:03d}" for number in range(NUM_FOLDERS)]
    table = pa.table(
        {
            "folder": pa.DictionaryArray.from_arrays(folder_of, pa.array(folders, pa.large_string())),
            "name": pa.Array.from_buffers(pa.large_string(), num_records, buffers),
            "kind": pa.DictionaryArray.from_arrays(np.ones(num_records, np.int8), pa.array(KINDS)),
            "usable": pa.array(np.ones(num_records, bool)),
            "digest": pa.repeat("", num_records),
        }
    )
    for folder in folders:
        (root / folder).mkdir(parents=True)
    first = next(shuffled(num_records, seed=0, epoch=0))
    image = root / folders[folder_of[first]] / f"{first:09d}.png"
    Image.new("RGB", (32, 32), "teal").save(image)
    write_columns(root, table, folder_times(root, [str(root / folder / "x.png") for folder in folders]))


def make_videos(root: Path, num_videos: int) -> None:
    """Write videos of random blocks, 25 frames of 64 x 48 pixels each."""
    draw = torch.Generator().manual_seed(0)
    for number in range(num_videos):
        blocks = torch.randint(256, (25, 6, 8, 3), generator=draw, dtype=torch.uint8)
        folder = root / f"class_{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{number:06d}.mp4", blocks.repeat_interleave(8, 1).repeat_interleave(8, 2), fps=25)


def seconds_of_commands(folder: Path, compared: dict[str, Path], repeats: int) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of each run of the commands on files, by command and checkout."""
    videos, copies = folder / "videos", folder / "copies"
    num_videos = sum(1 for _ in videos.rglob("*.mp4"))
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(repeats):
        for who, checkout in compared.items():
            for command, code, argument in (
                ("data doctor", _DOCTOR, "quick"),
                ("data doctor full=true", _DOCTOR, "full"),
                ("data prepare", _PREPARE, copies),
            ):
                for own in (videos / ".doctor", copies):
                    shutil.rmtree(own, ignore_errors=True)
                (videos / TABLE_NAME).unlink(missing_ok=True)
                num_done, seconds = run_in(checkout, code, videos, argument)
                assert num_done == num_videos, f"{command}: {num_done} of {num_videos} videos"
                times.setdefault((command, who), []).append(seconds)
    return times


def main() -> None:
    """Measure, print the table and write the results."""
    parser = arguments(str(__doc__))
    parser.add_argument("--baseline", type=Path, help="folder of another checkout of this package")
    parser.add_argument("--files", type=int, default=100_000, help="number of listed files")
    parser.add_argument("--videos", type=int, default=1000, help="number of videos to inspect and to copy")
    parser.add_argument("--lines", type=int, default=240_000, help="number of lines of the list")
    parser.add_argument("--records", type=int, default=1_281_167, help="number of records of the measurement of memory")
    parser.add_argument("--huge", type=int, default=100_000_000, help="number of records of the huge table")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    times_s: dict[str, list[tuple[float, float]]] = {"table": [], "folders": [], "baseline": []}
    list_s: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "files")
        table_rows = make_files(files, options.files)
        for _ in range(options.repeats):
            (files / TABLE_NAME).unlink(missing_ok=True)
            times_s["folders"].append(listing_seconds(_OURS, files, options.files))
            times_s["baseline"].append(listing_seconds(_TORCHVISION, files, options.files))
            write_table(files, table_rows)
            times_s["table"].append(listing_seconds(_OURS, files, options.files))
        listed, medium, huge = Path(folder, "listed"), Path(folder, "medium"), Path(folder, "huge")
        write_list(listed, options.lines)
        list_s["without the table"] = listing_seconds(_OURS_LIST, listed, options.lines)[0]
        rows_of_list = sorted(line.split(",")[0] for line in (listed / "list.csv").read_text().splitlines()[1:])
        write_table(listed, [media_row(name) for name in rows_of_list])
        list_s["from the table of data doctor"] = listing_seconds(_OURS_LIST, listed, options.lines)[0]
        write_huge_table(medium, options.records)
        _, growth = run_in(ROOT, _WORKERS, medium)
        write_huge_table(huge, options.huge)
        num_huge, open_s, first_s, private = run_in(ROOT, _HUGE, huge)
        make_videos(Path(folder, "videos"), options.videos)
        commands_s = seconds_of_commands(Path(folder), checkouts(options.baseline), options.repeats)

    wall_s = {method: statistics.median(wall for wall, _ in times) for method, times in times_s.items()}
    cpu_s = {method: statistics.median(cpu for _, cpu in times) for method, times in times_s.items()}
    what = f"listing {options.files} files in {NUM_CLASSES} folders"
    rows = [
        row(f"{what}, from the table of data doctor", US, options.files / wall_s["table"], "files/s"),
        row(f"{what}, from the folders", US, options.files / wall_s["folders"], "files/s"),
        row(f"{what}, from the folders", f"{BASELINE}, make_dataset", options.files / wall_s["baseline"], "files/s"),
    ]
    rows += [
        row(f"opening a list of {options.lines} lines, {how}", US, options.lines / seconds, "lines/s")
        for how, seconds in list_s.items()
    ]
    rows.append(row(f"opening a table of {options.huge} records", US, num_huge / open_s, "records/s"))
    for (command, who), seconds in commands_s.items():
        what = f"{command}, {options.videos} videos, {num_usable_cores()} processes"
        rows.append(row(what, who, options.videos / statistics.median(seconds), "files/s"))
    slowest_s = max(wall for wall, _ in times_s["table"])
    notes = [
        f"{options.files} files are listed in {wall_s['table']:.2f} s from the table ({cpu_s['table']:.2f} s of CPU "
        f"time; {slowest_s:.2f} s in the slowest of {options.repeats} processes) and in {wall_s['folders']:.2f} s from "
        f"the folders ({cpu_s['folders']:.2f} s of CPU time), which were in the file system cache: a network disk is "
        "slower",
        f"{options.lines} lines of a list are opened in {list_s['without the table']:.2f} s, or "
        f"{list_s['from the table of data doctor']:.2f} s with the table",
        f"{options.records} records: reading those of one epoch makes a worker write to {growth / 1e6:.1f} MB",
        f"{options.huge} records: opened in {open_s:.2f} s, first sample {first_s:.2f} s later, "
        f"{private / 1e6:.0f} MB of memory that is not shared",
        *(
            f"{command}, {who}: {', '.join(f'{each:.2f} s' for each in seconds)}"
            for (command, who), seconds in commands_s.items()
        ),
    ]
    finish(rows, ["torch", "torchvision", "pyarrow", "av", "eztorch-sce"], options.json, notes)


if __name__ == "__main__":
    main()
