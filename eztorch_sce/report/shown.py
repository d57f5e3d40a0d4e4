"""The networks whose records a page shows, with the names under which its scripts find images."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eztorch_sce.report.media import Images, Media, RecordKey
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.samples import Sample, samples_of

_PREDICTING = ("linear", "finetune", "test", "svm", "knn", "few-shot")
_SEARCHING = ("retrieve", "knn")


class Shown(NamedTuple):
    """A network of a page.

    Attributes:
        sample: Records with their features.
        images: Their images.
        set: Number of the images: networks with the same records share them.
        coordinates: Further coordinates, float32 (N, 2), by name.
    """

    sample: Sample
    images: Images
    set: int
    coordinates: dict[str, npt.NDArray[np.float32]]

    def image_files(self) -> dict[str, bytes]:
        """Return the atlases by the names that scripts ask for."""
        return {f"tiles-{self.set}-{number}": atlas for number, atlas in enumerate(self.images.atlases)}

    def strip_name(self, key: RecordKey) -> str | None:
        """Return the name of the strip of a record, or None if it has none."""
        return f"strip-{self.set}-{key[0]}-{key[1]}" if key in self.images.strips else None

    def tile(self, row: int | None) -> dict[str, int] | None:
        """Return what a script needs to draw the tile of a row of the sample, or None if there is none."""
        return {"set": self.set, "tile": row} if row is not None and self.images.has_tile(row) else None


def shown_networks(runs: Sequence[RunFiles], media: Media | None) -> list[Shown]:
    """Return the networks that a page of some runs shows; without images if `media` is None."""
    if media is None:
        samples = samples_of(runs)
        return [Shown(sample, Images(len(sample)), number, {}) for number, sample in enumerate(samples)]
    sets: dict[int, int] = {}
    return [
        Shown(sample, images, sets.setdefault(id(images), len(sets)), coordinates)
        for sample, images, coordinates in zip(media.samples, media.images, media.coordinates, strict=True)
    ]


def predicting(sample: Sample) -> list[RunFiles]:
    """Return the evaluations of a network that predicted classes, those with trained classifiers first.

    Retrieval predicts the class of the one nearest record, and counts only if nothing else has predicted classes.
    """
    runs = [run for run in sample.evaluations if any(row.get("prediction") for row in run.predictions)]
    classifying = [run for run in runs if run.command != "retrieve"]
    return sorted(classifying or runs, key=lambda run: _place(run, _PREDICTING))


def searching(sample: Sample) -> RunFiles | None:
    """Return the evaluation of a network whose predictions name the nearest train records, or None."""
    runs = [run for run in sample.evaluations if any("nearest_index_1" in row for row in run.predictions)]
    return min(runs, key=lambda run: _place(run, _SEARCHING)) if runs else None


def _place(run: RunFiles, order: Sequence[str]) -> int:
    return order.index(run.command) if run.command in order else len(order)


class Paths(NamedTuple):
    """Paths without the folder that all of them are in.

    Attributes:
        folder: The folder, with a slash at its end; empty if they share none.
        names: The rest of each path.
    """

    folder: str
    names: list[str]

    @classmethod
    def of(cls, paths: Iterable[str]) -> "Paths":
        """Return the paths, divided.

        >>> Paths.of(["/data/a/1.mp4", "/data/b/2.mp4"])
        Paths(folder='/data/', names=['a/1.mp4', 'b/2.mp4'])
        """
        paths = list(paths)
        folders = {os.path.dirname(path) for path in paths}
        common = os.path.commonpath(folders) if len({os.path.isabs(each) for each in folders}) == 1 else ""
        folder = os.path.join(common, "") if common else ""
        return cls(folder, [path[len(folder) :] for path in paths])

    def data(self) -> dict[str, Any]:
        """Return the paths for a script."""
        return {"folder": self.folder, "names": self.names}
