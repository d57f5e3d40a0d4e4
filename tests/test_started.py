"""Tests of the command that goes on with a run, as one types it."""

import sys
from pathlib import Path

import pytest

from eztorch_sce.started import how_to_go_on, remember_run, remember_words, typed_again

TORCHRUN = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}


@pytest.mark.parametrize(
    ("program", "words", "variables", "expected"),
    [
        ("/x/bin/eztorch-sce", ["seed=1"], {}, "eztorch-sce pretrain seed=1 run.dir=runs/pretrain-1"),
        ("/x/bin/eztorch-sce", ["run.dir=a b"], {}, "eztorch-sce pretrain 'run.dir=a b'"),
        ("/x/eztorch_sce/__main__.py", [], {}, "python -m eztorch_sce pretrain run.dir=runs/pretrain-1"),
        ("/x/bin/eztorch-sce", ["-m", "seed=1,2"], {}, "eztorch-sce pretrain -m seed=1,2 run.dir=runs"),
        (
            "tools/pretrain.py",
            ["seed=1"],
            TORCHRUN,
            "torchrun --nproc-per-node 2 tools/pretrain.py seed=1 run.dir=runs/pretrain-1",
        ),
        (
            "tools/pretrain.py",
            [],
            {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"},
            "srun python tools/pretrain.py run.dir=runs/pretrain-1",
        ),
    ],
)
def test_the_command_that_goes_on_names_the_run_directory(
    program: str, words: list[str], variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program, *words])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    remember_words(["pretrain", *words])
    assert how_to_go_on() == "run the same command again to go on"  # before a directory is opened
    remember_run(Path("runs/pretrain-1"))
    remember_run(Path("runs/pretrain-2"))  # of a command inside the first
    assert typed_again(Path("runs/pretrain-1")) == expected
    named = any(word.startswith("run.dir=") for word in words)
    assert how_to_go_on() == ("run the same command again to go on" if named else f"to go on, run: {expected}")
