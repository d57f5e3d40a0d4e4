"""Geometry of features for the map of a page: coordinates in the plane, clusters, and how classes keep together."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eztorch_sce.errors import ConfigError

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

NUM_NEIGHBORS = 10
"""Neighbors of a record that `agreement` compares it with."""

_STEPS, _EXTRA = 40, 8  # iterations, and directions beside the two, of the search for the principal components
_KMEANS_STEPS = 30
_ROWS = 1024  # rows compared with all others at once


class Plane(NamedTuple):
    """Coordinates in the plane.

    Attributes:
        points: float32 (N, 2).
        explained: Fraction of the variance that the plane keeps.
    """

    points: Floats
    explained: float


def unit(features: Floats) -> Floats:
    """Return the features (N, F) at length 1, as the evaluations compare them; a zero row stays zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, 1e-12), np.float32)


def pca(features: Floats) -> Plane:
    """Return the first two principal components of the features (N, F) at length 1, the same on every call.

    The sign of a component is such that its largest entry is positive.
    """
    centered = unit(features) - unit(features).mean(axis=0)
    total = float((centered**2).sum())
    if total < 1e-9 or len(features) < 3:  # all alike: there is no plane
        return Plane(np.zeros((len(features), 2), np.float32), 0.0)
    num_directions = min(2 + _EXTRA, *centered.shape)
    directions = np.random.default_rng(0).normal(size=(centered.shape[1], num_directions)).astype(np.float32)
    for _ in range(_STEPS):
        directions, _ = np.linalg.qr(centered.T @ (centered @ directions))
    _, _, rotation = np.linalg.svd(centered @ directions, full_matrices=False)
    components = (directions @ rotation.T)[:, :2]
    if components.shape[1] < 2:
        components = np.concatenate([components, np.zeros_like(components)], axis=1)
    strongest = np.abs(components).argmax(axis=0)
    components = components * np.where(components[strongest, range(2)] < 0, -1, 1)
    points = centered @ components
    return Plane(points.astype(np.float32), float((points**2).sum()) / total)


def tsne(features: Floats) -> Floats:
    """Return coordinates by t-SNE (van der Maaten and Hinton, JMLR 2008) of the features at length 1, float32 (N, 2).

    It keeps neighbors together; distances between groups and their sizes mean little.

    Raises:
        ConfigError: If scikit-learn is not installed.
    """
    check_tsne()
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(2.0, (len(features) - 1) / 4))
    if len(features) < 5:
        return pca(features).points
    return np.asarray(
        TSNE(perplexity=perplexity, init="pca", random_state=0, metric="cosine").fit_transform(unit(features)),
        np.float32,
    )


def check_tsne() -> None:
    """Raise ConfigError unless scikit-learn is installed."""
    from importlib.util import find_spec

    if find_spec("sklearn") is None:
        raise ConfigError(['map=tsne needs scikit-learn: pip install "eztorch-sce[map]", or leave it out (map=pca)'])


def kmeans(features: Floats, num_clusters: int) -> Integers:
    """Return the cluster of each record by k-means on features at length 1, int64 (N,), the largest cluster first.

    It starts from far apart records (k-means++) that are drawn the same way on every call.
    """
    points = unit(features)
    centers = _far_apart(points, min(num_clusters, len(points)))
    nearest = np.full(len(points), -1)
    for _ in range(_KMEANS_STEPS):
        closest = ((centers**2).sum(axis=1) - 2 * points @ centers.T).argmin(axis=1)
        if (closest == nearest).all():
            break
        nearest = closest
        for cluster in range(len(centers)):
            members = points[nearest == cluster]
            if len(members):
                centers[cluster] = members.mean(axis=0)
    order = np.argsort(-np.bincount(nearest, minlength=len(centers)), kind="stable")
    return np.asarray(np.argsort(order)[nearest], np.int64)


def _far_apart(points: Floats, count: int) -> Floats:
    """Return rows of which each is drawn with the square of its distance to those before."""
    generator = np.random.default_rng(0)
    chosen = [int(generator.integers(len(points)))]
    distance = ((points - points[chosen[0]]) ** 2).sum(axis=1).astype(np.float64)
    while len(chosen) < count and distance.sum() > 1e-9:
        chosen.append(int(generator.choice(len(points), p=distance / distance.sum())))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return np.array(points[chosen])


def num_clusters(num_records: int, num_classes: int) -> int:
    """Return the number of clusters to look for: that of the classes, or of unlabeled records at most 10.

    >>> num_clusters(1000, num_classes=7), num_clusters(1000, num_classes=0), num_clusters(20, num_classes=0)
    (7, 10, 3)
    """
    most = max(1, num_records // 2)
    return min(most, num_classes) if num_classes > 1 else min(most, 10, max(2, round((num_records / 2) ** 0.5)))


class Neighbors(NamedTuple):
    """Nearest records by cosine similarity, after subtracting the mean of all, nearest first.

    Attributes:
        rows: Rows of the candidates, int64 (M, K).
        similarity: float32 (M, K).
    """

    rows: Integers
    similarity: Floats


def nearest(queries: Floats, candidates: Floats, count: int, apart: bool = False) -> Neighbors:
    """Return the nearest candidates of each query.

    Args:
        queries: Features, float32 (M, F).
        candidates: Features, float32 (N, F).
        count: Number of candidates, at most N.
        apart: The queries are the candidates themselves: a record is no neighbor of its own.
    """
    mean = unit(candidates).mean(axis=0)
    points, targets = unit(unit(queries) - mean), unit(unit(candidates) - mean)
    count = min(count, len(targets) - apart)
    rows, similarities = [], []
    for start in range(0, len(points), _ROWS):
        similarity = points[start : start + _ROWS] @ targets.T
        if apart:
            similarity[np.arange(len(similarity)), start + np.arange(len(similarity))] = -np.inf
        best = np.argpartition(-similarity, min(count, similarity.shape[1] - 1), axis=1)[:, :count]
        values = np.take_along_axis(similarity, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        rows.append(np.take_along_axis(best, order, axis=1))
        similarities.append(np.take_along_axis(values, order, axis=1))
    if not rows:
        return Neighbors(np.zeros((0, count), np.int64), np.zeros((0, count), np.float32))
    return Neighbors(np.concatenate(rows), np.concatenate(similarities))


def agreement(features: Floats, labels: Integers) -> Floats:
    """Return the fraction of the nearest neighbors of each labeled record that have its label, float32 (N,).

    Unlabeled records are neighbors of none, and have NaN.
    """
    result = np.full(len(labels), np.nan, np.float32)
    labeled = np.flatnonzero(labels >= 0)
    if len(labeled) > 1:
        found = nearest(features[labeled], features[labeled], NUM_NEIGHBORS, apart=True)
        result[labeled] = (labels[labeled][found.rows] == labels[labeled][:, None]).mean(axis=1)
    return result
