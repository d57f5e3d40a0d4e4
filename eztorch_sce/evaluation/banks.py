"""Checks of features before anything is scored: finite values, labels within the classes, splits that fit together."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from eztorch_sce.errors import ConfigError, shorten
from eztorch_sce.types import FeatureBank, StoredRows

_CHUNK = 4096  # rows checked at once, so that a memory-mapped bank is never in memory as a whole


def check_banks(train: FeatureBank, test: FeatureBank, where: str = "features", labeled: bool = True) -> None:
    """Check the features of both splits, and that they fit together.

    Args:
        train: Features of the train split.
        test: Features of the test split.
        where: Origin of the features, which messages name.
        labeled: Whether every record needs a label.

    Raises:
        ConfigError: If a bank is empty or incomplete, a record has no label or a label beyond the classes, a feature is
            NaN or infinite, or the splits differ in their classes, in the number of features or in the network.
    """
    messages = [
        message
        for bank, split in ((train, "train"), (test, "test"))
        for message in bank_messages(bank, f"{where}: the {split} split", labeled)
    ]
    if messages := messages or _pair_messages(train, test, where):
        raise ConfigError(messages)


def bank_messages(bank: FeatureBank, where: str, labeled: bool) -> list[str]:
    """Return one message per reason why the features of a split cannot be used.

    Args:
        bank: The features.
        where: The split, which messages name.
        labeled: Whether every record needs a label.
    """
    num_records = len(bank.features)
    if bank.features.ndim != 2 or not num_records == len(bank.labels) == len(bank.paths):
        shape = " x ".join(map(str, bank.features.shape))
        counts = f"features of shape {shape}, {len(bank.labels)} labels and {len(bank.paths)} paths"
        return [f"{where} has {counts}: extract the features again"]
    if not num_records:
        return [f"{where} has no records: extract the features of at least one"]
    messages = []
    unlabeled, beyond = bank.labels < 0, bank.labels >= len(bank.classes)
    if labeled and bool(unlabeled.any()):
        found = _records(unlabeled.nonzero().flatten(), bank.paths)
        messages.append(f"{where} has records without labels; extract them from labeled data ({found})")
    if bool(beyond.any()):
        label, found = int(bank.labels.max()), _records(beyond.nonzero().flatten(), bank.paths)
        messages.append(
            f"{where} has labels up to {label} but {len(bank.classes)} classes ({found}): extract the features again"
        )
    return messages + non_finite_messages(bank.features, bank.paths, where, "features")


def non_finite_messages(rows: Tensor | StoredRows, paths: Sequence[str], where: str, noun: str) -> list[str]:
    """Return a message that names the records with NaN or infinite values, or an empty list if there are none.

    Args:
        rows: A row for each record, (N, ...); may be memory-mapped.
        paths: Path of each record.
        where: The split, which the message names.
        noun: What the values are, such as "features".
    """
    bad = _non_finite_rows(rows)
    if not len(bad):
        return []
    cure = "check these files, and the weights of the network"
    if len(bad) == len(rows):
        cure = "check the weights of the network"
    return [f"{where} has NaN or infinite {noun} ({_records(bad, paths)}): {cure}"]


def _non_finite_rows(rows: Tensor | StoredRows) -> Int64[Tensor, " bad"]:
    """Return the indices of the rows that hold NaN or infinity."""
    return torch.cat(
        [start + (~_extremes(chunk).isfinite().all(dim=1)).nonzero().flatten() for start, chunk in _chunks(rows)]
    )


def _extremes(rows: Tensor) -> Float[Tensor, "N 2"]:
    """Return the least and the greatest value of each row, NaN if one is NaN, without a copy of the rows."""
    return torch.stack(rows.flatten(start_dim=1).aminmax(dim=1), dim=1)


def _chunks(rows: Tensor | StoredRows) -> Iterator[tuple[int, Tensor]]:
    return ((start, rows[start : start + _CHUNK]) for start in range(0, len(rows), _CHUNK))


def _records(indices: Int64[Tensor, " some"], paths: Sequence[str]) -> str:
    """Return the number of records and the first names, such as "2 of 9: a.mp4, b.mp4"."""
    first = [paths[index] or f"record {index}" for index in indices[:3].tolist()]
    more = f" and {len(indices) - len(first)} more" if len(indices) > len(first) else ""
    return f"{len(indices)} of {len(paths)}: {', '.join(first)}{more}"


def _pair_messages(train: FeatureBank, test: FeatureBank, where: str) -> list[str]:
    messages = []
    if train.features.shape[1] != test.features.shape[1]:
        widths = f"{train.features.shape[1]} features per record in train and {test.features.shape[1]} in test"
        messages.append(f"{where}: {widths}; extract both splits with the same network")
    if train.classes != test.classes:
        messages.append(f"{where}: {_class_difference(train.classes, test.classes)}; both splits need the same classes")
    networks = [bank.protocol.get("weights") or {} for bank in (train, test)]
    if networks[0].get("sha256") != networks[1].get("sha256"):
        files = " and ".join(str(network.get("file")) for network in networks)
        messages.append(f"{where}: the splits come from different weights ({files}); extract both with the same")
    return messages


def _class_difference(train: Sequence[str], test: Sequence[str]) -> str:
    """Return in words how two lists of classes differ."""
    only_train, only_test = sorted(set(train) - set(test)), sorted(set(test) - set(train))
    differences = [
        f"{len(names)} classes are only in {split} ({shorten(names)})"
        for split, names in (("train", only_train), ("test", only_test))
        if names
    ]
    return " and ".join(differences) or "train and test have the same classes in another order"
