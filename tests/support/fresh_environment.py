"""Python without this package: only the packages that are named, and what they depend on."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from eztorch_sce.compat import declare_missing_torchvision_operators

_START = "import sys; sys.path[:0] = [{folder!r}, sys.argv[1]]; exec(sys.stdin.read())"
_REPAIR = """
import torch
library = torch.library.Library("torchvision", "FRAGMENT")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
"""What `compat` does where a CUDA build of torchvision is installed beside a CPU build of torch."""


def run_fresh(code: str, packages: list[str], cwd: Path, folder: Path) -> str:
    """Run code in a new process that finds the standard library, some packages and the modules in `cwd`.

    Args:
        code: The code.
        packages: Names of the packages, as pip knows them.
        cwd: Folder that the code runs in.
        folder: Empty folder, which gets links to the packages.

    Returns:
        What the code prints.
    """
    all_packages = list(_closure(packages))
    if "torchvision" in {found.name for found in all_packages} and declare_missing_torchvision_operators():
        code = _REPAIR + code
    for found in all_packages:
        for name in {Path(str(file)).parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            link = folder / name
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(name))))
    start = _START.format(folder=str(folder))
    command = [sys.executable, "-I", "-S", "-c", start, str(cwd)]  # -S: without the packages of this environment
    done = subprocess.run(command, input=code, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _closure(packages: list[str]) -> Iterator[Distribution]:
    """Yield the packages and what they depend on, as far as it is installed."""
    names, queue = set[str](), list(packages)
    while queue:
        name = queue.pop().lower().replace("_", "-")
        if name in names:
            continue
        names.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform, or optional
        yield found
        queue += [
            match[0] for line in found.requires or () if "extra ==" not in line if (match := re.match(r"[\w.-]+", line))
        ]
