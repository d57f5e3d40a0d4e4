"""Tests of the public names, which `eztorch_sce/__init__.pyi` lists."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import eztorch_sce

NAMES = dir(eztorch_sce)
RECORDED = (Path(__file__).parent / "public_names.txt").read_text().split()
FIRST_IMPORT = "import sys, eztorch_sce; print('torch' in sys.modules)"


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(eztorch_sce, name) is not None


def test_no_public_name_appears_or_disappears_unnoticed() -> None:
    assert sorted(NAMES) == sorted(RECORDED), "if this is meant, change tests/public_names.txt and CHANGELOG.md"


def test_no_public_name_is_also_a_module() -> None:
    modules = {file.stem for file in Path(eztorch_sce.__file__).parent.iterdir()}
    assert not modules & set(NAMES), "importing the module would replace the name"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="pretran"):
        _ = eztorch_sce.pretran  # type: ignore[attr-defined]


def test_importing_the_package_does_not_import_torch() -> None:
    first = subprocess.run([sys.executable, "-c", FIRST_IMPORT], capture_output=True, text=True, check=True, timeout=60)
    assert first.stdout == "False\n"


def test_the_package_runs_as_a_module_and_says_its_versions_without_torch() -> None:
    words = [sys.executable, "-X", "importtime", "-m", "eztorch_sce", "--version"]
    first = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    versions = eztorch_sce.__version__, version("torch"), platform.python_version()
    assert first.stdout == "eztorch-sce {} (torch {}, Python {})\n".format(*versions)
    assert "| torch" not in first.stderr
