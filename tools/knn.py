"""Script form of `eztorch-sce knn`, for torchrun and SLURM."""

import sys

from eztorch_sce.cli import main

main(["knn", *sys.argv[1:]])
