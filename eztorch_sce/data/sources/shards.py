"""Tar shards as WebDataset writes them: images and clips inside tar files, on disk or behind a URL.

The members of a sample share their name up to the first dot, such as `0001.jpg` and `0001.cls` for its label. A sample
becomes an ordinary record whose path addresses its bytes, so shuffling, seeds and the handling of unreadable files are
the same as for files.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.data.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES, ignored_as
from eztorch_sce.data.members import file_system
from eztorch_sce.data.sources.manifest import Manifest, differ_in_case, unknown_classes
from eztorch_sce.data.sources.records import UNLABELED, Records
from eztorch_sce.data.sources.shard_members import NO_LABELS, LabelRule, Sample, read_shard
from eztorch_sce.data.sources.split_folders import part_of
from eztorch_sce.data.sources.splits import Location, Splits, open_both
from eztorch_sce.data.sources.walk import list_if_readable, list_root
from eztorch_sce.errors import ConfigError, first_messages, shorten, typed
from eztorch_sce.progress import track

_WORDS = re.compile(r"[^a-z]+")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


class _Chosen(NamedTuple):
    """The members of a sample that are used, and the shard that holds them."""

    shard: str
    key: str
    path: str
    extension: str
    labels: dict[str, str]


def open_shards(location: Location) -> Splits:
    """Open the shards in `root` as the train split, and those in `test_root`, if set, as the test split."""
    root, test_root = location.root or "", location.test_root
    image, label = location.shard_image, location.shard_label
    if test_root is None:
        return open_both(lambda: from_shards(root, image=image, label=label), None)
    return open_both(
        lambda: from_shards(root, image=image, label=label),
        lambda train: from_shards(test_root, train.classes, "data.test_root", image, label),
    )


def from_shards(
    pattern: str,
    train_classes: Sequence[str] | None = None,
    setting: str = "data.root",
    image: str | None = None,
    label: str | None = None,
) -> Manifest:
    """Return the records of tar shards. Only the headers and labels of their members are read.

    Args:
        pattern: A shard, a folder or glob of shards, or a numbered range such as `http://host/train-{000..099}.tar`.
        train_classes: Class names of the train split, if this is another split: no other classes are allowed.
        setting: The setting that error messages name.
        image: The setting `data.shard_image`.
        label: The setting `data.shard_label`.

    Raises:
        ConfigError: If there is no shard, one cannot be read, a key occurs twice, a sample has several images or
            labels, or labels are missing or unknown.
    """
    where = f"{setting}={pattern}"
    shards = _find_shards(pattern, where)
    samples: dict[str, _Chosen] = {}
    ignored: Counter[str] = Counter()
    messages: list[str] = []
    for shard in track(shards, len(shards), "reading shards"):
        content = read_shard(shard, where, LabelRule(label))
        ignored += content.ignored
        for key, sample in content.samples.items():
            media = [name for name in sample.paths if _suffix(name) in MEDIA_SUFFIXES]
            if image is None and len(media) > 1:
                messages.append(f"{where}: {shard}: {_several(key, media)}")
            extension = next((name for name in _alternatives(image) or media if name in sample.paths), None)
            ignored.update(f"{ignored_as('.' + name)} in shards" for name in _unused(sample, extension))
            if extension is None:
                ignored.update([f"samples without {image} in shards"] if media else [])
                continue
            if key in samples:
                cure = "give every sample its own key, also across shards"
                messages.append(f"{where}: two samples have the key {key}: {samples[key].shard} and {shard}; {cure}")
            samples[key] = _Chosen(shard, key, sample.paths[extension], extension, sample.labels)
    if messages:
        raise ConfigError(first_messages(messages))
    if not samples:
        raise ConfigError([_nothing(where, shards, image, ignored)])
    return _manifest(list(samples.values()), pattern, where, train_classes, ignored)


def _alternatives(image: str | None) -> list[str]:
    """Return the extensions that `data.shard_image` names, the first choice first."""
    return [name.strip().lstrip(".").lower() for name in (image or "").split(";") if name.strip()]


def shard_image_message(image: str) -> str | None:
    """Return an error message unless `data.shard_image` names extensions of images or videos."""
    wrong = [name for name in _alternatives(image) if _suffix(name) not in MEDIA_SUFFIXES]
    if not wrong and _alternatives(image):
        return None
    return f"data.shard_image={image} must be an extension of images or videos, such as jpg, left.jpg or jpg;png"


def _several(key: str, media: list[str]) -> str:
    cure = f"choose one with data.shard_image={media[0]}"
    dots = "; a key ends at the first dot of the file name" if any("." in name for name in media) else ""
    return f"sample {key} has several images or videos: {shorten(media, num=5)}{dots}; {cure}"


def _unused(sample: Sample, extension: str | None) -> list[str]:
    """Return the extensions of a sample's members that are neither its image nor hold its label."""
    if extension is None:
        return list(sample.paths)
    holders = {candidate if candidate in sample.paths else candidate.rpartition(".")[0] for candidate in sample.labels}
    return [name for name in sample.paths if name != extension and name not in holders]


