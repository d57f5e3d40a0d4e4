"""Opening of a source: its names and labels become records, and all mistakes in it are told at once."""

import multiprocessing
import os
import pickle
from dataclasses import dataclass, is_dataclass
from typing import Any, NamedTuple

import numpy as np

from eztorch_sce import registry
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.source import OpenedSource, Source, SourceConfig, kind_of, mistake, title_of
from eztorch_sce.data.sources.source_listing import Listing, common_labels
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.errors import ConfigError, MediaError, SourceError, first_line, shorten
from eztorch_sce.objects import PassedObject, name_of_object

_METHODS = {
    "__len__": "__len__(self): the number of records",
    "read": "read(self, index): uint8 frames (C, T, H, W) or (C, H, W), or the path of a file",
    "label": "label(self, index): a class number, a class name, or None for an unlabeled record",
    "name": "name(self, index): a unique name",
}
_NUM_TRIED = 32  # records that are tried until one can be read and tells the kind of all
_NUM_COMPARED = 8  # records with a name that is in both splits whose contents are compared


def is_source_config(value: object) -> bool:
    """Return whether a value is the config of a source rather than a source."""
    return is_dataclass(value) and isinstance(value, SourceConfig) and not isinstance(value, Source)


@dataclass(init=False, eq=False)
class PassedSource(PassedObject):
    """The config of sources that were passed in Python.

    Args:
        train: The train split.
        test: The test split, or None.
    """

    def __init__(self, train: object, test: object = None) -> None:
        super().__init__(train)
        self.test = test

    def build(self, *split: object) -> Any:
        """Return the source of a split."""
        return self.test if split == ("test",) else self.value

    def __str__(self) -> str:
        names = [name_of_object(source) for source in (self.value, self.test) if source is not None]
        return " and ".join(dict.fromkeys(names))


class _Split(NamedTuple):
    """One split of a source.

    Attributes:
        title: What messages call the source.
        listing: Its names and labels.
        opened: The source with the kind of its records.
        in_memory: Whether the first record is in memory, rather than a file.
    """

    title: str
    listing: Listing
    opened: OpenedSource
    in_memory: bool


def open_source(config: SourceConfig, decoder: str, num_workers: int, keep_same: bool = False) -> Splits:
    """Return the splits of a source. Its length, its names and its labels are read, and one record of each split.

    Args:
        config: The config of the source.
        decoder: The setting `data.decoder`.
        num_workers: Number of processes that the source is sent to.
        keep_same: Accept the same record in both splits.

    Raises:
        ConfigError: With one message per mistake in the source.
        MediaError: If no record can be read that would tell whether the source holds images or videos.
        SourceError: If the source cannot be opened, or its length, a name or a label, because of an exception.
    """
    sources = {name: _build(config, name) for name in ("train", "test")}
    if sources["test"] is None:
        del sources["test"]
    if messages := [text for name, source in sources.items() for text in _interface_messages(source, name)]:
        raise ConfigError(messages)
    splits: list[_Split] = []
    cause: SourceError | None = None
    for name, source in sources.items():
        assert source is not None
        title = title_of(source) if isinstance(config, PassedSource) else _title(config)
        opened = OpenedSource(source, None, None)
        listing = Listing.of(opened.here, f"{title} ({name})")
        messages += listing.messages() + _pickling_messages(source, listing.where, num_workers)
        if not listing.names:
            continue
        try:
            splits.append(_read_first(title, opened, listing))
        except SourceError as error:
            cause = error
            messages.append(str(error))
    if not messages and decoder != "pyav":
        cure = "remove it: the frames are not decoded"
        messages = [
            f"data.decoder={decoder} has no effect on {split.listing.where}; {cure}"
            for split in splits
            if split.in_memory
        ]
    if messages:
        raise ConfigError(messages) from cause
    return _as_splits(splits[0], splits[1] if len(splits) > 1 else None, keep_same)


def _build(config: SourceConfig, split: str) -> Source | None:
    try:
        return config.build(split)
    except (ConfigError, MediaError):
        raise
    except (OSError, ValueError) as error:
        raise ConfigError([f"{_title(config)} ({split}) cannot be opened: {first_line(error)}"]) from error
    except Exception as error:
        raise mistake(error, f"{title_of(config)}.build({split!r})") from error


def _title(config: SourceConfig) -> str:
    """Return a source as typed, such as "data.source=hdf5", or the class of its config."""
    place = registry.place_of(config)
    return title_of(config) if place is None else f"data.source={place[1]}"


