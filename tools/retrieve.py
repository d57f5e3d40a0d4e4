"""Script form of `eztorch-sce retrieve`, for torchrun and SLURM."""

import sys

from eztorch_sce.cli import main

main(["retrieve", *sys.argv[1:]])
