"""Tests of the members of tar shards."""

import io
import tarfile
from pathlib import Path

import pytest

from eztorch_sce.data.members import is_member, member_path, read_member
from eztorch_sce.errors import MediaError


def write_shard(path: Path, content: bytes) -> str:
    """Write a shard with one member, and return the record path of that member."""
    with tarfile.open(path, "w") as archive:
        header = tarfile.TarInfo("a.bin")
        header.size = len(content)
        archive.addfile(header, io.BytesIO(content))
    with tarfile.open(path) as archive:
        [member] = archive.getmembers()
    return member_path(str(path), member.name, member.offset_data, member.size)


def test_a_member_is_read_from_its_shard(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tar", b"pixels")
    assert is_member(path)
    assert read_member(path) == b"pixels"


def test_an_ordinary_path_is_not_a_member() -> None:
    assert not is_member("/data/a#b@home/clip.mp4")


def test_a_missing_or_truncated_shard_raises_media_error(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tar", b"pixels")
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(MediaError, match="ends early: 0 of 6 bytes"):
        read_member(path)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(MediaError, match="cannot be read from its shard"):
        read_member(path)
