"""Fixture of the tests of weights of other code bases."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def removed_at_end(tmp_path: Path) -> Iterator[None]:
    """Remove the folder of a test when it ends: the files of whole networks together take gigabytes."""
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)
