"""Script form of `eztorch-sce linear`, for torchrun and SLURM."""

import sys

from eztorch_sce.cli import main

main(["linear", *sys.argv[1:]])
