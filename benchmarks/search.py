"""Exact search of a million features: ours beside scikit-learn's and faiss's, each in a process of its own.

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
US = "eztorch_sce"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Search = Callable[[torch.Tensor], torch.Tensor]  # queries (Q, F) to the rows of the bank (Q, k)


def write_features(folder: Path, num_rows: int, num_queries: int) -> None:
    """Write `bank.pt` and `queries.pt`: unit vectors around the same random centers."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(NUM_CLUSTERS, DIM, generator=generator)
    for name, count in (("bank", num_rows), ("queries", num_queries)):
        features = torch.empty(count, DIM)
        labels = torch.randint(NUM_CLUSTERS, (count,), generator=generator)
        for part, own in zip(features.split(2**16), labels.split(2**16), strict=True):
            part.copy_(F.normalize(centers[own] + torch.randn(len(own), DIM, generator=generator), dim=1))
        FeatureBank(features, labels, [], []).save(folder / f"{name}.pt")


def ours(bank: torch.Tensor) -> Search:
    return lambda queries: nearest_neighbors(bank, queries, NUM_NEIGHBORS).indices


def scikit_learn(bank: torch.Tensor) -> Search:
    """By Euclidean distance, which ranks unit vectors as the cosine does: its cosine takes more time and memory."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=NUM_NEIGHBORS, algorithm="brute", metric="euclidean").fit(bank.numpy())
    return lambda queries: torch.from_numpy(index.kneighbors(queries.numpy(), return_distance=False))


def faiss_flat(bank: torch.Tensor) -> Search:
    import faiss

    index = faiss.IndexFlatIP(DIM)
    index.add(bank.numpy())
    return lambda queries: torch.from_numpy(index.search(queries.numpy(), NUM_NEIGHBORS)[1])


CONTENDERS = {US: ours, "scikit-learn": scikit_learn, "faiss-cpu": faiss_flat}
MODULES = {"scikit-learn": "sklearn", "faiss-cpu": "faiss"}


def measure(who: str, folder: Path) -> None:
    """Search in this process; print seconds, processor seconds and the peak of memory, and leave what was found."""
    bank, queries = (FeatureBank.load(folder / f"{name}.pt").features for name in ("bank", "queries"))
    started = time.perf_counter()
    search = CONTENDERS[who](bank)
    prepared = time.perf_counter()
    search(queries[:WARM_UP])
    warm, warm_processor = time.perf_counter(), time.process_time()
    found = search(queries)
    seconds = {"search_s": time.perf_counter() - warm, "processor_s": time.process_time() - warm_processor}
    torch.save(found, folder / f"{who}.pt")
    print(json.dumps({**seconds, "prepare_s": prepared - started, "peak_gb": peak_gb()}))


def peak_gb() -> float:
    """Return the peak of this process's resident memory; pages of a mapped file count."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def in_a_process(who: str, folder: Path, threads: int) -> dict[str, float]:
    """Return what `measure` prints in a process of its own."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    command = [sys.executable, __file__, "--measure", who, "--folder", str(folder), "--threads", str(threads)]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout)


def agreement(folder: Path, who: str) -> float:
    """Return the share of our neighbors that `who` found too."""
    own, other = (torch.load(folder / f"{name}.pt", weights_only=True) for name in (US, who))
    return float((own[:, :, None] == other[:, None, :]).any(dim=2).double().mean())


def median(measured: list[dict[str, float]], name: str) -> float:
    return statistics.median(each[name] for each in measured)


def main() -> None:
    """Measure, print, write."""
    parser = arguments(str(__doc__))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="the contenders take turns; the median counts")
    parser.add_argument("--measure", help="for internal use: search with one contender in this process")
    parser.add_argument("--folder", type=Path, help="where the features are; a temporary one is made and removed")
    parser.add_argument("--note", help="what else there is to say of the run, for the JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        return measure(options.measure, options.folder)

    missing = [who for who, module in MODULES.items() if importlib.util.find_spec(module) is None]
    contenders = [who for who in CONTENDERS if who not in missing]
    notes = [f"{who} is not installed and left out: pip install {who}" for who in missing]
    if options.note:
        notes.append(options.note)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_features(folder, options.rows, options.queries)
        rounds = []
        for _ in range(options.rounds):
            rounds.append({who: in_a_process(who, folder, options.threads) for who in contenders})
        shared = {who: agreement(folder, who) for who in contenders}

    what = f"exact search, {options.rows} x {DIM} float32 in a file, {options.queries} queries, top {NUM_NEIGHBORS}"
    rows = []
    for who in contenders:
        own = [measured[who] for measured in rounds]
        peak = max(measured["peak_gb"] for measured in own)
        times = ", ".join(f"{measured['search_s']:.1f}" for measured in own)
        rows.append(row(what, who, options.queries / median(own, "search_s"), "queries/s"))
        rows.append(row(f"{what}, by processor time", who, options.queries / median(own, "processor_s"), "queries/s"))
        bound = f"{'within' if peak <= MEMORY_GB else 'more than'} {MEMORY_GB} GB"
        notes.append(
            f"{who}: peak memory {peak:.2f} GB, {bound} (mapped pages of the file count); "
            f"{median(own, 'prepare_s'):.1f} s to prepare; searches of {times} s; "
            f"{shared[who]:.4%} of {US}'s neighbors"
        )
    finish(rows, ["torch", "eztorch-sce", *contenders[1:]], options.json, notes)


if __name__ == "__main__":
    main()