def _nothing(where: str, shards: Sequence[str], image: str | None, ignored: Counter[str]) -> str:
    """Return the message for shards without media."""
    inside = ", ".join(f"{count} x {kind}" for kind, count in ignored.most_common(5)) or "nothing"
    what = "image or video" if image is None else f"member with data.shard_image={image}"
    cure = "choose other shards" if image is None else "choose another extension"
    return f"{where}: {len(shards)} shards contain no {what}, for example {shards[0]}, only {inside}; {cure}"


def _manifest(
    samples: Sequence[_Chosen],
    pattern: str,
    where: str,
    train_classes: Sequence[str] | None,
    ignored: Counter[str],
) -> Manifest:
    """Return the manifest of the chosen samples."""
    labels = _labels(samples, where)
    names = {name for name in labels if name is not None}
    is_numeric = all(name.isdecimal() for name in names)
    classes = list(train_classes or sorted(names, key=int if is_numeric else None))
    if messages := [*differ_in_case(names, where), *unknown_classes(names, train_classes, where)]:
        raise ConfigError(messages)
    label_of = {name: label for label, name in enumerate(classes)}
    kinds = ["image" if _suffix(sample.extension) in IMAGE_SUFFIXES else "video" for sample in samples]
    records = Records.from_columns(
        [sample.path for sample in samples],
        kinds,
        [UNLABELED if name is None else label_of[name] for name in labels] if names else None,
    )
    sources = sorted({name for sample in samples for name in sample.labels} - {"cls"})
    notes = [f"labels are read from {' and '.join(sources)} of each sample"] if sources else []
    return Manifest(records, classes if names else [], pattern, notes=notes, ignored=dict(ignored))


def _labels(samples: Sequence[_Chosen], where: str) -> list[str | None]:
    """Return the class name of each sample, None if the samples are unlabeled.

    Raises:
        ConfigError: If a sample has several labels, or only some samples have one.
    """
    for sample in samples:
        if len(set(sample.labels.values())) > 1:
            found = " and ".join(f"{name}={value!r}" for name, value in sample.labels.items())
            choices = ", ".join(f"data.shard_label={name}" for name in (*sample.labels, NO_LABELS))
            raise ConfigError([f"{where}: {sample.shard}: sample {sample.key} has {found}; choose one: {choices}"])
    labels = [next(iter(sample.labels.values()), None) for sample in samples]
    unlabeled = [sample.path for sample, label in zip(samples, labels, strict=True) if label is None]
    if unlabeled and len(unlabeled) < len(samples):
        cure = f"label all samples or none, or set data.shard_label={NO_LABELS}"
        raise ConfigError([f"{where}: samples without a label: {shorten(unlabeled)}; {cure}"])
    return labels


