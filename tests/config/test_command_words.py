"""Tests of the paths on a command line: those to read must exist, and those to write need not."""

from pathlib import Path

import pytest

from eztorch_sce.config.command_words import config_of
from eztorch_sce.errors import ConfigError


def test_paths_to_write_and_urls_need_not_exist(tmp_path: Path) -> None:
    for out in ("new/features", "memory://features"):
        words = [f"data.root={tmp_path}", "backbone=resnet18", f"out={out}", f"run.dir={tmp_path / 'run'}"]
        assert config_of("extract", words).out == out
    assert config_of("knn", ["features=memory://features"]).features == "memory://features"


def test_paths_to_read_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="features=nowhere does not exist"):
        config_of("knn", ["features=nowhere"])
