"""Exact search in a million features: this package, scikit-learn and faiss, each in a separate process.

python benchmarks/search.py --json benchmarks/results/search.json
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from common import arguments, finish, row

from eztorch_sce.evaluation.search import nearest_neighbors
from eztorch_sce.types import FeatureBank

DIM, NUM_CLUSTERS, NUM_NEIGHBORS, WARM_UP = 512, 1000, 50, 10
MEMORY_GB = 8
OURS = "eztorch_sce"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Search = Callable[[torch.Tensor], torch.Tensor]  # maps queries (Q, F) to rows of the bank (Q, k)


def write_features(folder: Path, num_rows: int, num_queries: int) -> None:
    """Write `bank.pt` and `queries.pt`: unit vectors around the same random centers."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(NUM_CLUSTERS, DIM, generator=generator)
    for name, count in (("bank", num_rows), ("queries", num_queries)):
        features = torch.empty(count, DIM)
        labels = torch.randint(NUM_CLUSTERS, (count,), generator=generator)
        for chunk, chunk_labels in zip(torch.split(features, 2**16), torch.split(labels, 2**16), strict=True):
            noise = torch.randn(len(chunk), DIM, generator=generator)
            chunk.copy_(F.normalize(centers[chunk_labels] + noise, dim=1))
        FeatureBank(features, labels, [], []).save(folder / f"{name}.pt")


def ours(bank: torch.Tensor) -> Search:
    """Return the search of this package."""
    return lambda queries: nearest_neighbors(bank, queries, NUM_NEIGHBORS).indices


def scikit_learn(bank: torch.Tensor) -> Search:
    """Return scikit-learn's search by Euclidean distance.

    For unit vectors, it ranks as the cosine does, and takes less time and memory than scikit-learn's cosine.
    """
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=NUM_NEIGHBORS, algorithm="brute", metric="euclidean").fit(bank.numpy())
    return lambda queries: torch.from_numpy(index.kneighbors(queries.numpy(), return_distance=False))


def faiss_flat(bank: torch.Tensor) -> Search:
    """Return faiss' exact search by inner product."""
    import faiss  # type: ignore[import-not-found]

    index = faiss.IndexFlatIP(DIM)
    index.add(bank.numpy())
    return lambda queries: torch.from_numpy(index.search(queries.numpy(), NUM_NEIGHBORS)[1])


CONTENDERS = {OURS: ours, "scikit-learn": scikit_learn, "faiss-cpu": faiss_flat}
MODULES = {"scikit-learn": "sklearn", "faiss-cpu": "faiss"}


def measure(name: str, folder: Path) -> None:
    """Search in this process, print the times and the peak memory, and write the neighbors to a file."""
    bank, queries = (FeatureBank.load(folder / f"{file}.pt").features for file in ("bank", "queries"))
    started = time.perf_counter()
    search = CONTENDERS[name](bank)
    prepare_s = time.perf_counter() - started
    search(queries[:WARM_UP])
    started, processor_started = time.perf_counter(), time.process_time()
    indices = search(queries)
    search_s, processor_s = time.perf_counter() - started, time.process_time() - processor_started
    torch.save(indices, folder / f"{name}.pt")
    measured = {"search_s": search_s, "processor_s": processor_s, "prepare_s": prepare_s, "peak_gb": peak_gb()}
    print(json.dumps(measured))


def peak_gb() -> float:
    """Return the peak resident memory of this process in GB, including mapped pages of files."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def measure_in_process(name: str, folder: Path, threads: int) -> dict[str, float]:
    """Run `measure` in a separate process and return the values that it prints."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    command = [sys.executable, __file__, "--measure", name, "--folder", str(folder), "--threads", str(threads)]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(run.stdout)
    return measured


def agreement(folder: Path, name: str) -> float:
    """Return the fraction of our neighbors that a contender also returns."""
    expected, actual = (torch.load(folder / f"{file}.pt", weights_only=True) for file in (OURS, name))
    return float((expected[:, :, None] == actual[:, None, :]).any(dim=2).double().mean())


def median(rounds: list[dict[str, float]], key: str) -> float:
    """Return the median of a value over the rounds."""
    return statistics.median(measured[key] for measured in rounds)


def note_on(name: str, rounds: list[dict[str, float]], agrees: float) -> str:
    """Return a sentence with the memory, the preparation and the agreement of a contender."""
    peak = max(measured["peak_gb"] for measured in rounds)
    times = ", ".join(f"{measured['search_s']:.1f}" for measured in rounds)
    return (
        f"{name}: peak memory {peak:.2f} GB, {'within' if peak <= MEMORY_GB else 'above'} {MEMORY_GB} GB (mapped pages "
        f"of the file count); preparation {median(rounds, 'prepare_s'):.1f} s; searches {times} s; "
        f"{agrees:.4%} of {OURS}'s neighbors"
    )


def main() -> None:
    """Measure all contenders, print the table, and write the JSON file."""
    parser = arguments(str(__doc__))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="contenders take turns; the median is reported")
    parser.add_argument("--measure", help="internal: search with one contender in this process")
    parser.add_argument("--folder", type=Path, help="internal: the folder with the features")
    parser.add_argument("--note", help="a remark on the run, written to the JSON file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        return measure(options.measure, options.folder)

    missing = [name for name, module in MODULES.items() if importlib.util.find_spec(module) is None]
    contenders = [name for name in CONTENDERS if name not in missing]
    notes = [f"{name} is not installed and left out: pip install {name}" for name in missing]
    if options.note:
        notes.append(options.note)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_features(folder, options.rows, options.queries)
        for _ in range(options.rounds):
            for name in contenders:
                measured[name].append(measure_in_process(name, folder, options.threads))
        notes += [note_on(name, measured[name], agreement(folder, name)) for name in contenders]

    what = f"exact search, {options.rows} x {DIM} float32 in a file, {options.queries} queries, top {NUM_NEIGHBORS}"
    rows = []
    for name, rounds in measured.items():
        rows.append(row(what, name, options.queries / median(rounds, "search_s"), "queries/s"))
        rows.append(
            row(f"{what}, by processor time", name, options.queries / median(rounds, "processor_s"), "queries/s")
        )
    finish(rows, ["torch", "eztorch-sce", *contenders[1:]], options.json, notes)


if __name__ == "__main__":
    main()
