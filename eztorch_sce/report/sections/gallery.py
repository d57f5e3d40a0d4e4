"""The section with queries and their nearest train records, as small animations."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from eztorch_sce.report.media import num_frames
from eztorch_sce.report.retrieved import NUM_SHOWN, Retrieved, retrieved
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.samples import TEST
from eztorch_sce.report.section import Section
from eztorch_sce.report.shown import Paths, Shown, shown_networks

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media


def gallery(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return the galleries of the networks of the runs, or None if there are no features."""
    columns: dict[str, npt.NDArray[np.generic]] = {}
    images: dict[str, bytes] = {}
    galleries: list[dict[str, Any]] = []
    for network in shown_networks(runs, media):
        found = retrieved(network.sample, network.images.labels)
        if found is None:
            continue
        number = len(galleries)
        data, of_gallery = _gallery_of(network, found)
        galleries.append(data | {"number": number})
        columns |= {f"gallery-{number}-{name}": values for name, values in of_gallery.items()}
        images |= network.image_files()
        images |= {str(network.strip_name(key)): strip for key, strip in network.images.strips.items()}
    if not galleries:
        return None
    return Section("gallery", "Nearest neighbors", {"galleries": galleries}, columns, images)


def _gallery_of(network: Shown, found: Retrieved) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.generic]]]:
    """Return the data and the columns of a gallery: queries and neighbors are numbers of records that occur."""
    keys = list(dict.fromkeys(key for query in found.queries for key in (query.key, *query.nearest)))
    number_of = {key: number for number, key in enumerate(keys)}
    rows = network.sample.rows_by_key()
    near = np.full((len(found.queries), NUM_SHOWN), -1, np.int32)
    for place, query in enumerate(found.queries):
        near[place, : len(query.nearest)] = [number_of[key] for key in query.nearest]
    tiles = [rows[key] if key in rows and network.images.has_tile(rows[key]) else -1 for key in keys]
    columns: dict[str, npt.NDArray[np.generic]] = {
        "query": np.array([number_of[query.key] for query in found.queries], np.int32),
        "near": near.ravel(),
        "label": np.array([found.labels[key] for key in keys], np.int16),
        "tile": np.array(tiles, np.int32),
        "split": np.array([split for split, _ in keys], np.uint8),
        "row": np.array([row for _, row in keys], np.int32),
        "strip": np.array([key in network.images.strips for key in keys], np.uint8),
    }
    hits = [hit for hit in map(found.is_hit, found.queries) if hit is not None]
    data = {
        "name": network.sample.name,
        "set": network.set,
        "classes": list(network.sample.classes),
        "paths": Paths.of(found.paths[key] for key in keys).data(),
        "num_shown": NUM_SHOWN,
        "origin": found.origin,
        "has_test": any(query.key[0] == TEST for query in found.queries),
        "num_queries": len(found.queries),
        "hits": sum(hits) / len(hits) if hits else None,
        "moves": any(num_frames(strip) > 1 for strip in network.images.strips.values()),
        "note": network.images.note,
    }
    return data, columns
