"""Test of the wheel, installed outside the checkout: every recipe composes, and help is shown."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eztorch_sce.config.recipes import recipes

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import eztorch_sce
from eztorch_sce.config.compose import commands, compose
from eztorch_sce.config.help import command_help
from eztorch_sce.config.recipes import recipes
from eztorch_sce.planning.devices import load_measurements
print(eztorch_sce.__file__)
assert load_measurements()  # shipped in the wheel, since there is no benchmarks folder
for name, header in recipes().items():
    from_scratch = header["command"] == "pretrain" or "supervised" in name
    compose(header["command"], ["data.root=.", f"recipe={name}", *([] if from_scratch else ["weights=x"])])
    print(name)
without_weights = ("pretrain", "plan", "show-views")
for command in commands():
    weights = [] if command in without_weights else ["weights=x"]
    compose(command, [] if command == "demo" else ["data.root=.", *weights])
assert "data.root" in command_help("pretrain")
"""


@pytest.mark.slow
def test_an_installed_wheel_composes_every_recipe(tmp_path: Path) -> None:
    def run(*words: str, cwd: Path, **env: str) -> str:
        result = subprocess.run(words, cwd=cwd, capture_output=True, text=True, env={**os.environ, **env}, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    copy = tmp_path / "source"  # since a build writes files into its folder
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("eztorch_sce", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), cwd=copy)
    (wheel,) = tmp_path.glob("*.whl")
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(
        sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(installed), str(wheel), cwd=elsewhere
    )
    printed = run(sys.executable, "-c", SCRIPT, cwd=elsewhere, PYTHONPATH=str(installed)).splitlines()
    assert Path(printed[0]).is_relative_to(installed)
    assert printed[1:] == list(recipes())
