"""Tests of the geometry of features for the map."""

import numpy as np
import pytest

from eztorch_sce.report.projection import agreement, kmeans, nearest, pca, unit

DRAW = np.random.default_rng(0)
CENTERS = np.eye(3, 16, dtype=np.float32)
GROUPS = np.repeat(np.arange(3), [30, 20, 10])
FEATURES = (CENTERS[GROUPS] + 0.05 * DRAW.normal(size=(60, 16))).astype(np.float32)


def test_pca_finds_the_directions_of_largest_variance() -> None:
    plane = pca(FEATURES)
    centered = unit(FEATURES) - unit(FEATURES).mean(axis=0)
    singular = np.linalg.svd(centered, compute_uv=False)
    assert (plane.points**2).sum(axis=0) == pytest.approx(singular[:2] ** 2, rel=1e-4)
    assert 0.9 < plane.explained <= 1


@pytest.mark.parametrize(
    "features", [np.ones((5, 4), np.float32), np.ones((2, 1), np.float32), np.zeros((9, 3), np.float32)]
)
def test_equal_features_have_one_place_on_the_map(features: np.ndarray) -> None:
    plane = pca(features)
    assert plane.points.shape == (len(features), 2)
    assert (plane.points == 0).all()
    assert set(kmeans(features, 3)) == {0}


def test_kmeans_finds_groups_that_lie_apart_and_numbers_the_largest_first() -> None:
    order = DRAW.permutation(60)
    assert (kmeans(FEATURES[order], 3) == GROUPS[order]).all()


def test_nearest_records_are_in_the_same_group_and_never_the_record_itself() -> None:
    found = nearest(FEATURES, FEATURES, 5, apart=True)
    assert (GROUPS[found.rows] == GROUPS[:, None]).all()
    assert (found.rows != np.arange(60)[:, None]).all()
    assert (np.diff(found.similarity, axis=1) <= 0).all()


def test_neighbors_agree_in_a_class_and_unlabeled_records_have_no_agreement() -> None:
    labels = np.where(np.arange(60) % 10 == 0, -1, GROUPS)
    labels[GROUPS == 2] = np.arange(10) % 2  # half of a group in each of two other classes
    same = agreement(FEATURES, labels)
    assert np.isnan(same[labels < 0]).all()
    assert same[(labels == 0) & (GROUPS == 0)] == pytest.approx(1)
    assert np.nanmean(same[GROUPS == 2]) < 0.6
