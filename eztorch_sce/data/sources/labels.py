"""Checks of the labels that an evaluation or a supervised training needs, in both splits."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import UNLABELED
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.errors import ConfigError, shorten


def check_labels(splits: Splits) -> None:
    """Check that every record of both splits has a label, and that every class of the test split can be learned.

    Raises:
        ConfigError: With one message per problem of either split.
    """
    messages = label_messages(splits.train, "the train split", "data.list")
    if splits.test is not None:
        messages += label_messages(splits.test, "the test split", "data.test_list")
    if not messages and splits.test is not None:
        messages = _unlearnable(splits.train, splits.test)
    if messages:
        raise ConfigError(messages)


def label_messages(manifest: Manifest, split: str, setting: str) -> list[str]:
    """Return a message if a split has no records, or records without labels.

    Args:
        manifest: The records.
        split: Name of the split.
        setting: The setting of its list.
    """
    labels = manifest.records.labels
    if not len(labels):
        return [f"{split} has no records ({manifest.source})"]
    unlabeled = np.flatnonzero(labels == UNLABELED)
    if not manifest.classes or len(unlabeled) == len(labels):
        cure = f"put the files in one subfolder per class, or set {setting} to a list with labels"
        if manifest.records.has_source:
            cure = "return a class number or name from its method `label`"
        elif setting == "data.test_list":
            cure += "; if data.root is the folder of the train split alone, a part of it is held out for testing"
        return [f"{split}, {manifest.source}, has no labels: {cure}"]
    if len(unlabeled):
        names = shorten([manifest.records.path(index) for index in unlabeled.tolist()])
        count = f"{len(unlabeled)} of {len(labels)} records without a label"
        return [f"{split}, {manifest.source}, has {count}: {names}; label all of them"]
    return []


def with_classes(manifest: Manifest, classes: Sequence[str]) -> Manifest:
    """Return the records with labels that are indices into other class names, if those include all of their classes."""
    if manifest.classes == list(classes) or not set(manifest.classes) <= set(classes):
        return manifest
    label_of = {name: label for label, name in enumerate(classes)}
    new_label_of = np.array([*(label_of[name] for name in manifest.classes), UNLABELED], np.int32)  # the last is for -1
    records = manifest.records.with_labels(new_label_of[manifest.records.labels])
    return replace(manifest, records=records, classes=list(classes))


def _unlearnable(train: Manifest, test: Manifest) -> list[str]:
    """Return a message if the test split has classes of which the train split has no record."""
    absent = np.setdiff1d(test.records.labels, train.records.labels).tolist()
    if not absent:
        return []
    names = shorten([test.classes[label] for label in absent])
    cure = "add train records of these classes, or remove their test records"
    have = "1 class of the test split has" if len(absent) == 1 else f"{len(absent)} classes of the test split have"
    return [f"{have} no train record ({train.source}): {names}; {cure}"]
