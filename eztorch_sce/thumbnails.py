"""Images of the records that a page shows, decoded from the data of the run, which are opened again."""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.dataset import EvaluationSampling
from eztorch_sce.data.loading import evaluation_loader
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.errors import ConfigError, LoadingError, SourceError
from eztorch_sce.files import replacing
from eztorch_sce.progress import print_above, track
from eztorch_sce.report.media import (
    STRIP_FRAMES,
    STRIP_PX,
    TILE_PX,
    AtlasWriter,
    Images,
    Media,
    Pixels,
    RecordKey,
    encode_strips,
)
from eztorch_sce.report.projection import check_tsne, tsne
from eztorch_sce.report.retrieved import retrieved
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.samples import TEST, Sample, keys_of, samples_of, samples_of_run
from eztorch_sce.run_records import OpenedRecords, extracted_samples, open_records
from eztorch_sce.types import InputSpec

_VERSION = 1  # of the images: a change of how they are made makes cached ones again
_NOT_CACHED = "images are made by `eztorch-sce report`, which opens the data"
_TRIED = 8  # paths that may tell where a folder has moved
_MAX_STRIPS, _STRIP_BYTES = 480, 4_500_000  # of a page: 6 MB in base64
_CROP = 7 / 8  # side of the crop over the short side, as in `InputSpec.test_short_side`


def prepare_media(runs: Sequence[RunFiles], overrides: Sequence[str] = (), projection: str = "pca") -> Media:
    """Return what a page of some runs shows of their records: features, images and coordinates.

    Args:
        runs: The runs of the page.
        overrides: Settings that replace those of the runs, such as `data.root=...`.
        projection: "pca", or "tsne" to have a map by t-SNE as well.

    Raises:
        ConfigError: If the projection needs a package that is not installed.
    """
    if projection == "tsne":
        check_tsne()
    samples = []
    for run in runs:
        name_of = run.name if len(runs) > 1 else ""
        samples += samples_of_run(run, name_of) or extracted_samples(run, overrides, name_of)
    groups = _by_records(samples)
    share = 1 / max(1, len(groups))  # of the size of the page
    images: dict[int, Images] = {}
    for group in groups:
        wanted = _to_animate(group, _MAX_STRIPS)
        shared = images_of(group[0], wanted, overrides, _STRIP_BYTES).with_strips(round(_STRIP_BYTES * share))
        images |= {id(sample): shared for sample in group}
    coordinates = [_coordinates(sample, projection) for sample in samples]
    return Media(samples, [images[id(sample)] for sample in samples], coordinates)


def cached_media(runs: Sequence[RunFiles]) -> Media:
    """Return what is left of `prepare_media` from earlier pages: nothing is decoded or computed."""
    samples = samples_of(runs)
    groups, images = _by_records(samples), dict[int, Images]()
    budget = round(_STRIP_BYTES / max(1, len(groups)))
    for group in groups:
        stored = (Images.load(_images_file(sample), _records_key(sample)) for sample in group)
        found = next((each for each in stored if each is not None), Images(len(group[0]), note=_NOT_CACHED))
        images |= {id(sample): found.with_strips(budget) for sample in group}
    coordinates = [{"t-SNE": np.load(file)} if (file := _tsne_file(sample)).is_file() else {} for sample in samples]
    return Media(samples, [images[id(sample)] for sample in samples], coordinates)


