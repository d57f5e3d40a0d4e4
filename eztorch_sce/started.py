"""The command line that started this process, and how one types it again to go on with its run."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from eztorch_sce.launch import find_launch

_words: list[str] | None = None  # of the command line, from the command on; None in the code of others
_run_dir: Path | None = None  # that the command has opened last


def remember_words(words: Sequence[str]) -> None:
    """Remember the words of a command line, the command first."""
    global _words, _run_dir
    _words, _run_dir = list(words), None


def remember_run(run_dir: Path) -> None:
    """Remember the run directory that the command has opened, unless it has opened one before."""
    global _run_dir
    _run_dir = _run_dir or run_dir


def opened_run() -> Path | None:
    """Return the run directory that the command has opened, or None."""
    return _run_dir


def how_to_go_on() -> str:
    """Return what to do to go on with the run of this process, in words."""
    if _run_dir is None or _words is None or _names_run_dir(_words):
        return "run the same command again to go on"
    return f"to go on, run: {typed_again(_run_dir)}"


def typed_again(run_dir: Path) -> str:
    """Return the command that goes on with a run, as one types it.

    Args:
        run_dir: Its directory, which is added where the command line does not name it.
    """
    if _words is None:
        return shlex.join(["python", *sys.argv])
    words, program = list(_words), Path(sys.argv[0])
    if not _names_run_dir(words):
        is_sweep = any(word in ("-m", "--multirun") for word in words)
        words.append(f"run.dir={run_dir.parent if is_sweep else run_dir}")
    if program.name == "__main__.py":
        return shlex.join([*_launcher(is_module=True), "eztorch_sce", *words])
    if program.suffix == ".py":  # a script, which names the command itself
        return shlex.join([*_launcher(is_module=False), str(program), *words[1:]])
    return shlex.join(["eztorch-sce", *words])


def _names_run_dir(words: Sequence[str]) -> bool:
    return any(word.startswith("run.dir=") for word in words)


def _launcher(is_module: bool) -> list[str]:
    """Return the words that start a script or a module, in the processes of this one."""
    launch = find_launch(os.environ)
    option = ["-m"] if is_module else []
    if launch is None or launch.launcher not in ("torchrun", "srun"):
        return ["python", *option]
    if launch.launcher == "srun":
        return ["srun", "python", *option]
    return ["torchrun", "--nproc-per-node", str(launch.per_node or launch.world_size), *option]
