"""MPEG streams joined with `cat`, whose timestamps start again at each joint.

FFmpeg measures the duration of such a file by its last timestamp, and frames after a joint would count as stray. Here
the packets after each joint are shifted to follow those before it.
"""

import io
import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from eztorch_sce.data.members import is_member, read_member

if TYPE_CHECKING:
    from eztorch_sce.data.decoders.pyav.stream import VideoPacket

_NUM_LOOKS, _LOOK = 24, 1 << 16  # places and bytes per place to look at in a large file
_TICKS_PER_S = 90_000  # of MPEG
_JUMP_S = 0.2  # timestamps in storage order go back this far only at a joint; a B-frame reorders less
_REORDER_S = 0.7  # clocks of streams may differ so much, and B-frames reorder timestamps
# What precedes a clock of 33 bits: in a transport stream, the header of a video packet with a presentation timestamp;
# in a program stream, the header of a pack.
_BEFORE_CLOCK = {
    "mpegts": re.compile(rb"\x00\x00\x01[\xe0-\xef]..[\x80-\xbf][\x80-\xff].(.{5})", re.DOTALL),
    "mpeg": re.compile(rb"\x00\x00\x01\xba(.{5})", re.DOTALL),
}


def may_be_joined(container_format: str, path: str) -> bool:
    """Return whether timestamps go back somewhere in a file, judged by the whole of a small file, by places in a large.

    Args:
        container_format: FFmpeg's name of the format.
        path: The file, or a member of a tar shard.
    """
    before_clock = _BEFORE_CLOCK.get(container_format)
    if before_clock is None:
        return False
    with io.BytesIO(read_member(path)) if is_member(path) else open(path, "rb") as file:
        num_bytes = file.seek(0, os.SEEK_END)
        step = max(_LOOK, (num_bytes - _LOOK) // (_NUM_LOOKS - 1))
        stamps: list[int] = []
        for start in range(0, num_bytes, step):
            file.seek(start)
            block = file.read(_LOOK)
            stamps += [_clock(match[1]) for match in before_clock.finditer(block)]
    return any(later < earlier - _REORDER_S * _TICKS_PER_S for earlier, later in pairwise(stamps))


def joints(stamps: Sequence[tuple[int | None, int]], tick_s: float, interval_s: float) -> dict[int, int]:
    """Return how many ticks to add to the timestamps of the packets from each joint on, by number of the packet.

    A single packet whose timestamp is too early or too late is damage, not a joint.

    Args:
        stamps: Decoding timestamp and duration of each packet in storage order, in ticks.
        tick_s: Seconds per tick.
        interval_s: Time between frames, for packets without a duration.
    """
    known = [(number, dts, duration) for number, (dts, duration) in enumerate(stamps) if dts is not None]
    shifts: dict[int, int] = {}
    shift = 0
    jump = _JUMP_S / tick_s
    for place, ((_, dts, duration), (number, next_dts, _)) in enumerate(pairwise(known)):
        before_dts = known[max(0, place - 1)][1]
        after_dts = known[min(place + 2, len(known) - 1)][1]
        if next_dts < min(before_dts, dts) - jump and after_dts < dts:
            shift += dts + (duration or round(interval_s / tick_s)) - next_dts
            shifts[number] = shift
    return shifts


def shifted(packets: "Iterator[VideoPacket]", shifts: dict[int, int]) -> "Iterator[VideoPacket]":
    """Yield the packets of a whole file with the shifts that `joints` returned added to their timestamps."""
    shift = 0
    for number, packet in enumerate(packets):
        shift = shifts.get(number, shift)
        if packet.dts is not None:
            packet.dts += shift
        if packet.pts is not None:
            packet.pts += shift
        yield packet


def _clock(field: bytes) -> int:
    """Return the clock of 33 bits that a field of 5 bytes stores, in the layout of MPEG-1 or of packs of MPEG-2."""
    a, b, c, d, e = field
    if a >> 6 == 1:
        return (a >> 3 & 7) << 30 | (a & 3) << 28 | b << 20 | c >> 3 << 15 | (c & 3) << 13 | d << 5 | e >> 3
    return (a >> 1 & 7) << 30 | b << 22 | c >> 1 << 15 | d << 7 | e >> 1
