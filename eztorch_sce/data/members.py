"""Members of tar shards: record paths that address bytes inside a tar file, on disk or behind a URL.

Shards are opened through fsspec, which supports local files, http and, with its plug-ins, s3, gs and others. A shard is
never copied to disk.
"""

import re
from typing import Any

from eztorch_sce.errors import ConfigError, MediaError, first_line

# A "#" may be part of the name of the member, or of a folder.
_MEMBER = re.compile(r"(?P<shard>.+?\.tar|.+)#(?P<name>.+)@(?P<start>\d+)\+(?P<size>\d+)", re.DOTALL)

_PLUG_INS = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
    "hf": "huggingface_hub",
    "http": "'eztorch-sce[shards]'",
    "https": "'eztorch-sce[shards]'",
}
"""Package that lets fsspec open the URLs of a protocol."""


def member_path(shard: str, name: str, start: int, size: int) -> str:
    """Return the record path of a member: the `size` bytes of `shard` that begin at byte `start`.

    >>> member_path("train-000.tar", "0001.jpg", start=512, size=1024)
    'train-000.tar#0001.jpg@512+1024'
    """
    return f"{shard}#{name}@{start}+{size}"


def is_member(path: str) -> bool:
    """Return whether a record path addresses a member of a shard.

    >>> is_member("train-000.tar#0001.jpg@512+1024"), is_member("0001.jpg")
    (True, False)
    """
    return _MEMBER.fullmatch(path) is not None


def shard_of(path: str) -> str | None:
    """Return the shard that a record path addresses a member of, or None if it addresses a file.

    >>> shard_of("train-000.tar#0001.jpg@512+1024")
    'train-000.tar'
    """
    match = _MEMBER.fullmatch(path)
    return match["shard"] if match else None


def read_member(path: str) -> bytes:
    """Return the bytes of a member. If the shard is behind a URL, only these bytes are fetched.

    Raises:
        MediaError: If the shard cannot be read or ends before the member does.
    """
    match = _MEMBER.fullmatch(path)
    assert match is not None
    start, size = int(match["start"]), int(match["size"])
    try:
        system, file = file_system(match["shard"])
        data: bytes = system.cat_file(file, start=start, end=start + size)
    except (OSError, ValueError) as error:
        raise MediaError(path, f"cannot be read from its shard ({error})") from error
    if len(data) != size:
        raise MediaError(path, f"its shard ends early: {len(data)} of {size} bytes are present")
    return data


def file_system(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the address in the form that file system expects.

    Raises:
        ConfigError: If fsspec lacks the plug-in for the protocol, or does not know it.
    """
    import fsspec

    if "://" not in address:  # fsspec would read "::" in a path as a chain of addresses
        return fsspec.filesystem("file"), address
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        package = _PLUG_INS.get(address.partition("://")[0])
        cure = f"; run pip install {package}" if package else ""
        raise ConfigError([f"{address}: {first_line(error)}{cure}"]) from error
    except ValueError as error:
        raise ConfigError([f"{address}: {first_line(error)}; such URLs begin with s3://, gs:// or https://"]) from error
    return system, str(path)
