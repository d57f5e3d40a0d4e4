"""Extraction of tar archives that are not trusted."""

import lzma
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from eztorch_sce.errors import ConfigError
from eztorch_sce.progress import counting

_CHUNK = 1 << 20  # bytes
_LONGEST_NAME, _DEEPEST = 255, 32  # bytes, folders; the archives of the publishers have one folder
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}


def extract_tar(archive: Path, folder: Path) -> None:
    """Extract a tar archive, compressed or not, into an empty folder.

    Files get the access that the umask grants. Nothing is written outside the folder, whatever the archive holds.

    Args:
        archive: The archive.
        folder: The folder. It holds what came before an invalid member if an error is raised.

    Raises:
        ConfigError: If the archive cannot be read, holds anything but files and folders, a path outside the folder, one
            path twice, or more than the free space of the disk.
    """
    num_chunks = -(-archive.stat().st_size // _CHUNK)
    try:
        with (
            archive.open("rb") as stream,
            tarfile.open(fileobj=stream, mode="r:*") as members,
            counting(num_chunks, "extract") as advance,
        ):
            num_read = 0
            for member in members:
                if reason := _refused(member, folder):
                    cure = "nothing of it was kept; download it from its publisher"
                    raise ConfigError([f"SOURCE={archive} holds {member.name!r}, {reason}: {cure}"])
                _extract(members, member, folder / member.name)
                while num_read < min(stream.tell() // _CHUNK, num_chunks):
                    num_read += 1
                    advance()
            assert members.fileobj is not None  # an archive that is open for reading
            while members.fileobj.read(_CHUNK):  # the checksum of a compressed archive follows its members
                pass
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        problem = f"holds {os.path.relpath(str(error.filename), folder)!r} twice"
        raise ConfigError([f"SOURCE={archive} {problem}: nothing of it was kept; download it again"]) from error
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the system; decompressors raise others
        raise ConfigError([f"SOURCE={archive} cannot be read as a tar archive ({error}); download it again"]) from error


def _refused(member: tarfile.TarInfo, folder: Path) -> str:
    """Return why a member is not extracted, or an empty text."""
    path = PurePosixPath(member.name)
    if path.is_absolute():
        return "an absolute path"
    if ".." in path.parts:
        return "a path outside the archive"
    if not member.isdir() and (not member.isfile() or member.issparse()):
        return _KINDS.get(member.type, "a special file")
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts) or len(path.parts) > _DEEPEST:
        return "a path that is too long"
    if member.isfile() and member.size > (free := shutil.disk_usage(folder).free):
        return f"a file of {member.size / 1e9:.1f} GB, while the disk has {free / 1e9:.1f} GB free"
    return ""


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    assert source is not None  # never None for a file
    with source, path.open("xb") as target:
        shutil.copyfileobj(source, target, _CHUNK)
