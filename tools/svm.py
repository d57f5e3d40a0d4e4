"""`eztorch-sce svm`, as a file: for torchrun and SLURM."""

import sys

from eztorch_sce.cli import main

main(["svm", *sys.argv[1:]])
