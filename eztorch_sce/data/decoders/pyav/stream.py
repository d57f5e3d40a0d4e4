"""One open video file: its timing, its packets, seeking, and decoding in display order.

FFmpeg splits a file into packets, one per frame, in decoding order. A key frame decodes on its own. Other frames refer
to frames before them in the file, and B-frames also to a frame that is shown later, which therefore precedes them in
the file: packets are not in display order, but the decoder returns frames in that order. Each packet carries two
timestamps, both in ticks of the stream: when its frame is shown (pts) and when it is decoded (dts).

Damaged packets are skipped, and so are frames that the decoder marks as corrupt: it has filled in missing data, perhaps
with plain gray. `VideoFile.damaged` records that this happened.
"""

import gc
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from eztorch_sce.data.decoders.base import SNAP_S, Timing, check_hold, grace_s
from eztorch_sce.data.decoders.pyav.container import choose_stream, open_container
from eztorch_sce.data.decoders.pyav.joined import joints, may_be_joined, shifted
from eztorch_sce.data.decoders.pyav.pixels import FrameConverter, display_matrix, square_if_close
from eztorch_sce.errors import MediaError

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

    VideoPacket: TypeAlias = Packet[VideoStream]

_SEEK_BACK_S = (0.0, 2.0, 10.0)  # how much earlier to aim each time a seek lands after the requested time
_UNINDEXED_SEEK_S = 2.0  # without a list of key frames, decoding from the start is as fast as seeking up to here
_UNINDEXED_GAP_S = 10.0  # without a list of key frames, seeking probably beats decoding through a longer gap
_UNKNOWN_INTERVAL_S = 0.04  # time between frames of a file without a frame rate


class TimedFrame(NamedTuple):
    """A decoded frame, and the time in seconds at which it is first shown."""

    time_s: float
    frame: "VideoFrame"


