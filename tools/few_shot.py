"""Script form of `eztorch-sce few-shot`, for torchrun and SLURM."""

import sys

from eztorch_sce.cli import main

main(["few-shot", *sys.argv[1:]])
