"""Script form of `eztorch-sce extract`, for torchrun and SLURM."""

import sys

from eztorch_sce.cli import main

main(["extract", *sys.argv[1:]])
