"""Members of one tar shard by WebDataset's rules: the key of a name ends at the first dot of its base name."""

import json
import re
import tarfile
from collections import Counter
from typing import Any, NamedTuple

from eztorch_sce.data.leftovers import HIDDEN, skipped_as
from eztorch_sce.data.media import ignored_as
from eztorch_sce.data.members import file_system, member_path
from eztorch_sce.data.sources.manifest import class_name
from eztorch_sce.errors import ConfigError

NO_LABELS = "none"
"""Value of `data.shard_label` that reads no labels."""

_LABEL_KEYS = ("label", "class", "cls", "target")  # of a JSON member
_NAME = re.compile(r"(?P<key>(?:.*/)?[^./]+)\.(?P<extension>[^/]*)")
_OF_JSON = re.compile(r"(?P<extension>(?:.*\.)?json)\.(?P<key>.+)")
# What WebDataset skips, and headers of the pax format that an old tar unpacked as files.
_META = re.compile(r"(^|/)(__[^/]*__($|/|\.)|PaxHeaders?(\.\d+)?/)")
_COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst")
_BETWEEN_ARCHIVES = 20 * 512  # the longest run of zeros that `tar` writes after an archive


class Sample(NamedTuple):
    """The members of a shard that share a key.

    Attributes:
        paths: Record path of each member, by extension.
        labels: Candidates for the label, by the value of `data.shard_label` that chooses them, such as "json.class".
    """

    paths: dict[str, str]
    labels: dict[str, str]


class Shard(NamedTuple):
    """The content of a shard.

    Attributes:
        samples: Samples by key, in the order of their first member.
        ignored: Number of members of each kind that belong to no sample.
    """

    samples: dict[str, Sample]
    ignored: Counter[str]


class LabelRule(NamedTuple):
    """Where the labels of samples are: the setting `data.shard_label`, see `DataConfig`."""

    chosen: str | None

    def reads(self, extension: str) -> bool:
        """Return whether members of an extension may hold labels."""
        if self.chosen is None:
            return extension in ("cls", "json")
        of_json = _OF_JSON.fullmatch(self.chosen)
        return self.chosen != NO_LABELS and extension == (of_json["extension"] if of_json else self.chosen)

    def candidates(self, extension: str, data: bytes, where: str) -> dict[str, str]:
        """Return the labels that a member holds, by the value of `data.shard_label` that chooses them.

        Raises:
            ConfigError: If one is neither a whole number nor a name; `where` names the member.
        """
        of_json = _OF_JSON.fullmatch(self.chosen or "")
        if not extension.endswith("json") or (self.chosen is not None and of_json is None):
            return {extension: _normalized(_text(data, where))}
        keys = (of_json["key"],) if of_json else _LABEL_KEYS
        values = _json(data)
        found = {f"{extension}.{key}": values[key] for key in keys if values.get(key) is not None}
        for name, value in found.items():
            if isinstance(value, bool) or not isinstance(value, (str, int)):
                cure = f"choose another with data.shard_label, or {NO_LABELS} to read no labels"
                raise ConfigError([f"{where}: {name}={value!r} must be a whole number or a name; {cure}"])
        return {name: _normalized(str(value)) for name, value in found.items()}


def read_shard(shard: str, where: str, labels: LabelRule) -> Shard:
    """Return the samples of a shard. Only the headers and the labels of its members are read.

    Args:
        shard: Path or URL of the shard.
        where: The setting that error messages name.
        labels: Where the labels are.

    Raises:
        ConfigError: If the shard cannot be read, or two of its members have the same name.
    """
    content = Shard({}, Counter())
    try:
        system, file = file_system(shard)
        with system.open(file, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                _add(content, archive, member, f"{where}: {shard}", shard, labels)
            stream.seek(archive.offset)
            is_joined = bool(stream.read(_BETWEEN_ARCHIVES).strip(b"\0"))
    except ConfigError:
        raise
    except (OSError, tarfile.TarError, ValueError) as error:
        cure = "unpack it, since shards must not be compressed" if shard.endswith(_COMPRESSED) else "replace it"
        raise ConfigError([f"{where}: {shard} cannot be read as a tar file ({error}); {cure}"]) from error
    if is_joined:
        cure = "join them with `tar --concatenate`, or give them as two shards"
        raise ConfigError([f"{where}: {shard} is several tar files in one, of which only the first is read; {cure}"])
    return content


def _add(
    content: Shard, archive: tarfile.TarFile, member: tarfile.TarInfo, where: str, shard: str, labels: LabelRule
) -> None:
    """Add a member to the content of its shard."""
    name = member.name.removeprefix("./")
    if member.isdir():
        return
    match = _NAME.fullmatch(name)
    if reason := _skipped_as(name):
        content.ignored[f"{reason} in shards"] += 1
    elif not member.isreg() or member.issparse():
        content.ignored["links and special files in shards"] += 1
    elif match is None:
        content.ignored[f"{ignored_as('')} in shards"] += 1
    else:
        key, extension = match["key"], match["extension"].lower()
        sample = content.samples.setdefault(key, Sample({}, {}))
        if extension in sample.paths:
            cure = "unpacking the shard would overwrite the first; write the shard again"
            raise ConfigError([f"{where} has two members named {key}.{extension}; {cure}"])
        sample.paths[extension] = member_path(shard, member.name, member.offset_data, member.size)
        if labels.reads(extension):
            file = archive.extractfile(member)
            assert file is not None  # never None for a file
            sample.labels.update(labels.candidates(extension, file.read(), f"{where}: {member.name}"))


def _skipped_as(name: str) -> str | None:
    """Return why a member is skipped by its name, or None if it is not."""
    if _META.search(name):
        return HIDDEN
    return next(filter(None, map(skipped_as, name.split("/"))), None)


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ConfigError([f"{where} must be text in UTF-8 to be a label ({error})"]) from error


def _json(data: bytes) -> dict[str, Any]:
    """Return the content of a JSON object, or an empty one for other content, which holds no label."""
    try:
        values = json.loads(data.decode("utf-8-sig"))
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _normalized(label: str) -> str:
    """Return a class name, with a number such as 007 written as 7."""
    return str(int(label)) if label.isdecimal() else class_name(label)
