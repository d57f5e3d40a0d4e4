"""Script form of `eztorch-sce pretrain`, for torchrun and SLURM."""

import sys

from eztorch_sce.cli import main

main(["pretrain", *sys.argv[1:]])
