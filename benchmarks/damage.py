"""Damage weights files and checkpoints of a small run, and count what is refused, recovered, or wrongly accepted.

    python benchmarks/damage.py [--cases 1000] [--seed 0] [--json FILE]

Each case flips one bit, cuts the file, sets a block to zero, or appends bytes, at a random place. A file is refused if
the reader names the damage; a damaged checkpoint is recovered if the training goes on from the one before it, bit for
bit. It is unharmed if all values are as they were, such as after a flipped bit in the padding of a torch file. Anything
else is wrong.
"""

import contextlib
import copy
import io
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import Row, arguments, finish, row

import eztorch_sce as sce
from eztorch_sce import tensor_file
from eztorch_sce.errors import ConfigError
from eztorch_sce.models.weights import load_weights
from eztorch_sce.training.checkpoint_files import checkpoint_files, load_newest

KINDS = ("flipped bit", "cut", "block of zeros", "appended bytes")


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--cases", type=int, default=1000, help="cases per kind of file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        run_dir = train(Path(folder))
        weights = run_dir / "backbone.safetensors"
        earlier = Path(folder) / "backbone.pt"
        torch.save(tensor_file.read(weights) | {"format": "eztorch_sce weights 1"}, earlier)
        newest, before = checkpoint_files(run_dir)[:2]
        state = tensor_file.read(before)

        def read_weights(file: Path) -> Any:
            content = load_weights(str(file))
            return {**vars(content), "sha256": "", "file": "", "provenance": repr(content.provenance)}

        def read_checkpoint(file: Path) -> Any:
            loaded = load_newest(run_dir)
            assert loaded is not None
            return "recovered" if loaded[0] == before and equal(loaded[1], state) else loaded[1]

        readers: dict[str, tuple[Path, Callable[[Path], Any]]] = {
            "weights": (weights, read_weights),
            "weights of earlier versions": (earlier, read_weights),
            "the same, read by PyTorch alone": (earlier, lambda file: torch.load(file, weights_only=True)),
            "newest of two checkpoints": (newest, read_checkpoint),
        }
        rows: list[Row] = []
        for what, (file, read) in readers.items():
            outcomes = damage(file, read, options.cases, random.Random(options.seed))
            rows += [row(what, outcome, number, "cases") for outcome, number in sorted(outcomes.items())]
        notes = [f"{options.cases} cases each, in turn: {', '.join(KINDS)}; seed {options.seed}"]
        notes += [f"{file.name}: {file.stat().st_size} bytes" for file in (weights, earlier, newest)]
    finish(rows, ["torch", "eztorch-sce"], options.json, notes)


def train(folder: Path) -> Path:
    """Train on a few images for two epochs, with two checkpoints, and return the run directory."""
    sce.write_moving_shapes(folder / "data", sce.MovingShapes(num_train=16, num_test=8, num_scenes=1))
    data = sce.DataConfig(root=str(folder / "data"), num_frames=1, batch_size=8, num_workers=0)
    config = sce.PretrainConfig(data=data, backbone=sce.SmallR2Plus1DConfig(width=4), views=sce.views("image", size=32))
    config.trainer, config.run.dir = sce.TrainerConfig(max_epochs=2, accelerator="cpu"), str(folder / "run")
    config.method.queue_size = 64
    sce.pretrain(config)
    return folder / "run"


def damage(file: Path, read: Callable[[Path], Any], num_cases: int, chosen: random.Random) -> Counter[str]:
    """Return how many damaged versions of a file had each outcome."""
    intact, outcomes = file.read_bytes(), Counter({"refused": 0, "wrong": 0})
    expected = copy.deepcopy(read(file))
    try:
        for case in range(num_cases):
            damaged = changed(intact, KINDS[case % len(KINDS)], chosen)
            file.write_bytes(damaged)
            outcomes[outcome(lambda: read(file), expected)] += 1
    finally:
        file.write_bytes(intact)
    return outcomes


def outcome(read: Callable[[], Any], expected: Any) -> str:
    """Return what a reader makes of a damaged file."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            content = read()
    except ConfigError:
        return "refused"
    except Exception:  # counted: what this benchmark looks for is a reader that does not refuse in words
        return "other errors"
    if isinstance(content, str):
        return content
    return "unharmed" if equal(content, expected) else "wrong"


def changed(intact: bytes, kind: str, chosen: random.Random) -> bytes:
    """Return a file with one damage that changes its bytes."""
    while True:
        data, place = bytearray(intact), chosen.randrange(len(intact))
        if kind == "flipped bit":
            data[place] ^= 1 << chosen.randrange(8)
        elif kind == "cut":
            del data[place:]
        elif kind == "block of zeros":
            end = min(place + chosen.choice((16, 512, 4096)), len(data))
            data[place:end] = bytes(end - place)
        else:
            data += chosen.randbytes(chosen.choice((1, 22, 4096)))
        if data != intact:
            return bytes(data)


def equal(first: Any, second: Any) -> bool:
    """Return whether two nested values are equal, bit for bit."""
    if isinstance(first, torch.Tensor):
        same = isinstance(second, torch.Tensor) and first.dtype == second.dtype and first.shape == second.shape
        return same and first.numpy().tobytes() == second.numpy().tobytes()
    if isinstance(first, dict):
        return isinstance(second, dict) and [*first] == [*second] and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)):
        return type(first) is type(second) and len(first) == len(second) and all(map(equal, first, second))
    return type(first) is type(second) and repr(first) == repr(second)


if __name__ == "__main__":
    main()
