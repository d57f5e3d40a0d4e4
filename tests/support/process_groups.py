"""Groups of gloo processes that run a function of a test file.

All processes are forked from one that has imported the file, since importing torch takes longer than most functions.
"""

import importlib.util
import os
import subprocess
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import eztorch_sce  # noqa: F401  # repairs torchvision before a file imports Lightning, which imports it

WORLD_SIZES = (2, 4)


def run_in_process_groups(file: str, folder: Path, world_sizes: tuple[int, ...] = WORLD_SIZES) -> dict[int, list[Any]]:
    """Call `run_process(rank, world_size)` of a file in a group of processes of each size.

    Args:
        file: Path of the test file.
        folder: Folder for the results, which is also the working directory of the processes.
        world_sizes: Sizes of the groups, which run one after the other.

    Returns:
        What each process returned, by world size and rank.
    """
    sizes = map(str, world_sizes)
    subprocess.run([sys.executable, __file__, file, str(folder), *sizes], check=True, timeout=300, cwd=folder)
    return {
        size: [torch.load(_result(folder, size, rank), weights_only=True) for rank in range(size)]
        for size in world_sizes
    }


def _result(folder: Path, world_size: int, rank: int) -> Path:
    return folder / f"{rank} of {world_size}.pt"


def _run(module: Any, folder: Path, world_size: int, rank: int) -> None:
    rendezvous = f"file://{folder}/rendezvous of {world_size}"
    timeout = timedelta(seconds=200)  # a process whose peers have failed ends too
    dist.init_process_group("gloo", rendezvous, rank=rank, world_size=world_size, timeout=timeout)
    torch.save(module.run_process(rank, world_size), _result(folder, world_size, rank))
    if dist.is_initialized():  # a training that fails closes it
        dist.destroy_process_group()


def _fork(module: Any, folder: Path, world_size: int, rank: int) -> int:
    """Return the id of a new process of a group."""
    if (child := os.fork()) != 0:
        return child
    status = 0
    try:
        _run(module, folder, world_size, rank)
    except BaseException:
        traceback.print_exc()
        status = 1
    os._exit(status)


def main(file: str, folder: Path, world_sizes: list[int]) -> None:
    """Import a file, and run one group after the other."""
    torch.set_num_threads(1)  # no thread of torch may run when a process is forked
    spec = importlib.util.spec_from_file_location("run_in_process_groups", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    importlib.import_module("torch._dynamo")  # else each process would import it for its first optimizer
    for world_size in world_sizes:
        children = [_fork(module, folder, world_size, rank) for rank in range(world_size)]
        if any([os.waitpid(child, 0)[1] for child in children]):
            raise SystemExit(f"a process of a group of {world_size} failed")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [int(size) for size in sys.argv[3:]])
