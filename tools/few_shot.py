"""`eztorch-sce few-shot`, as a file: for torchrun and SLURM."""

import sys

from eztorch_sce.cli import main

main(["few-shot", *sys.argv[1:]])
