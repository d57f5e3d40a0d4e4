"""Near duplicates: test records whose features are nearly those of a train record."""

from typing import NamedTuple

import numpy as np

from eztorch_sce.report.media import Images
from eztorch_sce.report.projection import nearest
from eztorch_sce.report.samples import TEST, TRAIN, Sample

# On 60 pairs of CIFAR-10 that agree in their pixels and 2100 other images, a network after two epochs finds 11 of the
# pairs at these values and nothing else, and no pair of the hand gestures, whose videos all differ.
MIN_SIMILARITY = 0.97
"""Least cosine similarity of near duplicates, after subtracting the mean of the train records."""
MAX_RATIO = 0.3
"""Largest ratio of the distance (1 - similarity) of the nearest train record to that of the fifth nearest."""
_EQUAL = 0.9995  # similarity of copies: there may be several, so that the fifth is no farther
_SAME_IMAGE = 0.9  # least similarity where thumbnails are equal: dark ones are equal by chance
_RANK = 5


class Pair(NamedTuple):
    """A test record and the train record that it may repeat.

    Attributes:
        test: Row of the sample.
        train: Row of the sample.
        similarity: Cosine similarity of their features, after subtracting the mean of the train records.
        is_same_image: Whether their thumbnails are equal in every pixel.
    """

    test: int
    train: int
    similarity: float
    is_same_image: bool


def near_duplicates(sample: Sample, images: Images) -> list[Pair]:
    """Return the test records of a sample that nearly repeat a train record, equal images first, then by similarity."""
    tests, trains = np.flatnonzero(sample.split == TEST), np.flatnonzero(sample.split == TRAIN)
    if not len(tests) or len(trains) < 2:
        return []
    found = nearest(sample.features[tests], sample.features[trains], _RANK)
    digests = images.digests if len(images.digests) == len(sample) else np.zeros(len(sample), np.uint64)
    pairs = []
    for test, near, similarity in zip(tests.tolist(), trains[found.rows].tolist(), found.similarity, strict=True):
        equal = [place for place, row in enumerate(near) if digests[row] and digests[row] == digests[test]]
        place = equal[0] if equal else 0
        ratio = (1 - similarity[0]) / max(1e-9, 1 - float(similarity[-1]))
        is_near = similarity[0] >= _EQUAL or (similarity[0] >= MIN_SIMILARITY and ratio <= MAX_RATIO)
        if is_near or (equal and similarity[place] >= _SAME_IMAGE):
            pairs.append(Pair(test, near[place], float(similarity[place]), bool(equal)))
    return sorted(pairs, key=lambda pair: (not pair.is_same_image, -pair.similarity))
