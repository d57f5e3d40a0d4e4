"""Tests of the decord decoder alone; `test_contract.py` tests the guarantees that all decoders share."""

import importlib
from pathlib import Path

import pytest
import torch

from eztorch_sce.data.decoders.decord import DecordConfig
from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig
from eztorch_sce.types import ClipSpan


def test_decord_and_pyav_return_the_same_pixels(numbered_video: Path) -> None:
    spans = [ClipSpan(0.3, 2.86), ClipSpan(5.0, 7.56)]
    with_pyav = PyAVConfig().build().read(str(numbered_video), spans, 16)
    with_decord = DecordConfig().build().read(str(numbered_video), spans, 16)
    for a, b in zip(with_pyav, with_decord, strict=True):
        assert torch.equal(a.frames, b.frames)
        assert a.pts_s.tolist() == pytest.approx(b.pts_s.tolist(), abs=1e-5)


def test_torch_linear_algebra_works_after_decord_is_loaded() -> None:
    importlib.import_module("decord")
    assert torch.linalg.svdvals(torch.eye(3)).sum() == 3
