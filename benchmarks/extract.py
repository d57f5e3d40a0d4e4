"""Benchmark of `extract` on this machine: images of a small network, whose features take several shards.

git worktree add ../before COMMIT
python benchmarks/extract.py --baseline ../before --json benchmarks/results/extract.json

The images are PNG files of 32 x 32 pixels with random colors. Each run is timed in a process of its own, after its
imports, from the settings to the report; the checkouts take turns. The time of the CPU is that of the process and of
its workers. Baseline: `extract` of another checkout of this package, such as an earlier one.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
from common import arguments, checkouts, finish, row, run_in
from PIL import Image

_EXTRACT = """
import resource, sys, time
from eztorch_sce import api
from eztorch_sce.config.compose import compose
root, run_dir, num_workers = sys.argv[1:]
started = time.perf_counter()
api.extract(compose("extract", [f"data.root={root}", f"run.dir={run_dir}", f"data.num_workers={num_workers}",
                                "backbone=r2plus1d_small", "data.num_frames=1", "accelerator=cpu"]))
wall = time.perf_counter() - started
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(wall, sum(each.ru_utime + each.ru_stime for each in used))
"""


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--baseline", type=Path, help="folder of another checkout of this package")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    compared = checkouts(args.baseline)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_images(folder / "images", args.images)
        times: dict[str, list[list[float]]] = {who: [] for who in compared}
        for number in range(args.rounds):
            for who, checkout in compared.items():
                run_dir = folder / f"{number} {who}"
                times[who].append(run_in(checkout, _EXTRACT, folder / "images", run_dir, args.workers))
    what = f"extract, {args.images} images of 32 px, r2plus1d_small, {args.workers} loading process"
    rows = [row(what, who, args.images / statistics.median(wall for wall, _ in each), "records/s")
            for who, each in times.items()]  # fmt: skip
    rows += [row(f"{what}, per second of the CPU", who, args.images / statistics.median(cpu for _, cpu in each),
                 "records/s") for who, each in times.items()]  # fmt: skip
    notes = [
        f"{who}: {', '.join(f'{wall:.1f} s' for wall, _ in each)} in {args.rounds} runs" for who, each in times.items()
    ]
    finish(rows, ["torch", "pyarrow", "pillow", "eztorch-sce"], args.json, notes)


def write_images(folder: Path, count: int) -> None:
    """Write PNG files of random colors in ten class folders of two splits."""
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / ("val" if number % 6 == 0 else "train") / str(number % 10)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
            place / f"image {rng.bytes(4).hex()}.png"
        )


if __name__ == "__main__":
    main()
