"""Tar shards as WebDataset writes them: images and clips inside tar files, on disk or behind a URL.

The members of a sample share their name up to the first dot, such as `0001.jpg` and `0001.cls` for its label. A sample
becomes an ordinary record whose path addresses its bytes, so shuffling, seeds and the handling of unreadable files are
the same as for files.
"""

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from eztorch_sce.data.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES, suffix_of
from eztorch_sce.data.members import file_system, member_path
from eztorch_sce.data.sources.manifest import Manifest, class_name, unknown_classes
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.splits import Location, Splits, open_both
from eztorch_sce.errors import ConfigError, shorten
from eztorch_sce.progress import track
from eztorch_sce.types import MediaRecord

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


class _ShardSample(NamedTuple):
    path: str
    kind: str
    label: str | None


def open_shards(location: Location) -> Splits:
    """Open the shards in `root` as the train split, and those in `test_root`, if set, as the test split."""
    root, test_root = location.root or "", location.test_root
    if test_root is None:
        return open_both(lambda: from_shards(root), None)
    return open_both(lambda: from_shards(root), lambda train: from_shards(test_root, train.classes, "data.test_root"))


def from_shards(pattern: str, train_classes: Sequence[str] | None = None, setting: str = "data.root") -> Manifest:
    """Return the records of tar shards. Only the headers and labels of their members are read.

    Args:
        pattern: A shard, a folder or glob of shards, or a numbered range such as `http://host/train-{000..099}.tar`.
        train_classes: Class names of the train split, if this is another split: no other classes are allowed.
        setting: The setting that error messages name.

    Raises:
        ConfigError: If there is no shard, one cannot be read, or labels are missing or unknown.
    """
    where = f"{setting}={pattern}"
    shards = _find_shards(pattern, where)
    samples: list[_ShardSample] = []
    for shard in track(shards, len(shards), "reading shards"):
        samples += _samples(shard, where)
    if not samples:
        raise ConfigError(
            [f"{where}: {len(shards)} shards contain no image or video, for example {shards[0]}; choose other shards"]
        )
    labels = [sample.label for sample in samples if sample.label is not None]
    if labels and len(labels) < len(samples):
        unlabeled = shorten([sample.path for sample in samples if sample.label is None])
        raise ConfigError([f"{where}: samples without .cls: {unlabeled}; label all samples or none"])
    is_numeric = all(label.isdecimal() for label in labels)
    classes = list(train_classes or sorted(set(labels), key=int if is_numeric else None))
    if messages := unknown_classes(labels, train_classes, where):
        raise ConfigError(messages)
    label_of = {name: label for label, name in enumerate(classes)}
    records = [
        MediaRecord(sample.path, None if sample.label is None else label_of[sample.label], sample.kind)
        for sample in samples
    ]
    return Manifest(Records.of(records), classes if labels else [], pattern)


def _find_shards(pattern: str, where: str) -> list[str]:
    """Return the addresses of the shards, with numbered ranges expanded."""
    ranges = [(int(first), int(last), len(first)) for first, last in _BRACES.findall(pattern)]
    addresses = [pattern]
    if ranges:
        template = _BRACES.sub("{}", pattern)
        numbers = ([f"{number:0{digits}d}" for number in range(first, last + 1)] for first, last, digits in ranges)
        addresses = [template.format(*chosen) for chosen in product(*numbers)]
    shards: list[str] = []
    for address in addresses:
        if "://" in address:
            shards.append(address)
            continue
        system, path = file_system(os.path.abspath(os.path.expanduser(address)))
        shards += sorted(system.glob(f"{path}/*.tar" if system.isdir(path) else path))
    if not shards:
        cure = (
            f"set {where.partition('=')[0]} to a .tar file, a folder of them, or a range such as name-{{000..099}}.tar"
        )
        raise ConfigError([f"{where}: no shard exists; {cure}"])
    return shards


def _samples(shard: str, where: str) -> Iterator[_ShardSample]:
    media: dict[str, tuple[str, str]] = {}
    labels: dict[str, str] = {}
    try:
        system, file = file_system(shard)
        with system.open(file, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                folder, name = os.path.split(member.name)
                stem, _, extension = name.partition(".")
                key, suffix = os.path.join(folder, stem), suffix_of(name)
                if not member.isfile():
                    continue
                if suffix in MEDIA_SUFFIXES:
                    kind = "image" if suffix in IMAGE_SUFFIXES else "video"
                    media[key] = member_path(shard, member.name, member.offset_data, member.size), kind
                elif extension == "cls":
                    content = archive.extractfile(member)
                    assert content is not None  # never None for a file
                    labels[key] = class_name(content.read().decode().strip())
    except (OSError, tarfile.TarError, ValueError) as error:
        raise ConfigError([f"{where}: {shard} cannot be read as a tar file ({error}); replace it"]) from error
    for key, (path, kind) in media.items():
        yield _ShardSample(path, kind, labels.get(key))
