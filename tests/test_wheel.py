"""Tests of the installed package: from a wheel, and in place from a clone."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from checkout import copy_checkout

import eztorch_sce
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
without_weights = ("pretrain", "plan", "show-views", "study")
for command in commands():
    weights = [] if command in without_weights else ["weights=x"]
    compose(command, [] if command == "demo" else ["data.root=.", *weights])
assert "data.root" in command_help("pretrain")
"""


def run(*words: str | Path, cwd: Path, **env: str) -> str:
    result = subprocess.run(words, cwd=cwd, capture_output=True, text=True, env={**os.environ, **env}, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def python_without_the_package(folder: Path) -> Path:
    """Return the Python of a new environment that sees what is installed here, except packages installed in place."""
    run(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=folder.parent)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "installed.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    return folder / "bin" / "python"


@pytest.mark.slow
def test_a_wheel_built_from_the_source_distribution_holds_every_file_and_composes_every_recipe(tmp_path: Path) -> None:
    copy, installed, elsewhere = tmp_path / "source", tmp_path / "installed", tmp_path / "elsewhere"
    copy_checkout(copy)
    elsewhere.mkdir()
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), cwd=copy)
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist, cwd=tmp_path)
    assert f"-{eztorch_sce.__version__}-" in wheel.name  # the one place that holds the version
    files = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("eztorch_sce/")}
    package = {file for file in copy.glob("eztorch_sce/**/*") if file.is_file()}
    configs = {Path("eztorch_sce", file.relative_to(copy)) for file in copy.glob("configs/**/*.yaml")}
    assert files == {file.relative_to(copy).as_posix() for file in package} | {file.as_posix() for file in configs}
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "Makefile",
        "constraints.txt",
        "tests/conftest.py",
        "examples/minimal.py",
        "docs/index.md",
        "mkdocs.yml",
    } <= sources

    install = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(installed), str(wheel))
    run(*install, cwd=elsewhere)
    printed = run(sys.executable, "-c", SCRIPT, cwd=elsewhere, PYTHONPATH=str(installed)).splitlines()
    assert Path(printed[0]).is_relative_to(installed)
    assert printed[1:] == list(recipes())


@pytest.mark.slow
def test_python_and_mypy_find_a_clone_that_is_installed_in_place_also_from_the_folder_above_it(tmp_path: Path) -> None:
    clone, python = copy_checkout(tmp_path / "eztorch_sce"), python_without_the_package(tmp_path / "environment")
    options = ("-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", str(python), "install", *options, "-e", str(clone), cwd=tmp_path)
    program = tmp_path / "program.py"
    program.write_text("import eztorch_sce\nprint(eztorch_sce.__file__, eztorch_sce.ConfigError.__name__)\n")
    assert run(str(python), str(program), cwd=tmp_path) == f"{clone / 'eztorch_sce' / '__init__.py'} ConfigError\n"
    program.write_text("from eztorch_sce import pretrain\nfrom eztorch_sce.errors import ConfigError\n")
    run(str(python), "-m", "mypy", "--follow-imports=skip", str(program), cwd=tmp_path)  # finds, reads nothing
