"""Script form of `eztorch-sce finetune`, for torchrun and SLURM."""

import sys

from eztorch_sce.cli import main

main(["finetune", *sys.argv[1:]])
