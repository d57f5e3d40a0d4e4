"""Tests of the torchcodec decoder alone; `test_contract.py` tests the guarantees that all decoders share."""

import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest

from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.decoders.torchcodec import TorchcodecConfig
from eztorch_sce.errors import ConfigError


def test_errors_tell_a_missing_torchcodec_from_a_missing_ffmpeg(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ConfigError, match=r"pip install 'eztorch-sce\[torchcodec\]'"):
        TorchcodecConfig().build()

    class WithoutFFmpeg(MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            if name == "torchcodec":
                raise RuntimeError("Could not load libtorchcodec. Likely causes: ...")

    monkeypatch.delitem(sys.modules, "torchcodec")
    monkeypatch.delitem(sys.modules, "torchcodec.decoders")
    monkeypatch.setattr(sys, "meta_path", [WithoutFFmpeg(), *sys.meta_path])
    with pytest.raises(ConfigError, match=r"install FFmpeg's shared libraries .* data\.decoder=pyav"):
        TorchcodecConfig().build()
    with pytest.raises(ConfigError, match="FFmpeg"):  # a run stops before it starts
        DataConfig(root=str(tmp_path), decoder="torchcodec").open()
