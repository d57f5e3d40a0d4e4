"""Tar shards as WebDataset writes them: images and clips inside tar files, on disk or behind a URL.

The members of a sample share their name up to the first dot: `0001.jpg` and, for its label, `0001.cls`. A sample
becomes an ordinary record whose path says where its bytes lie, so shuffling, seeds and the failure policy are those of
files.
Shards are opened through fsspec, which knows local files, http and, with its plug-ins, s3, gs and others; a shard is
never copied to disk.
"""

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from eztorch_sce.data.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES
from eztorch_sce.data.sources.manifest import Manifest, shorten, unknown_classes
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.progress import track
from eztorch_sce.types import MediaRecord

_MEMBER = re.compile(r"(?P<shard>.+)#(?P<name>.+)@(?P<start>\d+)\+(?P<size>\d+)")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def from_shards(pattern: str, classes: Sequence[str] | None = None, setting: str = "data.root") -> Manifest:
    """List the samples of tar shards; only the headers of their members are read.

    Args:
        pattern: A shard, a folder or a glob of shards, or a numbered range as in `http://host/train-{000..099}.tar`.
        classes: The class names of the training part; this part may have no others.
        setting: What an error calls the pattern.

    Raises:
        ConfigError: If there is no shard, one cannot be read, or labels are missing or unknown.
    """
    where = f"{setting}={pattern}"
    shards = _find_shards(pattern, where)
    media: list[tuple[str, str, str | None]] = []  # path, kind, label
    for shard in track(shards, len(shards), "reading shards"):
        media += _samples(shard, where)
    if not media:
        raise ConfigError([f"{where}: {len(shards)} shards hold no image or video; first of them: {shards[0]}"])
    labels = [label for _, _, label in media if label is not None]
    if labels and len(labels) < len(media):
        bare = shorten([path for path, _, label in media if label is None])
        raise ConfigError([f"{where}: samples without .cls: {bare}; label all samples or none"])
    numeric = all(label.isdecimal() for label in labels)
    names = list(classes or sorted(set(labels), key=int if numeric else None))
    if problems := unknown_classes(labels, classes, where):
        raise ConfigError(problems)
    index = {name: number for number, name in enumerate(names)}
    records = [MediaRecord(path, None if label is None else index[label], kind) for path, kind, label in media]
    return Manifest(records, names if labels else [], pattern)


def is_member(path: str) -> bool:
    """Tell whether a record's path leads into a shard."""
    return _MEMBER.fullmatch(path) is not None


def read_member(path: str) -> bytes:
    """Return the bytes of a member: of a shard behind a URL, these alone are fetched.

    Raises:
        MediaError: If the shard is not there or ends too early.
    """
    match = _MEMBER.fullmatch(path)
    assert match is not None
    start, size = int(match["start"]), int(match["size"])
    try:
        system, file = _system(match["shard"])
        data = system.cat_file(file, start=start, end=start + size)
    except (OSError, ValueError) as error:
        raise MediaError(path, f"cannot be read from its shard ({error})") from error
    if len(data) != size:
        raise MediaError(path, f"its shard ends early: {len(data)} of {size} bytes are there")
    return data


def _find_shards(pattern: str, where: str) -> list[str]:
    ranges = [(int(first), int(last), len(first)) for first, last in _BRACES.findall(pattern)]
    plain = _BRACES.sub("{}", pattern)
    numbers = product(*([f"{number:0{digits}d}" for number in range(a, b + 1)] for a, b, digits in ranges))
    shards: list[str] = []
    for address in [plain.format(*chosen) for chosen in numbers] if ranges else [pattern]:
        if "://" in address:
            shards.append(address)
            continue
        system, path = _system(os.path.abspath(os.path.expanduser(address)))
        shards += sorted(system.glob(f"{path}/*.tar" if system.isdir(path) else path))
    if not shards:
        raise ConfigError([f"{where}: there is no shard; give a .tar file, a folder of them, or name-{{000..099}}.tar"])
    return shards


def _samples(shard: str, where: str) -> Iterator[tuple[str, str, str | None]]:
    """Yield path, kind and label of each sample of a shard."""
    media: dict[str, tuple[str, str]] = {}
    labels: dict[str, str] = {}
    try:
        system, file = _system(shard)
        with system.open(file, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                folder, name = os.path.split(member.name)
                key, _, extension = name.partition(".")
                key, suffix = os.path.join(folder, key), os.path.splitext(name)[1].lower()
                if not member.isfile():
                    continue
                if suffix in MEDIA_SUFFIXES:
                    kind = "image" if suffix in IMAGE_SUFFIXES else "video"
                    media[key] = f"{shard}#{member.name}@{member.offset_data}+{member.size}", kind
                elif extension == "cls":
                    content = archive.extractfile(member)
                    assert content is not None  # a file has
                    labels[key] = content.read().decode().strip()
    except (OSError, tarfile.TarError, ValueError) as error:
        raise ConfigError([f"{where}: {shard} cannot be read as a tar file ({error})"]) from error
    for key, (path, kind) in media.items():
        yield path, kind, labels.get(key)


def _system(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the address as that calls it."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:  # a plug-in
        raise ConfigError([f"{address}: {error}; pip install 'eztorch-sce[shards]' for http"]) from error
