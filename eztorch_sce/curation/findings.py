"""The doctor's judgment of a video, from the facts of its inspection."""

import math
from collections.abc import Collection, Iterator
from itertools import pairwise
from statistics import median

from eztorch_sce.curation.inspection import Inspection

_MAX_GAP_S = 10.0  # no slide show leaves more time between two frames
_INTERVAL_TOLERANCE = 0.2  # relative deviation from the median interval that counts as a variable frame rate
_MAX_UNEVEN = 0.02  # fraction of such intervals that is tolerated


def judge(inspection: Inspection) -> tuple[list[str], bool]:
    """Return the findings about a video, each "kind" or "kind: details", and whether every clip of it can be read."""
    info, findings = inspection.info, []
    if inspection.unreadable:
        kind = "truncated" if "truncated" in inspection.unreadable else "partly unreadable"
        findings.append(f"{kind}: {inspection.unreadable}")
    elif inspection.bytes_missing:
        findings.append(f"truncated: {inspection.bytes_missing} bytes that its index refers to are missing")
    if inspection.complaint:
        findings.append(f"damaged: {inspection.complaint}")
    if inspection.num_parts > 1:
        findings.append(f"joined recordings: {inspection.num_parts}, which are read as one; only data.decoder=pyav can")
    if inspection.second_file_at is not None:
        findings.append(f"joined files: another begins at byte {inspection.second_file_at}, and only the first is read")
    if inspection.num_streams > 1:
        findings.append(f"several video streams: {inspection.num_streams}, of which one is read")
    if not inspection.starts_with_key:
        findings.append("no key frame at the start")
    findings += _findings_about_time(inspection)
    if inspection.rotation:
        findings.append(f"rotated: by {inspection.rotation} for display")
    if inspection.cover:
        findings.append("cover art as first stream" if inspection.cover == "first" else "cover art")
    if inspection.pixel_aspect != 1:
        findings.append(f"non-square pixels: {inspection.pixel_aspect:.3f} times as wide as high")
    if len(inspection.sizes) > 1:
        sizes = ", ".join(f"{width}x{height}" for width, height in inspection.sizes)
        findings.append(f"resolution change: {sizes}")
    if min(info.width, info.height) < 32:
        findings.append(f"tiny: {info.width}x{info.height}")
    return findings, not inspection.unreadable and not inspection.bytes_missing


def _findings_about_time(inspection: Inspection) -> Iterator[str]:
    num_packets, duration_s = inspection.num_packets, inspection.info.duration_s
    if num_packets == 1:
        yield "single frame"
    yield from _findings_about_timestamps([time_s for time_s in inspection.times_s if not math.isnan(time_s)])
    expected_s = num_packets * inspection.interval_s
    if abs(duration_s - expected_s) > 0.05 * expected_s + 3 * inspection.interval_s:
        yield f"duration mismatch: {duration_s:.1f} s, but {num_packets} frames at {inspection.info.fps:.3g} per second"
    if inspection.num_decoded and abs(inspection.num_decoded - num_packets) > 1:
        yield f"frame count mismatch: {inspection.num_decoded} frames decoded from {num_packets} packets"


def _findings_about_timestamps(times_s: Collection[float]) -> Iterator[str]:
    ordered = sorted(times_s)
    num_duplicates = len(ordered) - len(set(ordered))
    if num_duplicates:
        yield f"duplicate timestamps: {num_duplicates} of {len(ordered)} frames"
    intervals_s = [later - earlier for earlier, later in pairwise(ordered)]
    if intervals_s and max(intervals_s) > _MAX_GAP_S:
        yield f"timestamp gap: {max(intervals_s):.1f} s"
    elif len(intervals_s) > 2:
        usual_s = median(intervals_s)
        num_uneven = sum(abs(interval_s - usual_s) > _INTERVAL_TOLERANCE * usual_s for interval_s in intervals_s)
        if num_uneven / len(intervals_s) > _MAX_UNEVEN:
            yield f"variable frame rate: {num_uneven / len(intervals_s):.0%} of the frames"
