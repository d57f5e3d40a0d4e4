"""Jobs of SLURM that go back to the queue, to go on where they were stopped."""

import os
import subprocess
from collections.abc import Mapping

from eztorch_sce.errors import first_line
from eztorch_sce.launch import SHELL_JOBS

_ANSWER_S = 15.0  # for the controller


def own_job(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the number of the batch job that this process belongs to, or None outside of one and in a shell.

    >>> own_job({"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "pretrain"})
    '12'
    >>> own_job({"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"})
    '12_3'
    >>> own_job({"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "interactive"}) is None
    True
    """
    if environ.get("SLURM_JOB_NAME") in SHELL_JOBS:
        return None
    if "SLURM_ARRAY_JOB_ID" in environ and "SLURM_ARRAY_TASK_ID" in environ:
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ.get("SLURM_JOB_ID")


def requeue(job: str) -> str:
    """Ask SLURM to stop a job and start it again later, and return the reason if it does not, else an empty string."""
    try:
        result = subprocess.run(
            ["scontrol", "requeue", job], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ANSWER_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return first_line(error)
    said = (result.stderr or result.stdout).strip()
    return "" if result.returncode == 0 else first_line(RuntimeError(said or f"exit code {result.returncode}"))
