"""Tests of archives: those of publishers, and those made to write where they must not."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from packed_sets import names_in, write_cifar10

from eztorch_sce.curation.unpack import unpack
from eztorch_sce.errors import ConfigError

ARCHIVE = "data.tar.gz"


def message(source: Path, out: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        unpack(source, out)
    return str(caught.value)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, link, pax
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


def write_archive(folder: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(folder / ARCHIVE, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"evil") if info.size else None)
    return folder / ARCHIVE


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w"])
def test_an_archive_is_unpacked_like_its_folder(tmp_path: Path, mode: Literal["w:gz", "w:xz", "w"]) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    with tarfile.open(tmp_path / ARCHIVE, mode) as archive:
        archive.add(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    from_folder = unpack(tmp_path / "cifar-10-batches-bin", tmp_path / "expected")
    (tmp_path / ".out.0a1b2c3d.partial").mkdir()  # of a killed process
    assert unpack(tmp_path / ARCHIVE, tmp_path / "out")[:3] == from_folder[:3]
    assert names_in(tmp_path / "out") == names_in(tmp_path / "expected")
    assert sorted(os.listdir(tmp_path)) == ["cifar-10-batches-bin", ARCHIVE, "expected", "out"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda outside: [member("../outside/evil")], "'../outside/evil', a path outside the archive"),
        (lambda outside: [member("a/../../outside/evil")], "a path outside the archive"),
        (lambda outside: [member("x", path="../outside/evil")], "a path outside the archive"),
        (lambda outside: [member("x", path=f"{outside}/evil")], "an absolute path"),
        (lambda outside: [member("..", tarfile.DIRTYPE)], "a path outside the archive"),
        (lambda outside: [member("a", tarfile.SYMTYPE, str(outside)), member("a/evil")], "'a', a symbolic link"),
        (lambda outside: [member("a", tarfile.SYMTYPE, "b")], "a symbolic link"),
        (lambda outside: [member("a", tarfile.LNKTYPE, str(outside / "kept"))], "'a', a hard link"),
        (lambda outside: [member("a", tarfile.CHRTYPE)], "a device"),
        (lambda outside: [member("a", tarfile.BLKTYPE)], "a device"),
        (lambda outside: [member("a", tarfile.FIFOTYPE)], "a named pipe"),
        (lambda outside: [member("a", tarfile.GNUTYPE_SPARSE)], "a special file"),
        (lambda outside: [member("a"), member("./a")], "holds 'a' twice"),
        (lambda outside: [member("a"), member("a/b")], "holds 'a' twice"),
        (lambda outside: [member("a/b"), member("a")], "holds 'a' twice"),
        (lambda outside: [member("n" * 300)], "a path that is too long"),
        (lambda outside: [member("x", path="a\0b")], "cannot be read as a tar archive"),
        (lambda outside: [member("a")], "no packed set, only a"),
    ],
)
def test_an_archive_that_is_not_a_publishers_writes_nothing(
    tmp_path: Path, make: Callable[[Path], list[tarfile.TarInfo]], reason: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    archive = write_archive(tmp_path, *make(tmp_path / "outside"))
    text = message(archive, tmp_path / "out")
    assert reason in text
    assert f"SOURCE={archive}" in text
    assert ".partial" not in text
    assert names_in(tmp_path) == [ARCHIVE, "outside/kept"]
    assert (tmp_path / "outside" / "kept").read_text() == "kept"
    assert (tmp_path / "outside" / "kept").stat().st_nlink == 1


def test_a_member_larger_than_the_disk_is_refused_before_it_is_written(tmp_path: Path) -> None:
    info = member("zeros")
    info.size = 1 << 60
    with tarfile.open(tmp_path / "header.tar", "w") as archive:
        header = info.tobuf(archive.format or tarfile.GNU_FORMAT)
    (tmp_path / ARCHIVE).write_bytes(header + bytes(1024))
    assert "a file of 1152921504.6 GB, while the disk has" in message(tmp_path / ARCHIVE, tmp_path / "out")


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: str, mode: Literal["w:gz", "w:xz", "w:bz2"]) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    with tarfile.open(tmp_path / ARCHIVE, mode) as archive:
        archive.add(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    data = bytearray((tmp_path / ARCHIVE).read_bytes())
    middle = len(data) // 2
    data[middle] ^= 255
    (tmp_path / ARCHIVE).write_bytes(data[:middle] if damage == "truncated" else data)
    assert "cannot be read as a tar archive" in message(tmp_path / ARCHIVE, tmp_path / "out")
    assert not (tmp_path / "out").exists()
