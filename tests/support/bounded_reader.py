"""Read containers with little memory and time, and print what became of each: run as a program, with their paths.

The memory is that of the process after its imports and 400 MB more; a file that takes longer than 20 seconds ends it.
"""

import hashlib
import json
import resource
import signal
import sys
from pathlib import Path

import torch

from eztorch_sce.errors import DamagedFileError
from eztorch_sce.interop.containers import Container, read_container

_MEMORY = 400_000_000  # bytes
_TIME_S = 20


def digest(container: Container) -> str:
    """Return a hash of everything in a container."""
    found = hashlib.sha256(json.dumps([container.kind, dict(container.objects)]).encode())
    for name, tensor in container.tensors.items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    found.update(repr(sorted(container.values.items(), key=str)).encode("utf-8", "backslashreplace"))
    return found.hexdigest()


def main(paths: list[str]) -> None:
    """Print a line of JSON for each path: the path, the reason of the refusal or "", and the digest or ""."""
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for path in paths:
        signal.alarm(_TIME_S)  # whose default ends the process
        try:
            line = [path, "", digest(read_container(path))]
        except DamagedFileError as error:
            line = [path, error.reason, ""]
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.stdin.read().splitlines())
