"""Subsets of a manifest: fractions of the labels, listed files and listed classes."""

import os
import random
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.media_table import find_table
from eztorch_sce.data.sources.records import UNLABELED
from eztorch_sce.data.sources.text import text_lines
from eztorch_sce.errors import ConfigError, shorten


def draw_fraction(manifest: Manifest, fraction: float, seed: int) -> Manifest:
    """Keep a random fraction of each class, at least one record per class, in the original order.

    The draw from a class does not depend on the other classes, and a larger fraction contains every smaller one drawn
    with the same seed.
    """
    is_drawn = np.zeros(len(manifest.records), bool)
    for name, indices in indices_by_class(manifest.records.labels, manifest.classes).items():
        shuffled = random.Random(os.fsencode(f"share {seed}/{name}")).sample(range(len(indices)), len(indices))
        is_drawn[indices[shuffled[: max(round(fraction * len(indices)), 1)]]] = True
    records = manifest.records.take(np.flatnonzero(is_drawn))
    kept = f"the fraction {fraction} of each class drawn with seed {seed} ({len(records)} records)"
    notes = [*manifest.notes, f"train is {kept}"]
    return replace(manifest.with_records(records, f"{manifest.source}, {kept}"), notes=notes)


def keep_listed(manifest: Manifest, list_file: Path, setting: str = "data.train_subset") -> Manifest:
    """Keep the records named by a published subset. Each line is a file name or the end of a path.

    Raises:
        ConfigError: If the list does not exist, or with every name that matches no record or several.
    """
    list_file = Path(os.path.abspath(os.path.expanduser(list_file)))
    where = f"{setting}={list_file}"
    if not list_file.is_file():
        raise ConfigError([f"{where} does not exist"])
    names = list(dict.fromkeys(text_lines(list_file)))
    by_name: dict[str, list[str]] = {}
    for path in manifest.records.paths():
        by_name.setdefault(os.path.basename(path), []).append(path)
    matches = [[path for path in by_name.get(os.path.basename(name), ()) if _ends_with(path, name)] for name in names]
    messages = [] if names else [f"{where} lists no files"]
    if unknown := [name for name, paths in zip(names, matches, strict=True) if not paths]:
        absent = f"{len(unknown)} of {len(names)} names are not in the train split: {shorten(unknown)}"
        messages.append(f"{where}: {absent}; the list must name files of {manifest.source}")
    if ambiguous := [name for name, paths in zip(names, matches, strict=True) if len(paths) > 1]:
        cure = "add as much of the path as identifies each file"
        messages.append(f"{where}: names that match several files: {shorten(ambiguous)}; {cure}")
    if messages:
        raise ConfigError(messages)
    kept = {path for paths in matches for path in paths}
    records = manifest.records.where(np.array([path in kept for path in manifest.records.paths()]))
    subset = f"only the {len(records)} records in {list_file}"
    notes = [*manifest.notes, f"train is {subset}"]
    return replace(manifest.with_records(records, f"{manifest.source}, {subset}"), notes=notes)


def keep_classes(manifest: Manifest, names: Sequence[str], where: str, missing_ok: bool = False) -> Manifest:
    """Keep the named classes. Spaces and underscores in names are equivalent.

    Args:
        manifest: The labeled records.
        names: Class names in any order; the classes keep the order of the manifest.
        where: The setting and file that messages name.
        missing_ok: Treat a named class that the manifest lacks as a class without records.

    Raises:
        ConfigError: If the manifest has no labels, or lacks a class.
    """
    if not manifest.classes:
        raise ConfigError([f"{where}: {manifest.source} has no labels, so no classes can be chosen"])
    chosen = {name.replace("_", " "): name for name in names}
    existing = {name.replace("_", " ") for name in manifest.classes}
    absent = sorted(name for plain, name in chosen.items() if plain not in existing)
    if absent and not missing_ok:
        cure = "the file must name classes of the data set, one per line"
        counts = f"{len(absent)} of {len(names)} classes are not in {manifest.source}: {shorten(absent)}"
        raise ConfigError([f"{where}: {counts}; {cure}"])
    kept = [label for label, name in enumerate(manifest.classes) if name.replace("_", " ") in chosen]
    new_labels: dict[int | None, int] = {label: new_label for new_label, label in enumerate(kept)}
    new_label_of = np.full(len(manifest.classes), UNLABELED, np.int32)
    new_label_of[kept] = range(len(kept))
    records = manifest.records.with_labels(new_label_of[manifest.records.labels])
    records = records.where(records.labels != UNLABELED)
    missing: list[tuple[str, int | None]] | None = None
    if manifest.missing is not None:
        missing = [(name, new_labels[label]) for name, label in manifest.missing if label in new_labels]
    classes = [manifest.classes[label] for label in kept] + absent
    source = f"{manifest.source}, only the {len(chosen)} classes in {where}"
    return replace(manifest, records=records, classes=classes, source=source, missing=missing)


def without_unusable(manifest: Manifest, *folders: Path | None) -> Manifest:
    """Leave out records that `data doctor` found unusable in any of the folders, and count them in `source`.

    Raises:
        ConfigError: If no record is left.
    """
    tables = [table for folder in folders if folder and (table := find_table(folder))]
    unusable = {path for table in tables for path in table.unusable}
    if not unusable:
        return manifest
    records = manifest.records.where(np.array([path not in unusable for path in manifest.records.paths()], bool))
    if len(records) == len(manifest.records):
        return manifest
    num_unusable = len(manifest.records) - len(records)
    blamed = next(table for table in tables if table.unusable)
    left_out = f"{num_unusable} of {len(manifest.records)} left out as unusable according to {blamed.file}"
    if not records:
        cure = f"run `eztorch-sce data doctor {shlex.quote(str(blamed.file.parent))}` again"
        raise ConfigError([f"{manifest.source}: {left_out}, written {blamed.age}; {cure}"])
    ignored = manifest.ignored | {f"unusable according to {blamed.file.name}": num_unusable}
    return replace(manifest.with_records(records, f"{manifest.source} ({left_out})"), ignored=ignored)


def indices_by_class(labels: npt.NDArray[np.int32], classes: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
    """Return the indices of the records with these labels by class name; "" is the class of unlabeled records.

    The classes are in the order of their first record.
    """
    order = np.argsort(labels, kind="stable")
    values, starts = np.unique(labels[order], return_index=True)
    parts = zip(values.tolist(), np.split(order, starts[1:]), strict=False)  # no records still make one empty part
    by_first = sorted(parts, key=lambda part: int(part[1][0]))
    return {"" if label == UNLABELED else classes[label]: indices for label, indices in by_first}


def _ends_with(path: str, end: str) -> bool:
    """Return whether the last components of a path are `end`."""
    return os.path.join(os.sep, path).endswith(os.path.join(os.sep, os.path.normpath(end)))