def _suffix(extension: str) -> str:
    """Return the suffix that tells the kind of a member, such as ".png" for the extension "seg.png"."""
    return f".{extension.rpartition('.')[2]}"


def _find_shards(pattern: str, where: str) -> list[str]:
    """Return the addresses of the shards, with folders, globs and numbered ranges expanded.

    Raises:
        ConfigError: If there is none, one of a range is missing, or a folder holds the shards of several splits.
    """
    shards: list[str] = []
    missing: list[str] = []
    for address in _numbered(pattern):
        if "://" in address:
            shards.append(address)
            continue
        system, path = file_system(os.path.abspath(os.path.expanduser(address)))
        if system.isdir(path):
            shards += _shards_in(path, where)
        elif found := [path] if system.isfile(path) else _matching(path):
            shards += found
        else:
            missing.append(address)
    setting = where.partition("=")[0]
    if not shards:
        cure = f"set {setting} to a .tar file, a folder of them, or a range such as name-{{000..099}}.tar"
        raise ConfigError([f"{where}: no shard exists; {cure}"])
    if missing:
        cure = "complete them, or name those that exist"
        raise ConfigError([f"{where}: {len(missing)} shards do not exist: {shorten(missing)}; {cure}"])
    return shards


def _numbered(pattern: str) -> list[str]:
    """Return the addresses that a pattern with numbered ranges stands for.

    >>> _numbered("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    folder = "" if "://" in pattern else _existing_folder(pattern)
    pieces = _BRACES.split(pattern[len(folder) :])  # text, first, last, text, first, last, ..., text
    choices = [[folder + pieces[0]]]
    for first, last, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        choices.append([f"{number:0{len(first)}d}{text}" for number in range(int(first), int(last) + 1)])
    return ["".join(chosen) for chosen in product(*choices)]


def _matching(pattern: str) -> list[str]:
    """Return the files that a glob matches."""
    folder = _existing_folder(pattern)
    return sorted(glob.glob(glob.escape(folder) + pattern[len(folder) :]))


def _existing_folder(path: str) -> str:
    """Return the longest start of a path that is an existing folder, which is not read as a glob or a range."""
    while path and not os.path.isdir(os.path.expanduser(path)):
        path = os.path.dirname(path)
    return path


def _shards_in(folder: str, where: str) -> list[str]:
    """Return the shards of a folder, all of one split."""
    setting = where.partition("=")[0]
    subfolders, files = list_root(Path(folder), setting)
    names = [name for name in files if name.endswith(".tar")]
    compressed = [name for name in files if name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"))]
    _check_one_split(names, folder, where)
    inside = [name for name in subfolders if _holds_shards(os.path.join(folder, name))]
    if not names and inside:
        raise ConfigError([f"{where} holds shards only in {shorten(inside)}; set {setting} to the folder of one split"])
    if not names and compressed:
        raise ConfigError([f"{where} holds only compressed shards, such as {compressed[0]}; unpack them with gunzip"])
    return [os.path.join(folder, name) for name in names]


def _check_one_split(names: Sequence[str], folder: str, where: str) -> None:
    """Raise ConfigError if the names of shards have words for several splits, such as train and validation."""
    counts: Counter[str] = Counter()
    for name in names:
        counts.update([word for word in _WORDS.split(name.lower()) if part_of(word)][:1])
    if len({part_of(word) for word in counts}) < 2:
        return
    train, *others = sorted(counts, key=lambda word: (part_of(word) != "train", word))
    found = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    chosen = typed(("data.root", f"{folder}/*{train}*.tar"), ("data.test_root", f"{folder}/*{others[-1]}*.tar"))
    cure = f"set {chosen}, or {typed(('data.root', f'{folder}/*.tar'))} for all together"
    raise ConfigError([f"{where} holds the shards of several splits ({found}); {cure}"])


def _holds_shards(folder: str) -> bool:
    return any(name.endswith(".tar") for name in list_if_readable(folder)[1])