class VideoFile:
    """An open video file. Times are in seconds from the first displayed frame.

    Args:
        path: A file, or a member of a tar shard.

    Attributes:
        path: The file.
        container: FFmpeg's view of the file. Replaced when the file is reopened.
        stream: The video stream. Replaced when the file is reopened.
        fps: Average frames per second, 0 if unknown.
        interval_s: Time between frames at that rate.
        codec: FFmpeg's name of the codec.
        has_pts: Whether the file stores presentation timestamps.
        tick_s: Unit of timestamps in seconds.
        key_times_s: Ascending times of the key frames in the file's index; empty if it lists fewer than two. They are
            hints: where a seek lands is always checked.
        num_parts: Number of recordings that were joined to this file; their packets are read as one sequence.
        damaged: Whether a damaged packet or frame has been read so far.
        complaint: FFmpeg's message about it; "" if there was none.

    Raises:
        MediaError: If the file cannot be opened, or has no video stream.
    """

    container: "InputContainer"
    stream: "VideoStream"

    def __init__(self, path: str) -> None:
        self.path = path
        self.damaged = False
        self.complaint = ""
        self._converter: FrameConverter | None = None
        self._shifts: dict[int, int] = {}  # see `joints`
        self._open()
        try:
            self._measure()
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.container.close()
        if self._converter is not None:
            gc.collect(0)  # reading side data puts the frame, megabytes large, into a reference cycle

    def _open(self) -> None:
        self.container = open_container(self.path)
        try:
            self.stream = choose_stream(self.container, self.path)
        except BaseException:
            self.container.close()
            raise
        self.stream.codec_context.thread_count = 1  # workers decode files in parallel; more threads would only wait
        self._at_start = True

    def _measure(self) -> None:
        stream, context = self.stream, self.stream.codec_context
        self.fps = float(stream.average_rate or stream.guessed_rate or stream.base_rate or 0)
        self.interval_s = 1 / self.fps if self.fps > 0 else _UNKNOWN_INTERVAL_S
        self.codec = str(getattr(context.codec, "canonical_name", context.name))
        self._size = (context.width, context.height)
        # AVI stores no pts. FFmpeg's guesses put B-frames in the wrong order, whereas the dts rise evenly.
        self.has_pts = self.container.format.name != "avi"
        assert stream.time_base is not None
        self.tick_s = float(stream.time_base)
        self._zero_s = 0.0  # time of the first displayed frame on the file's own clock
        if stream.start_time is not None and self.has_pts:
            self._zero_s = stream.start_time * self.tick_s
        else:
            self._zero_s = next((time_s for time_s, _ in self._decode()), 0.0)
        if may_be_joined(self.container.format.name, self.path):
            stamps = [(packet.dts, packet.duration or 0) for packet in self._stored_packets()]
            self._shifts = joints(stamps, self.tick_s, self.interval_s)
        entries = getattr(stream, "index_entries", ())  # since PyAV 17
        key_times_s = sorted(self.seconds(entry.timestamp) for entry in entries if entry.is_keyframe)
        self.key_times_s = key_times_s if len(key_times_s) > 1 and not self._shifts else []

    @property
    def num_parts(self) -> int:  # noqa: D102  # see the class
        return 1 + len(self._shifts)

    def seconds(self, stamp: int) -> float:
        """Return the time of a timestamp, given in ticks."""
        return stamp * self.tick_s - self._zero_s

    @property
    def pixel_aspect(self) -> float:
        """Width over height of a stored pixel."""
        return square_if_close(float(self.stream.sample_aspect_ratio or 1))

    def timing(self) -> Timing:
        """Return the duration of the video stream and its frame rate."""
        return Timing(self.duration_s(), self.fps)

    def duration_s(self) -> float:
        """Return the duration of the video stream; the audio may be longer."""
        # The header of a joined file may cover one part only, and that of a program stream may miss the last frames.
        if self._shifts or self.container.format.name == "mpeg":
            return self._end_of_last_packet_s()
        if self.stream.duration:
            duration_s = float(self.stream.duration * self.tick_s)
            # AVI counts the time before its first frame. Within the grace period it is only the decoder's delay.
            starts_late = not self.has_pts and self._zero_s > grace_s(self.interval_s)
            return duration_s - self._zero_s if starts_late else duration_s
        tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", self.stream.metadata.get("DURATION", ""))  # Matroska
        if tag:
            return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - self._zero_s
        return self._end_of_last_packet_s()

    def _end_of_last_packet_s(self) -> float:
        near_end_s = (self.container.duration or 0) / 1e6 - 2 * grace_s(self.interval_s)
        ends_s: list[float] = []
        if near_end_s > 0 and self._seek(near_end_s):
            ends_s = self._packet_ends_s()
        if not ends_s:
            self.rewind()
            ends_s = self._packet_ends_s()
        return max(ends_s, default=0.0)

    def _packet_ends_s(self) -> list[float]:
        return [
            self.seconds(packet.pts + (packet.duration or 0)) for packet in self.packets() if packet.pts is not None
        ]

    def end_s(self, shown: TimedFrame) -> float:
        """Return when a frame leaves the screen, according to the file or else to the frame rate."""
        duration_s = (getattr(shown.frame, "duration", None) or 0) * self.tick_s
        return shown.time_s + (duration_s or self.interval_s)

    def check_hold(self, time_s: float, end_s: float) -> None:
        """Raise an error if no frame is on screen at a time, given that the frame before it ended at `end_s`.

        Raises:
            MediaError: If the gap is too long; the limit is much shorter in a damaged file.
        """
        if self.damaged:
            check_hold(self.path, time_s, end_s, grace_s(self.interval_s), "damaged packets")
        else:
            check_hold(self.path, time_s, end_s)

    def converter(self, frame: "VideoFrame") -> FrameConverter:
        """Return the converter of this file's frames, built from the first decoded frame."""
        if self._converter is None:
            width, height = self._size
            self._converter = FrameConverter(self.path, width, height, self.pixel_aspect, display_matrix(frame))
        return self._converter

    def no_frame_error(self) -> MediaError:
        """Return the error for a file from which no frame can be decoded."""
        return MediaError(self.path, "no frame can be decoded" + (f" ({self.complaint})" if self.complaint else ""))

    def frames(self) -> Iterator[TimedFrame]:
        """Rewind, and return an iterator over all frames in display order."""
        self.rewind()
        return self._decode()

    def frames_from(self, time_s: float) -> Iterator[TimedFrame]:
        """Return an iterator over frames in display order, the first of which is shown at a time or earlier."""
        for sought in self.seek_before(time_s):
            frames = self._decode(sought)
            first = next(frames, None)
            if first is not None and (not sought or first.time_s <= time_s + SNAP_S):
                return chain([first], frames)
        return iter(())

    def seek_before(self, time_s: float) -> Iterator[bool]:
        """Seek to successively earlier key frames, falling back to the start of the file.

        Yields True after each seek, and finally False after rewinding. The caller stops once a position is early
        enough.
        """
        for back_s in _SEEK_BACK_S:
            if not self._worth_seeking(time_s - back_s) or not self._seek(time_s - back_s):
                break
            yield True
        self.rewind()
        yield False

    def _worth_seeking(self, time_s: float) -> bool:
        return time_s > (self.key_times_s[1] if self.key_times_s else _UNINDEXED_SEEK_S)

    def seeking_skips(self, earlier_s: float, later_s: float) -> bool:
        """Return whether seeking to the later time skips frames that decoding on from the earlier time would decode."""
        if self._shifts:
            return False
        if not self.key_times_s:
            return later_s - earlier_s > _UNINDEXED_GAP_S
        last_key = max(bisect_right(self.key_times_s, later_s) - 1, 0)
        return self.key_times_s[last_key] > earlier_s + self.interval_s

    def _seek(self, time_s: float) -> bool:
        import av

        if self._shifts:
            return False  # a time may occur in each part
        if self._at_start and "444" in (self.stream.codec_context.pix_fmt or ""):
            # The first packet names the version of x264. FFmpeg needs it: old versions coded 4:4:4 differently.
            next(self._decode(), None)
        self._at_start = False
        try:
            self.container.seek(int((time_s + self._zero_s) / self.tick_s), stream=self.stream)
        except (av.FFmpegError, OSError):
            return False  # a GIF, or a file without an index
        return True

    def rewind(self) -> None:
        """Return to the start of the file, by opening it again unless nothing was read yet."""
        if not self._at_start:
            self.container.close()
            self._open()

    def packets(self) -> "Iterator[VideoPacket]":
        """Yield the packets of the video stream from the current position, and an empty one at the end.

        Reading ends at the first error, because the packets after it cannot be located.
        """
        return shifted(self._stored_packets(), self._shifts) if self._shifts else self._stored_packets()

    def _stored_packets(self) -> "Iterator[VideoPacket]":
        import av

        self._at_start = False
        while True:
            # Unless closed, a demuxer that was not exhausted leaks its buffer, 250 bytes per file.
            with closing(self.container.demux(self.stream)) as demuxer:  # type: ignore[type-var]  # a generator
                while True:
                    try:
                        packet = next(demuxer, None)
                    except IndexError:  # a packet of a stream that begins here, unknown to PyAV: demux again
                        break
                    except (av.FFmpegError, OSError) as error:
                        self._note_damage(error)
                        return
                    if packet is None:
                        return
                    yield packet

    def _decode(self, sought: bool = False) -> Iterator[TimedFrame]:
        """Yield frames in display order from the current position.

        After a seek, decoding begins at the first key frame. Frames shown before it, even if stored after it, are
        dropped: they refer to frames that the seek skipped.
        """
        key_s: float | None = None if sought else -float("inf")
        previous_s: float | None = None if sought else -self.interval_s
        for packet in self.packets():
            if key_s is None:
                if not packet.is_keyframe:
                    continue
                stamp = self._stamp(packet)
                key_s = -float("inf") if stamp is None else self.seconds(stamp)
            for frame in self._frames_of(packet):
                time_s = self._time_of(frame, previous_s)
                if time_s is None:
                    return  # after a seek, frames without timestamps cannot be placed in time
                previous_s = time_s
                if time_s >= key_s - SNAP_S and self._is_sound(frame):
                    yield TimedFrame(time_s, frame)

    def _frames_of(self, packet: "VideoPacket") -> "list[VideoFrame]":
        """Return the frames that a packet completes; an empty list if it is damaged."""
        import av

        try:
            return packet.decode()
        except av.FFmpegError as error:
            self._note_damage(error)
            return []

    def _time_of(self, frame: "VideoFrame", previous_s: float | None) -> float | None:
        stamp = self._stamp(frame)
        if stamp is not None:
            return self.seconds(stamp)
        return None if previous_s is None else previous_s + self.interval_s

    def _stamp(self, item: "VideoPacket | VideoFrame") -> int | None:
        return item.pts if self.has_pts else item.dts

    def _is_sound(self, frame: "VideoFrame") -> bool:
        if frame.is_corrupt:
            self.damaged, self.complaint = True, self.complaint or "frames marked as corrupt"
            return False
        if 0 in self._size:  # a stream without a header
            self._size = (frame.width, frame.height)
        return True

    def _note_damage(self, error: Exception) -> None:
        import av

        if not isinstance(error, av.EOFError):
            self.damaged = True
            self.complaint = getattr(error, "strerror", None) or str(error)
