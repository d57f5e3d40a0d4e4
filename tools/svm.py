"""Script form of `eztorch-sce svm`, for torchrun and SLURM."""

import sys

from eztorch_sce.cli import main

main(["svm", *sys.argv[1:]])
