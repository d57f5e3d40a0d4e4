"""Script form of `eztorch-sce test`, for torchrun and SLURM."""

import sys

from eztorch_sce.cli import main

main(["test", *sys.argv[1:]])
