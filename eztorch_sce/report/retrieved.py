"""Queries and their nearest train records, in the order in which a page shows them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from eztorch_sce.report.media import RecordKey
from eztorch_sce.report.projection import nearest
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.sample import MAX_RECORDS
from eztorch_sce.report.samples import TEST, TRAIN, Sample, keys_of
from eztorch_sce.report.shown import searching

NUM_SHOWN = 5
"""Nearest records of each query."""


@dataclass(frozen=True)
class Query:
    """A record and those nearest to it.

    Attributes:
        key: The record.
        nearest: The nearest records, nearest first.
    """

    key: RecordKey
    nearest: tuple[RecordKey, ...]


@dataclass(frozen=True)
class Retrieved:
    """Queries, the worst classes first and in each class those without a hit in first place first.

    Attributes:
        queries: The queries.
        paths: Path of each record that occurs.
        labels: Class index of each of them, -1 if it is unlabeled or not known.
        origin: The command that searched, or "" if the features of the page were searched.
    """

    queries: list[Query]
    paths: dict[RecordKey, str]
    labels: dict[RecordKey, int]
    origin: str

    def is_hit(self, query: Query) -> bool | None:
        """Return whether the nearest record has the label of the query, or None if either is unknown."""
        label, first = self.labels[query.key], self.labels[query.nearest[0]]
        return None if label < 0 or first < 0 else label == first

    def records_to_animate(self, most: int) -> list[RecordKey]:
        """Return at most `most` records: queries with all their neighbors, of every class in turn."""
        by_label: dict[int, list[Query]] = {}
        for query in self.queries:
            by_label.setdefault(self.labels[query.key], []).append(query)
        chosen: dict[RecordKey, None] = {}
        for query in (query for row in zip_longest(*by_label.values()) for query in row if query is not None):
            added = [key for key in (query.key, *query.nearest) if key not in chosen]
            if len(chosen) + len(added) > most:
                break
            chosen |= dict.fromkeys(added)
        return list(chosen)


def retrieved(sample: Sample, further_labels: Mapping[RecordKey, int]) -> Retrieved | None:
    """Return the queries of a network: those of its evaluation, or else of the sample.

    Without a test split, every record is a query among the others.

    Args:
        sample: The records.
        further_labels: Class index of records outside of the sample.
    """
    paths = dict(zip(keys_of(sample), sample.paths, strict=True))
    labels = dict(zip(keys_of(sample), sample.labels.tolist(), strict=True)) | dict(further_labels)
    run = searching(sample)
    queries = list(_queries_within(sample) if run is None else _queries_of(run, sample, paths, labels))
    if not queries:
        return None
    for query in queries:
        for key in query.nearest:
            labels.setdefault(key, -1)
    result = Retrieved(queries, paths, labels, "" if run is None else run.command)
    return Retrieved(_worst_first(result), paths, labels, result.origin)


def _queries_of(
    run: RunFiles, sample: Sample, paths: dict[RecordKey, str], labels: dict[RecordKey, int]
) -> Iterator[Query]:
    """Yield the queries of an evaluation, only those in the sample if there are many; record paths and labels."""
    numbers = {name: label for label, name in enumerate(sample.classes)}
    rows = run.predictions
    if len(rows) > MAX_RECORDS:
        rows = [row for row in rows if (TEST, int(row["index"])) in paths]
    for row in rows:
        key = (TEST, int(row["index"]))
        paths[key], labels[key] = row.get("record", ""), numbers.get(row.get("label", ""), -1)
        near = []
        for number in range(1, NUM_SHOWN + 1):
            if f"nearest_index_{number}" in row:
                near.append((TRAIN, int(row[f"nearest_index_{number}"])))
                paths[near[-1]] = row.get(f"nearest_{number}", "")
        if near:
            yield Query(key, tuple(near))


def _queries_within(sample: Sample) -> Iterator[Query]:
    """Yield the test records of a sample with the nearest of its train records."""
    keys = list(keys_of(sample))
    tests, trains = np.flatnonzero(sample.split == TEST), np.flatnonzero(sample.split == TRAIN)
    apart = not len(tests) or not len(trains)
    if apart:
        tests = trains = np.arange(len(sample))
    found = nearest(sample.features[tests], sample.features[trains], NUM_SHOWN, apart)
    for row, near in zip(tests.tolist(), trains[found.rows].tolist(), strict=True):
        if near:
            yield Query(keys[row], tuple(keys[each] for each in near))


def _worst_first(result: Retrieved) -> list[Query]:
    hits: dict[int, list[float]] = {}
    for query in result.queries:
        if (hit := result.is_hit(query)) is not None:
            hits.setdefault(result.labels[query.key], []).append(float(hit))
    rate = {label: sum(values) / len(values) for label, values in hits.items()}

    def place(query: Query) -> tuple[float, int, bool]:
        label = result.labels[query.key]
        return rate.get(label, 2.0), label, bool(result.is_hit(query))

    return sorted(result.queries, key=place)