def _interface_messages(source: object, split: str) -> list[str]:
    """Return a message if an object is no source."""
    what = f"{title_of(source)} ({split})"
    if source is None:
        return [f"the {split} source is None: pass an object, or return it from `build`"]
    if isinstance(source, (str, os.PathLike)):
        cure = "pass an object, or set data.root to read files"
        return [f"the {split} source is the text {os.fspath(source)!r}, not the name of a registered source: {cure}"]
    if isinstance(source, type):
        return [f"{what} is a class: pass an object, such as {source.__name__}(...)"]
    absent = [signature for name, signature in _METHODS.items() if not callable(getattr(source, name, None))]
    if not absent:
        return []
    is_data_set = len(absent) == len(_METHODS) - 1 and hasattr(source, "__getitem__")
    cure = "wrap it in a class that has" if is_data_set else "add"
    return [f"{what} is not a data source; {cure} {'; '.join(absent)}"]


def _read_first(title: str, opened: OpenedSource, listing: Listing) -> _Split:
    """Read records until one tells the kind of all, which `opened` then has.

    Raises:
        MediaError: If none can be read, and the source does not tell the kind itself.
        SourceError: If the source makes a mistake.
    """
    kind = listing.kind if listing.kind in ("image", "video") else None
    opened.kind, opened.fps = kind, listing.fps
    failures = []
    last = len(listing.names) - 1
    for index in np.unique(np.linspace(0, last, min(last + 1, _NUM_TRIED)).astype(np.int64)).tolist():
        try:
            value = opened.read(index, str(listing.names[index]), here=True)
        except MediaError as error:
            failures.append(error)
            continue
        opened.kind = kind or kind_of(value)
        return _Split(title, listing, opened, not isinstance(value, str))
    if kind is None:
        reason = f"{failures[0].reason} (none of the {len(failures)} records tried can be read)"
        raise MediaError(failures[0].path, reason)
    return _Split(title, listing, opened, in_memory=False)


def _pickling_messages(source: Source, where: str, num_workers: int) -> list[str]:
    """Return a message if the source cannot be sent to the processes that read it."""
    started_by = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if num_workers == 0 or started_by == "fork":  # a forked process has the source already
        return []
    try:
        with open(os.devnull, "wb") as nowhere:
            pickle.Pickler(nowhere).dump(source)
    except Exception as error:
        cure = "open files when a record is first read and leave them out of __getstate__, or set data.num_workers=0"
        reason = f"{type(error).__name__}: {first_line(error)}"
        return [f"{where} cannot be sent to the data.num_workers={num_workers} processes ({reason}); {cure}"]
    return []


def _as_splits(train: _Split, test: _Split | None, keep_same: bool) -> Splits:
    labels = common_labels(train.listing, None if test is None else test.listing)
    if labels.messages:
        raise ConfigError(labels.messages)
    if test is None:
        records = Records.of_source(train.opened, "", train.listing.names, labels.train)
        return Splits(Manifest(records, labels.classes, train.title), None, f"no test split, one source: {train.title}")
    kinds = train.opened.kind, test.opened.kind
    if kinds[0] != kinds[1]:
        has = f"{train.listing.where} has {kinds[0]}s, but {test.listing.where} has {kinds[1]}s"
        raise ConfigError([f"{has}; give both the same kind of records"])
    shared = _shared_names(train, test, keep_same)
    titles = [train.title, test.title]
    if train.title == test.title:
        titles = [train.listing.where, test.listing.where]
    manifests = [
        Manifest(Records.of_source(split.opened, folder, split.listing.names, codes), labels.classes, title)
        for split, folder, codes, title in zip(
            (train, test), ("", "test" if shared else ""), (labels.train, labels.test), titles, strict=True
        )
    ]
    return Splits(manifests[0], manifests[1], f"sources {titles[0]} and {titles[1]}")


def _shared_names(train: _Split, test: _Split, keep_same: bool) -> bool:
    """Return whether records of the two splits have the same names.

    Raises:
        ConfigError: If they also have the same content, unless `keep_same` is set.
    """
    index_of = {name: index for index, name in enumerate(train.listing.names)}
    shared = [(name, index_of[name], index) for index, name in enumerate(test.listing.names) if name in index_of]
    if not shared or keep_same:
        return bool(shared)
    same = [
        name
        for name, of_train, of_test in shared[:: -(-len(shared) // _NUM_COMPARED)]
        if train.opened.fingerprint(of_train, name) == test.opened.fingerprint(of_test, name) != -1
    ]
    if same:
        counts = f"{len(shared)} of its {len(test.listing.names)} records have the name of a train record"
        cure = "remove them from one split, or set data.duplicates=keep"
        raise ConfigError([f"{test.listing.where}: {counts}, and those compared are equal: {shorten(same)}; {cure}"])
    return True
