"""The section with a map of the records: similar records lie near each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from eztorch_sce.report.projection import NUM_NEIGHBORS, agreement, kmeans, num_clusters, pca
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.samples import TEST, Sample
from eztorch_sce.report.section import Section
from eztorch_sce.report.shown import Paths, Shown, predicting, shown_networks

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media

_UNKNOWN, _WRONG, _CORRECT = -1, 0, 1


def map(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return the maps of the networks of the runs, or None if there are no features."""
    networks = [network for network in shown_networks(runs, media) if len(network.sample) > 2]
    if not networks:
        return None
    columns: dict[str, npt.NDArray[np.generic]] = {}
    images: dict[str, bytes] = {}
    maps = []
    for number, network in enumerate(networks):
        data, of_map = _map_of(network)
        maps.append(data | {"number": number})
        columns |= {f"map-{number}-{name}": values for name, values in of_map.items()}
        images |= network.image_files()
    return Section("map", "Map of the embeddings", {"maps": maps}, columns, images)


def _map_of(network: Shown) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.generic]]]:
    """Return the data and the columns of a map."""
    sample = network.sample
    plane = pca(sample.features)
    clusters = kmeans(sample.features, num_clusters(len(sample), len(sample.classes)))
    correct, evaluation = _correct(sample)
    same = agreement(sample.features, sample.labels)
    has_tile = [network.images.has_tile(row) for row in range(len(sample))]
    columns: dict[str, npt.NDArray[np.generic]] = {
        "PCA": plane.points.ravel(),
        "label": sample.labels.astype(np.int16),
        "split": sample.split.astype(np.uint8),
        "cluster": clusters.astype(np.int16),
        "correct": correct,
        "tile": np.array(has_tile, np.uint8),
    }
    columns |= {name: points.ravel() for name, points in network.coordinates.items()}
    data = {
        "name": sample.name,
        "set": network.set,
        "projections": [*network.coordinates, "PCA"],
        "classes": list(sample.classes) if sample.is_labeled else [],
        "clusters": _cluster_names(sample, clusters),
        "evaluation": evaluation,
        "paths": Paths.of(sample.paths).data(),
        "summary": _summary(sample, plane.explained, same),
        "explained": plane.explained,
        "agreement": _by_class(sample, same),
        "note": network.images.note,
        "unreadable": len(network.images.unreadable) if network.images.atlases else 0,
    }
    return data, columns


def _correct(sample: Sample) -> tuple[npt.NDArray[np.int8], str]:
    """Return whether the class of each test record was predicted, -1 where that is not known, and who predicted it."""
    correct = np.full(len(sample), _UNKNOWN, np.int8)
    runs = predicting(sample)
    if not runs:
        return correct, ""
    guesses = {int(row["index"]): row for row in runs[0].predictions if row.get("prediction")}
    for row in np.flatnonzero(sample.split == TEST).tolist():
        guess = guesses.get(int(sample.index[row]))
        if guess is not None and sample.labels[row] >= 0:
            correct[row] = _CORRECT if guess["prediction"] == guess.get("label") else _WRONG
    return correct, runs[0].command


def _cluster_names(sample: Sample, clusters: npt.NDArray[np.int64]) -> list[str]:
    """Return the name of each cluster: its number and, if the records are labeled, the class that it holds most of."""
    names = []
    for cluster in range(int(clusters.max()) + 1):
        labels = sample.labels[(clusters == cluster) & (sample.labels >= 0)]
        name = f"cluster {cluster + 1}"
        if len(labels):
            counts = np.bincount(labels)
            name += f", {counts.max() / len(labels):.0%} {sample.classes[int(counts.argmax())]}"
        names.append(name)
    return names


def _summary(sample: Sample, explained: float, same: npt.NDArray[np.float32]) -> list[str]:
    """Return what the map shows in sentences."""
    num_test = int((sample.split == TEST).sum())
    parts = f"{len(sample) - num_test} train and {num_test} test records" if num_test else f"{len(sample)} records"
    sentences = [
        f"{parts}. The two axes of the PCA map keep {explained:.0%} of the variance of the features: records far "
        "apart on it differ, but records close together may differ too."
    ]
    known = same[~np.isnan(same)]
    if len(known):
        labels = sample.labels[sample.labels >= 0]
        chance = float(((np.bincount(labels) / len(labels)) ** 2).sum())
        sentences.append(
            f"Of the {NUM_NEIGHBORS} nearest neighbors of a record, {known.mean():.0%} have its class on average; "
            f"among random records, {chance:.0%} would."
        )
    return sentences


def _by_class(sample: Sample, same: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
    """Return the agreement of neighbors of each class, the lowest first."""
    rows: list[dict[str, Any]] = []
    for label, name in enumerate(sample.classes):
        members = sample.labels == label
        if members.any():
            rows.append({"name": name, "count": int(members.sum()), "agreement": float(np.nanmean(same[members]))})
    return sorted(rows, key=lambda row: row["agreement"])
