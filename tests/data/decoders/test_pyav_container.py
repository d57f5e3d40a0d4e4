"""Tests of opening files with FFmpeg."""

import tarfile
from pathlib import Path

import pytest

from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig
from eztorch_sce.errors import MediaError


def test_a_text_file_in_a_tar_shard_is_not_a_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("not a video\n" * 50)
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(tmp_path / "a.mp4", "a.mp4")
    with tarfile.open(tmp_path / "shard.tar") as archive:
        [member] = archive.getmembers()
    path = f"{tmp_path}/shard.tar#a.mp4@{member.offset_data}+{member.size}"
    with pytest.raises(MediaError, match="does not recognize it as a video"):
        PyAVConfig().build().probe(path)
