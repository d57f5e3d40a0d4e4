"""Selection of frames: which frame is shown at each requested time, and which packets must be decoded for it.

The requested times are split into runs at key frames, so that frames between two runs are never decoded. Within a run:

1. For H.264, the packets are read before any is decoded. Their timestamps tell which frame is shown at each time. The
   decoder can then skip frames that are neither requested nor referred to by others, and stop after the last requested
   one.
2. If the packets do not tell, or decoding does not return the expected frames, every remaining frame of the run is
   decoded.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from eztorch_sce.data.decoders.base import LONG_HOLD_S, SNAP_S, ends_early, grace_s, shown_at
from eztorch_sce.data.decoders.pyav.stream import TimedFrame, VideoFile
from eztorch_sce.errors import MediaError

if TYPE_CHECKING:
    from eztorch_sce.data.decoders.pyav.stream import VideoPacket

# Codecs whose standard forbids any reference to frames that the stream marks as unreferenced (nal_ref_idc = 0). HEVC
# only forbids it to frames of the same temporal layer.
_MARK_UNREFERENCED = frozenset({"h264"})

Timed = TypeVar("Timed", bound=tuple[float, object])


class _Window(NamedTuple):
    """The packets of all frames that may be shown during a run.

    Attributes:
        packets: Packets in decoding order, the first of them a key frame or the start of the file.
        stamps: The pts of each packet.
        at_end: Whether the file ends after them.
    """

    packets: "list[VideoPacket]"
    stamps: list[int]
    at_end: bool


class _Plan(NamedTuple):
    """The packets to decode for a run, and the frames to take from them.

    Attributes:
        packets: Packets in decoding order, up to the last one that shows a requested time.
        requested: Requested times, by the pts of the frame that is shown then; both ascending.
    """

    packets: "list[VideoPacket]"
    requested: dict[int, list[float]]


def frames_at(video: VideoFile, times_s: list[float]) -> Iterator[tuple[float, TimedFrame]]:
    """Yield each of the ascending requested times with the frame that is shown then.

    Raises:
        MediaError: If no frame can be decoded, or none is on screen at a requested time.
    """
    for run in _split_into_runs(video, times_s):
        num_decoded = 0
        if video.codec in _MARK_UNREFERENCED and video.has_pts:
            for time_and_frame in _decode_selected(video, run):
                yield time_and_frame
                num_decoded += 1
        if num_decoded < len(run):
            yield from _decode_all(video, run[num_decoded:])


def _split_into_runs(video: VideoFile, times_s: list[float]) -> list[list[float]]:
    runs: list[list[float]] = []
    for time_s in times_s:
        if not runs or video.seeking_skips(runs[-1][-1], time_s):
            runs.append([time_s])
        else:
            runs[-1].append(time_s)
    return runs


def _decode_selected(video: VideoFile, run: list[float]) -> Iterator[tuple[float, TimedFrame]]:
    """Yield the same as `_decode_all`, but skip unneeded frames; stop at the first sign that the plan is wrong."""
    import av

    plan = _plan(video, run)
    if plan is None:
        return
    context = video.stream.codec_context
    previous_pts = -float("inf")
    remaining = list(plan.requested)
    try:
        for packet in chain(plan.packets, [None]):  # None flushes the frames that the decoder still holds back
            context.skip_frame = "DEFAULT" if packet is None or packet.pts in plan.requested else "NONREF"
            for frame in context.decode(packet):
                if frame.is_corrupt or frame.pts is None or frame.pts <= previous_pts:
                    return
                previous_pts = frame.pts
                if remaining and frame.pts == remaining[0]:
                    remaining.pop(0)
                    shown = TimedFrame(video.seconds(frame.pts), frame)
                    for time_s in plan.requested[frame.pts]:
                        yield time_s, shown
    except av.FFmpegError:
        return
    finally:
        context.skip_frame = "DEFAULT"


def _plan(video: VideoFile, run: list[float]) -> _Plan | None:
    """Return the packets to decode for a run, or None if the packets alone do not determine them.

    The plan ends before the first time for which only decoded frames can tell whether anything is on screen.
    """
    window = _window(video, run)
    if window is None or len(set(window.stamps)) < len(window.stamps):
        return None
    # Frames shown before the first key frame, though stored after it, refer to frames that the seek skipped.
    shown = {
        pts: packet
        for pts, packet in zip(window.stamps, window.packets, strict=True)
        if pts >= window.stamps[0] and not packet.is_discard
    }
    stamps = sorted(shown)
    times_s = [video.seconds(pts) for pts in stamps]
    if any(later_s - earlier_s > LONG_HOLD_S for earlier_s, later_s in pairwise(times_s)):
        return None

    requested: dict[int, list[float]] = {}
    for time_s in run:
        place = shown_at(times_s, time_s)
        pts, shown_s = stamps[place], times_s[place]
        end_s = shown_s + ((shown[pts].duration or 0) * video.tick_s or video.interval_s)
        is_last = window.at_end and place == len(stamps) - 1
        longest_s = grace_s(video.interval_s) if is_last else LONG_HOLD_S
        if not shown_s - SNAP_S <= time_s <= end_s + longest_s:
            break
        requested.setdefault(pts, []).append(time_s)
    if not requested:
        return None
    last = max(number for number, pts in enumerate(window.stamps) if pts in requested)
    return _Plan(window.packets[: last + 1], requested)


def _window(video: VideoFile, run: list[float]) -> _Window | None:
    """Return the packets of all frames that may be shown during a run, or None if one of them has no pts."""
    for sought in video.seek_before(run[0]):
        packets, at_end = _packets_until(video, run[-1], sought)
        stamps = [packet.pts for packet in packets if packet.pts is not None]
        is_complete = bool(packets) and len(stamps) == len(packets)
        if is_complete and (not sought or video.seconds(stamps[0]) <= run[0] + SNAP_S):
            return _Window(packets, stamps, at_end)
    return None


def _packets_until(video: VideoFile, time_s: float, sought: bool) -> "tuple[list[VideoPacket], bool]":
    """Return the packets of all frames shown until a time, and whether the file ends with them.

    After a seek, packets before the first key frame are left out.
    """
    packets: list[VideoPacket] = []
    for packet in video.packets():
        if packet.size == 0:
            continue  # the end of the file
        if sought and not packets and not packet.is_keyframe:
            continue
        packets.append(packet)
        if packet.dts is not None and video.seconds(packet.dts) > time_s + SNAP_S:
            return packets, False  # no frame is shown before it is decoded, so all later ones are shown after `time_s`
    return packets, True


def _decode_all(video: VideoFile, run: list[float]) -> Iterator[tuple[float, TimedFrame]]:
    """Yield each time of a run with the frame that is shown then, decoding every frame from a key frame on.

    Raises:
        MediaError: If no frame can be decoded, or none is on screen at a requested time.
    """
    pending = iter(run)
    time_s = next(pending)
    current: TimedFrame | None = None
    for following in drop_stray_timestamps(video.frames_from(run[0])):
        while current is not None and time_s < following.time_s - SNAP_S:
            _check_start(video, time_s, current)
            video.check_hold(time_s, video.end_s(current))
            yield time_s, current
            next_time_s = next(pending, None)
            if next_time_s is None:
                return
            time_s = next_time_s
        current = following
    if current is None:
        raise video.no_frame_error()
    for late_s in chain([time_s], pending):
        _check_start(video, late_s, current)
        end_s = video.end_s(current)
        if late_s > end_s + grace_s(video.interval_s):
            raise ends_early(video.path, late_s, end_s, video.duration_s())
        yield late_s, current


def _check_start(video: VideoFile, time_s: float, first: TimedFrame) -> None:
    if first.time_s > time_s + grace_s(video.interval_s):
        raise MediaError(video.path, f"has no frame before {first.time_s:.2f} s: its beginning is damaged")


def drop_stray_timestamps(frames: Iterable[Timed]) -> Iterator[Timed]:
    """Drop frames whose timestamp goes backward, or jumps forward and is followed by one that does not."""
    last_s = -float("inf")
    jumped: Timed | None = None
    for shown in frames:
        if jumped is not None:
            if shown[0] > jumped[0]:
                yield jumped
                last_s = jumped[0]
            jumped = None
        if shown[0] <= last_s:
            continue
        if shown[0] - max(last_s, 0.0) > LONG_HOLD_S:
            jumped = shown
            continue
        yield shown
        last_s = shown[0]
    if jumped is not None:
        yield jumped