def _by_records(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Return the samples in groups that show the same records."""
    groups: dict[Any, list[Sample]] = {}
    for sample in samples:
        groups.setdefault((tuple(_keys(sample.paths, sample.segments)), tuple(keys_of(sample))), []).append(sample)
    return list(groups.values())


def _to_animate(samples: Sequence[Sample], most: int) -> list[RecordKey]:
    """Return the records that the gallery of each network shows first, at most `most` of all."""
    chosen: dict[RecordKey, None] = {}
    for sample in samples:
        if (found := retrieved(sample, {})) is not None:
            chosen |= dict.fromkeys(found.records_to_animate(most // len(samples)))
    return list(chosen)


def _coordinates(sample: Sample, projection: str) -> dict[str, npt.NDArray[np.float32]]:
    """Return the coordinates by t-SNE, from the cache of the run or computed, if they are wanted."""
    if projection != "tsne":
        return {}
    file = _tsne_file(sample)
    if file.is_file():
        return {"t-SNE": np.load(file)}
    for points in track([sample.features], 1, f"t-SNE of {len(sample)} records"):
        coordinates = tsne(points)
    try:
        file.parent.mkdir(exist_ok=True)
        with replacing(file) as partial, partial.open("wb") as stream:
            np.save(stream, coordinates)
    except OSError:
        pass  # a run that may only be read: computed again next time
    return {"t-SNE": coordinates}


def _tsne_file(sample: Sample) -> Path:
    key = hashlib.sha256(sample.features.tobytes()).hexdigest()[:16]
    return sample.run.directory / "report" / f"tsne-{key}.npy"


def _images_file(sample: Sample) -> Path:
    return sample.run.directory / "report" / "images.zip"


def images_of(sample: Sample, wanted: Sequence[RecordKey], overrides: Sequence[str], budget: int) -> Images:
    """Return the images of a sample, from the cache of its run or else decoded from the data.

    Tile k shows the record of row k, whatever has happened to the order of the data since. The cache holds wherever the
    data were when it was made, so a place that was named once need not be named again. If the data are gone or are
    Python objects, the result is what an earlier page has shown, or has no images and says why.

    Args:
        sample: The records.
        wanted: Records to make animation strips of, the most important first.
        overrides: Settings that replace those of the run, such as `data.root=...`.
        budget: Bytes of all strips.
    """
    key = _cache_key(sample, wanted, budget)
    file = _images_file(sample)
    cached = Images.load(file, key)
    if cached is not None and not (overrides and cached.unreadable):  # the records may be where the user says now
        return cached
    try:
        opened = open_records(sample.run, overrides)
        images = _decode(sample, wanted, opened, budget)
    except (ConfigError, LoadingError, SourceError) as error:
        if (earlier := Images.load(file, _records_key(sample))) is not None:
            return earlier
        reason = error.problems[0] if isinstance(error, ConfigError) else str(error)
        return Images(len(sample), note=reason)
    if len(images.unreadable) < len(sample):  # otherwise a disk may be missing for now
        try:
            file.parent.mkdir(exist_ok=True)
            images.save(file, key)
        except OSError as error:
            print_above(f"note: {file} cannot be written ({error.strerror}): images will be decoded again next time")
    return images


def _cache_key(sample: Sample, wanted: Sequence[RecordKey], budget: int) -> str:
    """Return digests of what images are made from, first of the records."""
    settings = sample.run.config.get("data", {})
    return f"{_records_key(sample)} {_digest_of([list(wanted), settings, budget])}"


def _records_key(sample: Sample) -> str:
    """Return a digest of the records of a sample."""
    return _digest_of([_keys(sample.paths, sample.segments), list(keys_of(sample)), _VERSION])


def _digest_of(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode(errors="surrogateescape")).hexdigest()


def _decode(sample: Sample, wanted: Sequence[RecordKey], opened: OpenedRecords, budget: int) -> Images:
    """Decode the tiles of a sample and the strips of some records."""
    everything, num_train = _joined(opened.splits), len(opened.splits.train.records)
    rows = matching_rows(sample, everything.records, num_train)
    if (rows < 0).all():
        raise ConfigError([f"none of the records is in {everything.source}: set data.root to where they are now"])
    images = Images(len(sample), digests=np.zeros(len(sample), np.uint64))
    images.unreadable = {row: "not in the data any more" for row in np.flatnonzero(rows < 0).tolist()}
    shown = np.flatnonzero(rows >= 0)
    manifest = everything.with_records(everything.records.take(rows[shown]), everything.source)
    atlas = AtlasWriter(len(sample))
    tiles = _frames_of(opened, manifest, replace(opened.spec, num_frames=1, size=TILE_PX), "thumbnails")
    for number, frames, reason in tiles:
        row = int(shown[number])
        if frames is None:
            images.unreadable[row] = reason
            continue
        atlas.put(row, frames[0])
        images.digests[row] = _digest(frames[0])
    images.atlases = atlas.encode()

    matched = dict(zip(keys_of(sample), rows.tolist(), strict=True))
    is_same_order = bool((rows == _rows_as_listed(sample, num_train)).all())
    places = {}
    for key in wanted:  # records outside of the sample are known by their rows alone
        row = matched.get(key, key[1] + num_train * key[0] if is_same_order else -1)
        if 0 <= row < len(everything.records):
            places[key] = row
    labels = everything.records.labels
    images.labels = {key: int(labels[row]) for key, row in places.items() if key not in matched}
    images.strips = encode_strips(_strips(opened, everything, places), budget)
    return images


def _strips(opened: OpenedRecords, everything: Manifest, places: dict[RecordKey, int]) -> dict[RecordKey, Pixels]:
    """Return the frames of some records, uint8 (T, 96, 96, 3), in their order; without unreadable ones."""
    if not places:
        return {}
    keys = list(places)
    manifest = everything.with_records(everything.records.take(list(places.values())), everything.source)
    spec, num_frames = opened.spec, 1 if manifest.records.all_images() else STRIP_FRAMES
    stride = None if spec.frame_stride is None else max(1, round(spec.num_frames * spec.frame_stride / num_frames))
    strip = replace(spec, num_frames=num_frames, frame_stride=stride, size=STRIP_PX)
    decoded = _frames_of(opened, manifest, strip, "animations")
    frames = {keys[number]: pixels for number, pixels, _ in decoded if pixels is not None}
    return {key: frames[key] for key in keys if key in frames}


def _frames_of(
    opened: OpenedRecords, manifest: Manifest, spec: InputSpec, title: str
) -> Iterator[tuple[int, Pixels | None, str]]:
    """Yield the number of each record and the frames of its middle clip, uint8 (T, S, S, 3), or why there are none."""
    if not len(manifest.records):
        return
    sampling = EvaluationSampling(num_clips=1, num_crops=1, short_side=round(spec.size / _CROP))
    loader = evaluation_loader(opened.data, manifest, spec, sampling)
    for batch in track(loader, len(loader), f"{title}, batches"):
        for failure in batch.failures:
            yield failure.record, None, failure.reason
        if batch.frames:
            clips = batch.frames[0].permute(0, 2, 3, 4, 1).contiguous().numpy()  # (B, T, S, S, C)
            yield from ((number, clip, "") for number, clip in zip(batch.record.tolist(), clips, strict=True))


def _digest(pixels: Pixels) -> int:
    content = hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=8).digest()
    return int.from_bytes(content, "little") | 1  # never 0


def _joined(splits: Splits) -> Manifest:
    """Return the records of both splits, the train split first."""
    if splits.test is None:
        return splits.train
    records = Records.concatenate([splits.train.records, splits.test.records])
    return splits.train.with_records(records, splits.train.source)


def matching_rows(sample: Sample, records: Records, num_train: int) -> npt.NDArray[np.int64]:
    """Return the row of each record of a sample, int64 (N,), or -1 if it is gone.

    A record is where it was if its path and segment are still there, apart from a folder that all paths share, which
    may have moved. Otherwise it is looked up by both, which must then be those of one record only.

    Args:
        sample: The sample.
        records: Records of both splits, the train split first.
        num_train: Number of train records.
    """
    as_listed = _rows_as_listed(sample, num_train)
    then = _keys(sample.paths, sample.segments)
    if (as_listed < len(records)).all():
        there = records.take(as_listed)
        if _keys(list(there.paths()), None if sample.segments is None else there.segments) == then:
            return as_listed
    paths = list(records.paths())
    now = _keys(paths, None if sample.segments is None else records.segments)
    counts = Counter(now)
    row_of = {key: row for row, key in enumerate(now)}
    old, new = _moved(sample.paths, paths)
    rows = np.full(len(sample), -1, np.int64)
    for number, ((path, *segment), row) in enumerate(zip(then, as_listed.tolist(), strict=True)):
        key = (new + path[len(old) :] if path.startswith(old) else path, *segment)
        if row < len(now) and now[row] == key:
            rows[number] = row
        elif counts[key] == 1:
            rows[number] = row_of[key]
    return rows


def _keys(paths: Sequence[str], segments: npt.NDArray[np.float64] | None) -> list[tuple[Any, ...]]:
    """Return what tells records apart: their paths, with their segments if they have some."""
    if segments is None:
        return [(path, None, None) for path in paths]
    ends = [[None if math.isnan(each) else each for each in segment] for segment in segments.tolist()]
    return [(path, start, end) for path, (start, end) in zip(paths, ends, strict=True)]


def _rows_as_listed(sample: Sample, num_train: int) -> npt.NDArray[np.int64]:
    """Return the row of each record in both splits joined, if the data are as they were."""
    return sample.index + np.where(sample.split == TEST, num_train, 0)


def _moved(before: Sequence[str], now: Sequence[str]) -> tuple[str, str]:
    """Return the beginning of the paths before and now that differs because their folder has moved.

    >>> _moved(["/a/x/1.mp4", "/a/y/1.mp4"], ["/b/c/x/1.mp4", "/b/c/y/1.mp4"])
    ('/a/', '/b/c/')
    """
    by_name: dict[str, list[str]] = {}
    for path in now:
        by_name.setdefault(os.path.basename(path), []).append(path)
    known = set(now)
    best, most = ("", ""), sum(path in known for path in before)
    for path in before[:: max(1, len(before) // _TRIED)]:
        twins = by_name.get(os.path.basename(path), [])
        if not twins:
            continue
        tails = [_common_tail(path, twin) for twin in twins]
        tail, twin = max(zip(tails, twins, strict=True), key=lambda pair: len(pair[0]))
        old, new = path.removesuffix(tail), twin.removesuffix(tail)
        hits = sum(each.startswith(old) and new + each[len(old) :] in known for each in before)
        if hits > most:
            best, most = (old, new), hits
    return best


def _common_tail(first: str, second: str) -> str:
    """Return the parts that two paths end with alike.

    >>> _common_tail("/a/x/1.mp4", "/b/x/1.mp4")
    'x/1.mp4'
    """
    parts = zip(reversed(first.split("/")), reversed(second.split("/")), strict=False)
    alike = [part for part, _ in takewhile(lambda pair: pair[0] == pair[1], parts)]
    return "/".join(reversed(alike))
