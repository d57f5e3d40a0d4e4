"""Held-out test splits: a random fraction of each class that never divides what belongs together."""

import os
import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.provenance import Provenance
from eztorch_sce.data.sources.records import UNLABELED
from eztorch_sce.data.sources.splits import Draw, Splits
from eztorch_sce.data.sources.subsets import indices_by_class
from eztorch_sce.errors import ConfigError, shorten

_Groups = dict[int, list[int]]  # indices of the records of each group

_AS_IN = ", as in the training of "


def can_hold_out(manifest: Manifest) -> bool:
    """Return whether some class has records in two groups, so that one of them can be held out."""
    records = manifest.records
    if records.groups is None:
        return int(records.num_by_label(len(manifest.classes)).max(initial=0)) > 1
    labels, groups = records.labels, records.groups
    pairs = np.unique(np.stack([labels[labels != UNLABELED], groups[labels != UNLABELED]]), axis=1)
    return int(np.bincount(pairs[0]).max(initial=0)) > 1


def holdout(splits: Splits, draw: Draw, groups: npt.NDArray[np.int64] | None = None) -> Splits:
    """Divide the train split at random into train and test, class by class.

    The draw from a class does not depend on the other classes unless they share a group. Every class with two or more
    groups (records that belong to no group count as groups of their own) has a record in each split as far as
    undivided groups allow; a class with a single one is used for training.

    Args:
        splits: The data, without a test split.
        draw: Fraction and seed.
        groups: Group of each record, (N,): records of the same group stay together. None draws single records.

    Raises:
        ConfigError: If the fraction is not between 0 and 1, or if nothing can be held out.
    """
    manifest = splits.train
    if not 0 < draw.fraction < 1:
        raise ConfigError(
            [f"data.test_fraction={draw.fraction} must be greater than 0 and less than 1, for example 0.2"]
        )
    is_test = held_out(manifest.records.labels, manifest.classes, draw.fraction, str(draw.seed), groups)
    if not is_test.any():
        where = manifest.source if manifest.records.has_source else f"data.root={manifest.source}"
        cure = f"add {'records' if manifest.records.has_source else 'files'}, or {_own_test_split(manifest)}"
        unit = "files" if groups is None else "groups"
        raise ConfigError([f"{where}: no class has two {unit}, one for each split; {cure}"])
    drawn = f"the fraction {draw.fraction} held out with seed {draw.seed}"
    if draw.group:
        drawn += f", grouped by {draw.group}"
    divided = _divide(splits, is_test, drawn)
    return divided._replace(origin=str(draw), draw=draw, notes=splits.notes + _undivided(manifest, is_test))


