"""The section about test records that nearly repeat a train record."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eztorch_sce.report.duplicates import Pair, near_duplicates
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.samples import TEST, TRAIN
from eztorch_sce.report.section import Section
from eztorch_sce.report.shown import Paths, Shown, shown_networks

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media

_NUM_SHOWN = 48


def duplicates(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return the near duplicates of each set of records, or None if no network has features of both splits."""
    sets: list[dict[str, Any]] = []
    images: dict[str, bytes] = {}
    seen: set[int] = set()
    for network in shown_networks(runs, media):
        splits = set(network.sample.split.tolist())
        if network.set in seen or splits != {TRAIN, TEST}:
            continue
        seen.add(network.set)
        sets.append(_data_of(network))
        images |= network.image_files()
    return Section("duplicates", "Near duplicates between splits", {"sets": sets}, {}, images) if sets else None


def _data_of(network: Shown) -> dict[str, Any]:
    sample = network.sample
    pairs = near_duplicates(sample, network.images)
    names = Paths.of(sample.paths).names

    def side(row: int) -> dict[str, Any]:
        label = int(sample.labels[row])
        return {"path": names[row], "label": sample.classes[label] if label >= 0 else "", "place": network.tile(row)}

    def shown(pair: Pair) -> dict[str, Any]:
        sides = {"test": side(pair.test), "train": side(pair.train)}
        other_label = sample.labels[pair.test] != sample.labels[pair.train]
        return sides | {"similarity": pair.similarity, "is_same": pair.is_same_image, "other_label": bool(other_label)}

    return {
        "name": sample.name,
        "num_test": int((sample.split == TEST).sum()),
        "num_train": int((sample.split == TRAIN).sum()),
        "count": len(pairs),
        "num_same": sum(pair.is_same_image for pair in pairs),
        "pairs": [shown(pair) for pair in pairs[:_NUM_SHOWN]],
    }
