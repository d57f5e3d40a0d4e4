#!/bin/bash
# One job of SLURM for each value of a sweep, through submitit: pip install 'eztorch-sce[slurm]'
# Use: tools/sweep_on_slurm.sh data.root=videos run.dir=runs/temperatures
eztorch-sce pretrain "$@" -m loss=sce loss.temperature=0.05,0.1,0.2 \
  hydra/launcher=submitit_slurm hydra.launcher.gpus_per_node=1 hydra.launcher.cpus_per_task=12 \
  hydra.launcher.timeout_min=1200