def _undivided(manifest: Manifest, is_test: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    """Return a remark about the classes that are not in the test split, if there are any."""
    labels = manifest.records.labels
    absent = np.setdiff1d(labels, labels[is_test]).tolist()
    if not absent:
        return ()
    names = shorten([manifest.classes[label] for label in absent if label != UNLABELED])
    count = "1 class is" if len(absent) == 1 else f"{len(absent)} classes are"
    return (f"{count} only in train, too small to be divided: {names}",)


def held_out(
    labels: npt.NDArray[np.int32],
    classes: Sequence[str],
    fraction: float,
    seed: str,
    groups: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.bool_]:
    """Return whether each record is held out, drawn as in `holdout`; no record is if no class has two groups.

    Args:
        labels: Class index of each record, (N,).
        classes: Class names, which seed the draws beside `seed`.
        fraction: Fraction of each class, between 0 and 1.
        seed: Seed of the draws.
        groups: Group of each record, (N,), or None.
    """
    mask = np.zeros(len(labels), bool)
    single, together = _split_classes(labels, classes, groups)
    for name, indices in single.items():
        count = min(max(round(fraction * len(indices)), 1), len(indices) - 1)
        mask[indices[random.Random(os.fsencode(f"{seed}/{name}")).sample(range(len(indices)), count)]] = True
    label_of = labels.tolist() if together else []  # a list is faster than an array to look at one by one
    for name, members in together.items():
        mask[_draw_groups(label_of, members, fraction, random.Random(os.fsencode(f"{seed}/{name}")))] = True
    return mask


def holdout_as_trained(
    splits: Splits, provenance: Provenance | None, fraction: float | None = None, group: str | None = None
) -> Splits | None:
    """Divide the train split as a training divided it, whatever the seed: into the records it held out and the others.

    Args:
        splits: The data, without a test split.
        provenance: What is known of the weights, and of the weights before them.
        fraction: The setting `data.test_fraction`; None takes that of the training.
        group: The setting `data.group`; None takes that of the training.

    Returns:
        The two splits, or None if no training is known to have divided these records.

    Raises:
        ConfigError: If records that were held out are not in the data, or the settings ask for another division.
    """
    for training in provenance.chain() if provenance else ():
        match = training.match(splits.train.records)
        divides = training.draw is not None or (match is not None and match.held_out.any())
        if match is None or not match.trained.any() or not divides:
            continue
        if messages := _other_division(splits.train, training, match.num_gone, fraction, group):
            raise ConfigError(messages)
        num_new = int((~match.trained & ~match.held_out).sum())
        notes = splits.notes
        if num_new:
            notes += (f"{num_new} records that {training.weights} was neither trained on nor held out are in train",)
        drawn = f"the records held out in the training of {training.weights} ({training.origin})"
        first = training.origin.partition(_AS_IN)[0]  # of several trainings in a row, only the last one is named
        origin = f"{first}{_AS_IN}{training.weights}"
        return _divide(splits, match.held_out, drawn)._replace(origin=origin, draw=training.draw, notes=notes)
    return None


def _other_division(
    manifest: Manifest, training: Provenance, num_gone: int, fraction: float | None, group: str | None
) -> list[str]:
    """Return a message for each reason why records cannot be divided as a training divided them."""
    messages = []
    given = f"{training.weights} was trained with {training.origin}"
    cure = f"leave it out to use the records held out there, or {_own_test_split(manifest)}"
    draw = training.draw
    if fraction is not None and (draw is None or fraction != draw.fraction):
        messages.append(f"data.test_fraction={fraction}, but {given}: {cure}")
    if group is not None and (draw is None or group != draw.group):
        messages.append(f"data.group={group}, but {given}: {cure}")
    if num_gone:
        assert training.held_out is not None
        counts = f"{num_gone} of the {len(training.held_out)} records held out in the training of {training.weights}"
        cure = f"give all of {training.source}, or {_own_test_split(manifest)}"
        messages.append(f"{counts} are not in {manifest.source}: {cure}")
    return messages


def _own_test_split(manifest: Manifest) -> str:
    """Return what to do instead of holding out records."""
    return "give a test source" if manifest.records.has_source else "set data.test_root or data.test_list"


def _divide(splits: Splits, is_test: npt.NDArray[np.bool_], drawn: str) -> Splits:
    """Return the train split divided into the records that are held out and the others."""
    manifest = splits.train
    train = manifest.with_records(manifest.records.where(~is_test), f"{manifest.source}, without {drawn}")
    test = manifest.with_records(manifest.records.where(is_test), f"{manifest.source}, {drawn}")
    return splits._replace(train=train, test=test)


def _split_classes(
    labels: npt.NDArray[np.int32], classes: Sequence[str], groups: npt.NDArray[np.int64] | None
) -> tuple[dict[str, npt.NDArray[np.int64]], dict[str, _Groups]]:
    """Return the records of the classes without groups of several records, by class, and the groups of the others.

    The groups are by class, and under "groups" for the classes that share a group with another class.
    """
    by_class = indices_by_class(labels, classes)
    if groups is None:
        return by_class, {}
    _, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    lowest = np.minimum.reduceat(labels[order], starts)
    highest = np.maximum.reduceat(labels[order], starts)
    shared = set(np.unique(labels[(lowest != highest)[codes]]).tolist())  # classes that share a group
    grouped = set(np.unique(labels[(counts > 1)[codes]]).tolist())
    single: dict[str, npt.NDArray[np.int64]] = {}
    together: dict[str, _Groups] = {}
    for name, indices in by_class.items():
        label = int(labels[indices[0]])
        if label not in grouped:
            single[name] = indices
            continue
        members = together.setdefault("groups" if label in shared else name, {})
        for index in indices.tolist():
            members.setdefault(int(codes[index]), []).append(index)
    return single, together


def _draw_groups(labels: list[int], members: _Groups, fraction: float, generator: random.Random) -> list[int]:
    """Return the records of randomly drawn groups that hold about a fraction of each class.

    A group is drawn if that brings the numbers of test records closer to the targets, and if every class of the group
    keeps a train record. Then each class that could have a test record but has none gets its smallest such group.
    """
    contents = {group: _count([labels[index] for index in indices]) for group, indices in members.items()}
    totals: dict[int, int] = {}
    for counts in contents.values():
        for label, count in counts.items():
            totals[label] = totals.get(label, 0) + count
    num_test = dict.fromkeys(totals, 0)
    drawn: list[int] = []

    def keeps_train_records(group: int) -> bool:
        return all(num_test[label] + count < totals[label] for label, count in contents[group].items())

    def draw(group: int) -> None:
        drawn.append(group)
        for label, count in contents[group].items():
            num_test[label] += count

    def gain(group: int) -> float:
        lacking = {label: fraction * totals[label] - num_test[label] for label in contents[group]}
        return sum(lacking[label] ** 2 - (lacking[label] - count) ** 2 for label, count in contents[group].items())

    order = generator.sample(sorted(members), len(members))
    for group in order:
        if gain(group) > 0 and keeps_train_records(group):
            draw(group)
    for label in totals:
        if num_test[label]:
            continue
        candidates = [group for group in order if label in contents[group] and keeps_train_records(group)]
        if candidates:
            draw(min(candidates, key=lambda group: len(members[group])))
    return [index for group in drawn for index in members[group]]


def _count(labels: list[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    return counts
