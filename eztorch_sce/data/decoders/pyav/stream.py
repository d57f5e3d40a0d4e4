"""Videos through PyAV, which brings its own FFmpeg: frame-exact on everything FFmpeg reads.

One opening of a file serves all spans. The wanted times are sorted and cut into stretches at key frames; each stretch
is decoded once from the key frame before it, and only wanted frames are converted to RGB. Of H.264 the packets of a
stretch are looked at first: what they say of time picks the wanted frames before anything is decoded, so images that
are neither wanted nor referred to are skipped, and decoding ends with the last wanted one. Where a packet says too
little, or the decoder does not return what was picked, the stretch is decoded in full.

What damage does: a packet that cannot be decoded is passed over, and so is a frame that the decoder made up where data
were missing (it may be plain gray), or one with a stray time stamp. A wanted time in the hole that they leave, later
than the grace after the frame before it, is a `MediaError`; elsewhere the file is read as if it were sound. In a file
without visible damage a frame stays on screen for as long as the file says, and for up to `LONG_HOLD_S` more where the
file does not say.
"""

import gc
import io
import os
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, pairwise
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch

from eztorch_sce.data.decoders.base import (
    LONG_HOLD_S,
    SNAP_S,
    Decoder,
    Spans,
    Timing,
    choose_spans,
    ends_early,
    frame_times,
    grace_s,
    in_a_hole,
    shown_at,
    without_strays,
)
from eztorch_sce.data.decoders.orientation import swaps_axes, turn_in_words, upright
from eztorch_sce.data.sources.shards import is_member, read_member
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.registry import register
from eztorch_sce.types import Clip, MediaInfo

# Codecs whose standard forbids all reference to images that the stream marks so (nal_ref_idc = 0). HEVC is not one of
# them: there only images of the same temporal layer may not refer to such an image.
_MARK_UNREFERENCED = frozenset({"h264"})
_SQUARE = 0.01  # encoders note 1279:1280 where a size was rounded
_SEEK_GAP_S = 10.0  # without a table of key frames: a gap that seeking probably bridges faster than decoding
_SEEK_BACK_S = (0.0, 2.0, 10.0)  # how much earlier to seek each time the last seek landed too late

_UNKNOWN = object()  # a display matrix that nobody has looked for yet

Shown = tuple[float, Any]  # a time in seconds and the av.VideoFrame that is first shown then


class Inspection(NamedTuple):
    """What one reading of a file shows, unjudged; `data.doctor` judges it.

    Attributes:
        info: What `probe` says.
        num_packets: Packets of the video stream whose frames are shown.
        num_keys: Those of them that decoding can start at.
        starts_with_key: Whether decoding can start at the first packet of all.
        times_s: When each packet's frame is first shown, as stored; nan where the file does not say.
        interval_s: Seconds between frames by the frame rate.
        ends_at_s: When the last frame ends.
        bytes_missing: How many bytes the file's own index points to that are not there.
        cover: "first" if a cover image precedes the video stream, "later" if one follows it, else "".
        turned: Degrees that the frames are turned for showing, with "mirrored" where they are.
        pixel_aspect: Width over height of a stored pixel.
        sizes: Width and height of the decoded frames, in the order met.
        num_decoded: Frames decoded, all of them where that was asked.
        complaint: What the decoder said of a damaged packet; "" where it met none.
        unreadable: Why a clip at the beginning, in the middle, at the end or, where all frames were decoded, anywhere
            else cannot be read; "" where all can.
    """

    info: MediaInfo
    num_packets: int
    num_keys: int
    starts_with_key: bool
    times_s: list[float]
    interval_s: float
    ends_at_s: float
    bytes_missing: int
    cover: str
    turned: str
    pixel_aspect: float
    sizes: list[tuple[int, int]]
    num_decoded: int
    complaint: str
    unreadable: str


@register("decoder", "pyav")
@dataclass
class PyAVConfig:
    """FFmpeg through PyAV: reads nearly everything, with one decoding thread per call."""

    def build(self) -> Decoder:
        """Return the decoder.

        Raises:
            ConfigError: If PyAV is not installed.
        """
        try:
            import av  # noqa: F401
        except ImportError as error:
            problem = f"decoder=pyav needs the package av, which cannot be imported ({error}): pip install av"
            raise ConfigError([problem]) from error
        return PyAVDecoder()


class PyAVDecoder:
    """Reads clips as `Decoder` describes."""

    def probe(self, path: str) -> MediaInfo:
        """Return what the header says, and the size of the first frame when upright."""
        with _Video(path) as video:
            height, width = video.upright_size()
            return MediaInfo(video.duration_s(), video.fps, width, height, video.codec)

    def read(self, path: str, spans: Spans, num_frames: int) -> list[Clip]:
        """Return one clip per span; spans that overlap share their frames."""
        places: dict[float, list[tuple[int, int]]] = {}
        frames: list[np.ndarray] = []
        with _Video(path) as video:
            chosen = choose_spans(spans, video.timing)
            for clip, span in enumerate(chosen):
                for slot, time_s in enumerate(frame_times(span, num_frames)):
                    places.setdefault(time_s, []).append((clip, slot))
            pts_s = np.zeros((len(chosen), num_frames))
            converted, image = None, None
            for time_s, (first_shown_s, frame) in video.shown_at(sorted(places)):
                if image is None or frame is not converted:
                    converted, image = frame, video.to_rgb(frame)  # (H, W, 3)
                if not frames:
                    full_size = video.full_size(frame)
                    frames = [np.empty((num_frames, *image.shape), np.uint8) for _ in chosen]
                for clip, slot in places[time_s]:
                    frames[clip][slot] = image
                    pts_s[clip, slot] = first_shown_s
        return [
            Clip(torch.from_numpy(thwc).permute(3, 0, 1, 2), torch.from_numpy(pts), full_size)
            for thwc, pts in zip(frames, pts_s, strict=True)
        ]

    def timing_and_size(self, path: str) -> tuple[Timing, tuple[int, int] | None]:
        """Return what decoders need that do not tell it themselves: the timing, and `Clip.full_size`."""
        with _Video(path) as video:
            frame = None if video.pixel_aspect() == 1 else next(video.all_frames(), (0.0, None))[1]
            return video.timing(), None if frame is None else video.full_size(frame)

    def inspect(self, path: str, full: bool) -> Inspection:
        """Read all packets of a file; decode the first, middle and last frame, or all with `full`.

        Raises:
            MediaError: If the file cannot be opened, or has no video stream.
        """
        with _Video(path) as video:
            return video.inspection(full)

    def frames(self, path: str, short_side: int) -> Iterator[tuple[float, np.ndarray]]:
        """Yield every frame in the order of showing: its time in seconds and its pixels, uint8 RGB (H, W, 3).

        The frames are upright, of square pixels and even size; their short side is `short_side` pixels, or less where
        the video has less.

        Raises:
            MediaError: If the file cannot be read, or as soon as it proves damaged.
        """
        with _Video(path) as video:
            size = video.small_size(short_side)
            end_s = None
            for shown in without_strays(video.all_frames()):
                if video.damaged:
                    break
                if end_s is not None:
                    video.check_hold(shown[0], end_s)
                end_s = video.end_s(shown)
                yield shown[0], video.to_rgb(shown[1], size)
            if video.damaged:
                raise MediaError(path, "has damaged packets")
            if end_s is None:
                raise MediaError(path, video.no_frame())
            if video.duration_s() > end_s + grace_s(video.interval_s):
                raise ends_early(path, video.duration_s(), end_s, video.duration_s())


class _Video:
    """An open file and its video stream; times are seconds from the first displayed frame."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.damaged = False
        self._complaint = ""
        self._matrix: Any = _UNKNOWN
        self._open()
        try:
            self._measure()
        except BaseException:
            self.container.close()
            raise

    def __enter__(self) -> "_Video":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.container.close()
        if self._matrix is not _UNKNOWN:
            gc.collect(0)  # a frame whose side data were looked at is part of a cycle, and megabytes large

    def _open(self) -> None:
        import av

        in_shard = is_member(self.path)
        if not in_shard and not os.path.isfile(self.path):
            found = os.path.lexists(self.path)
            raise MediaError(self.path, "is no file, or a link to nowhere" if found else "does not exist")
        if not in_shard and os.path.getsize(self.path) == 0:
            raise MediaError(self.path, "is empty (0 bytes)")
        try:
            # The prefix keeps FFmpeg from taking "a:b.mp4" for a network protocol.
            source = io.BytesIO(read_member(self.path)) if in_shard else f"file:{self.path}"
            self.container = av.open(source, "r", metadata_errors="ignore")
        except (av.FFmpegError, OSError) as error:
            raise MediaError(self.path, _why_not_opened(self.path, error)) from error
        try:
            self.stream = self._choose_stream()
        except BaseException:
            self.container.close()
            raise
        self.stream.codec_context.thread_count = 1  # workers decode files side by side: more threads would only wait
        self._fresh = True

    def _choose_stream(self) -> Any:
        """Return the stream that FFmpeg's own tools would play, which is not always the first."""
        from av.stream import Disposition

        streams = self.container.streams
        images = Disposition.attached_pic | Disposition.timed_thumbnails
        movies = [stream for stream in streams.video if not stream.disposition & images]
        if not movies:
            found = "only a cover image" if streams.video else "audio only?" if len(streams) else "nothing in it"
            raise MediaError(self.path, f"has no video stream ({found})")
        best = streams.best("video")
        stream = next((movie for movie in movies if best is not None and movie.index == best.index), movies[0])
        if stream.codec_context is None:
            raise MediaError(self.path, "has a video stream that this FFmpeg has no decoder for")
        return stream

    def _measure(self) -> None:
        stream = self.stream
        self._tick_s = float(stream.time_base)
        self.fps = float(stream.average_rate or stream.guessed_rate or stream.base_rate or 0)
        self.interval_s = 1 / self.fps if self.fps > 0 else 0.04
        self.codec = str(getattr(stream.codec_context.codec, "canonical_name", stream.codec_context.name))
        self._size = (stream.codec_context.width, stream.codec_context.height)
        # AVI stores no presentation times. FFmpeg's guess of them jumbles B-frames; its decoding times rise evenly.
        self._stamp = "dts" if self.container.format.name == "avi" else "pts"
        self._zero_s = 0.0
        if stream.start_time is not None and self._stamp == "pts":
            self._zero_s = stream.start_time * self._tick_s
        else:
            self._zero_s = next((time_s for time_s, _ in self._decode()), 0.0)
        # The key frames that the file lists, if it lists more than one: a hint, for where a seek lands is looked at.
        entries = getattr(stream, "index_entries", ())  # since PyAV 17
        keys_s = sorted(entry.timestamp * self._tick_s - self._zero_s for entry in entries if entry.is_keyframe)
        self._keys_s = keys_s if len(keys_s) > 1 else []

    def duration_s(self) -> float:
        """Return how long the video stream lasts; audio may last longer."""
        if self.stream.duration:
            lasts_s = float(self.stream.duration * self._tick_s)
            # An AVI counts what precedes its first frame; a little is only the delay of the decoder.
            skipped = self._stamp == "dts" and self._zero_s > grace_s(self.interval_s)
            return lasts_s - self._zero_s if skipped else lasts_s
        tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", self.stream.metadata.get("DURATION", ""))  # of Matroska
        if tag:
            return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - self._zero_s
        return self._last_packet_end_s()

    def _last_packet_end_s(self) -> float:
        from_the_end_s = (self.container.duration or 0) / 1e6 - 2 * grace_s(self.interval_s)
        ends_s: list[float] = []
        if from_the_end_s > 0 and self._seek(from_the_end_s):
            ends_s = self._packet_ends_s()
        if not ends_s:
            self._rewind()
            ends_s = self._packet_ends_s()
        return max(ends_s, default=0.0)

    def _packet_ends_s(self) -> list[float]:
        return [
            (packet.pts + (packet.duration or 0)) * self._tick_s - self._zero_s
            for packet in self._packets()
            if packet.pts is not None
        ]

    def inspection(self, full: bool) -> Inspection:
        """Return what `PyAVDecoder.inspect` does."""
        from av.stream import Disposition

        self._rewind()
        sent = [packet for packet in self._packets() if packet.size]
        packets = [packet for packet in sent if not packet.is_discard]  # an edit list hides the others
        times_s = [float("nan") if packet.pts is None else self._s(packet.pts) for packet in packets]
        entries = getattr(self.stream, "index_entries", ())
        end = max((entry.pos + entry.size for entry in entries), default=0)
        first = next(self.all_frames(), None)
        if first is None:
            raise MediaError(self.path, self.no_frame())
        duration_s, (height, width) = self.duration_s(), self._upright_size_of(first[1])
        shown, num_decoded = [first[1]], 0
        unreadable = ""
        try:
            wanted = [0.0, duration_s / 2, max(0.0, duration_s - self.interval_s / 2)]
            shown += [frame for _, (_, frame) in self.shown_at(wanted)]
        except MediaError as error:
            unreadable = error.reason
        sizes = dict.fromkeys((frame.width, frame.height) for frame in shown)
        if full:
            until_s: list[tuple[float, float]] = []  # when each frame is first shown, and until when
            for time_s, frame in self.all_frames():
                until_s.append((time_s, self.end_s((time_s, frame))))
                sizes[frame.width, frame.height] = None
            num_decoded, unreadable = len(until_s), unreadable or self._first_hole(until_s)
        videos = list(self.container.streams.video)
        covers = [stream.index for stream in videos if stream.disposition & Disposition.attached_pic]
        return Inspection(
            info=MediaInfo(duration_s, self.fps, width, height, self.codec),
            num_packets=len(packets),
            num_keys=sum(packet.is_keyframe for packet in packets),
            starts_with_key=bool(sent) and sent[0].is_keyframe,
            times_s=times_s,
            interval_s=self.interval_s,
            ends_at_s=max((time_s for time_s in times_s if time_s == time_s), default=0.0) + self.interval_s,
            bytes_missing=max(0, end - os.path.getsize(self.path)),
            cover="" if not covers else "first" if covers[0] < self.stream.index else "later",
            turned=turn_in_words(self._matrix_of(first[1])),
            pixel_aspect=self.pixel_aspect(),
            sizes=list(sizes),
            num_decoded=num_decoded,
            complaint=self._complaint,
            unreadable=unreadable,
        )

    def all_frames(self) -> Iterator[Shown]:
        """Yield every frame from the beginning."""
        self._rewind()
        return self._decode()

    def small_size(self, short_side: int) -> tuple[int, int]:
        """Return even width and height, as stored, of frames shrunk to a short side, their pixels made square."""
        width, height = self._size
        if 0 in self._size:
            next(self.all_frames(), None)
            width, height = self._size
        shown_width = width * self.pixel_aspect()
        scale = min(1.0, short_side / min(shown_width, height))
        return max(2, 2 * round(shown_width * scale / 2)), max(2, 2 * round(height * scale / 2))

    def pixel_aspect(self) -> float:
        """Return how wide a stored pixel is to be shown, over its height."""
        ratio = float(self.stream.sample_aspect_ratio or 1)
        return ratio if abs(ratio - 1) > _SQUARE else 1.0

    def _matrix_of(self, frame: Any) -> np.ndarray | None:
        """Return how the file wants its frames turned, told by any of them."""
        if self._matrix is _UNKNOWN:
            self._matrix = _display_matrix(frame)
        return self._matrix

    def full_size(self, frame: Any) -> tuple[int, int] | None:
        """Return the height and width to show frames at, or None where their pixels are square."""
        if self.pixel_aspect() == 1:
            return None
        height, width = self._upright_size_of(frame)
        turned = swaps_axes(self._matrix_of(frame))
        return height, max(1, round(width * self.pixel_aspect() ** (-1 if turned else 1)))

    def timing(self) -> Timing:
        """Return how long the video stream lasts, and its frame rate."""
        return Timing(self.duration_s(), self.fps)

    def upright_size(self) -> tuple[int, int]:
        """Return height and width of the frames as they are shown."""
        self._rewind()
        shown = next(self._decode(), None)
        if shown is None:
            raise MediaError(self.path, self.no_frame())
        return self._upright_size_of(shown[1])

    def _upright_size_of(self, frame: Any) -> tuple[int, int]:
        width, height = self._size
        blank = np.broadcast_to(np.uint8(0), (height, width, 3))
        height, width, _ = upright(blank, self._matrix_of(frame)).shape
        return height, width

    def shown_at(self, wanted: list[float]) -> Iterator[tuple[float, Shown]]:
        """Yield for each of the ascending `wanted` times the frame that is shown then.

        Raises:
            MediaError: If there is no frame at all, or none near a wanted time.
        """
        for stretch in self._stretches(wanted):
            num_found = 0
            if self.codec in _MARK_UNREFERENCED and self._stamp == "pts":
                for found in self._picked_in(stretch):
                    yield found
                    num_found += 1
            if num_found < len(stretch):
                yield from self._shown_in(stretch[num_found:])

    def _picked_in(self, stretch: list[float]) -> Iterator[tuple[float, Shown]]:
        """Yield what `_shown_in` does while all is as the packets say, decoding what is wanted or referred to alone."""
        import av

        picked = self._pick(stretch)
        if picked is None:
            return
        packets, wanted = picked
        context = self.stream.codec_context
        previous_pts = -float("inf")
        remaining = list(wanted)
        try:
            for packet in chain(packets, [None]):  # None: give out what is still waiting for its turn
                context.skip_frame = "DEFAULT" if packet is None or packet.pts in wanted else "NONREF"
                for frame in context.decode(packet):
                    if frame.is_corrupt or frame.pts is None or frame.pts <= previous_pts:
                        return
                    previous_pts = frame.pts
                    if remaining and frame.pts == remaining[0]:
                        remaining.pop(0)
                        shown = (self._s(frame.pts), frame)
                        yield from ((time_s, shown) for time_s in wanted[frame.pts])
        except av.FFmpegError:
            return
        finally:
            context.skip_frame = "DEFAULT"

    def _pick(self, stretch: list[float]) -> tuple[list[Any], dict[int, list[float]]] | None:
        """Return the packets to decode and, by the pts of the frame that is shown then, the wanted times; ascending.

        Returns None where the packets do not tell. Times that only `_shown_in` may judge are left out, with all later.
        """
        for sought in self._starts(stretch[0]):
            packets, at_end = self._packets_until(stretch[-1], sought)
            complete = bool(packets) and all(packet.pts is not None for packet in packets)
            if not sought or (complete and self._s(packets[0].pts) <= stretch[0] + SNAP_S):
                break
        if not complete:
            return None
        first = packets[0].pts  # what is shown before a key frame, though it follows in the file, lacks its references
        shown = {packet.pts: packet for packet in packets if packet.pts >= first and not packet.is_discard}
        stamps = sorted(shown)
        times_s = [self._s(pts) for pts in stamps]
        if len({packet.pts for packet in packets}) < len(packets) or any(
            later - earlier > LONG_HOLD_S for earlier, later in pairwise(times_s)
        ):
            return None
        wanted: dict[int, list[float]] = {}
        for time_s in stretch:
            place = shown_at(times_s, time_s)
            end_s = times_s[place] + ((shown[stamps[place]].duration or 0) * self._tick_s or self.interval_s)
            late_s = grace_s(self.interval_s) if at_end and place == len(stamps) - 1 else LONG_HOLD_S
            if not times_s[place] - SNAP_S <= time_s <= end_s + late_s:
                break
            wanted.setdefault(stamps[place], []).append(time_s)
        last = max((number for number, packet in enumerate(packets) if packet.pts in wanted), default=0)
        return (packets[: last + 1], wanted) if wanted else None

    def _packets_until(self, time_s: float, sought: bool) -> tuple[list[Any], bool]:
        """Return the packets of all frames shown until a time, and whether the file ends there.

        After a seek the first one is a key frame.
        """
        packets: list[Any] = []
        for packet in self._packets():
            if packet.size == 0:
                continue  # the end: nothing but an order to the decoder
            if sought and not packets and not packet.is_keyframe:
                continue
            packets.append(packet)
            if packet.dts is not None and self._s(packet.dts) > time_s + SNAP_S:
                return packets, False  # whatever follows is decoded later, so shown later
        return packets, True

    def _s(self, stamp: int) -> float:
        return stamp * self._tick_s - self._zero_s

    def _shown_in(self, stretch: list[float]) -> Iterator[tuple[float, Shown]]:
        waiting = iter(stretch)
        time_s = next(waiting)
        current: Shown | None = None
        for later in without_strays(self._decode_from(stretch[0])):
            while current is not None and time_s < later[0] - SNAP_S:
                self._check_start(time_s, current)
                self.check_hold(time_s, self.end_s(current))
                yield time_s, current
                following = next(waiting, None)
                if following is None:
                    return
                time_s = following
            current = later
        if current is None:
            raise MediaError(self.path, self.no_frame())
        for late_s in chain([time_s], waiting):
            self._check_start(late_s, current)
            if late_s > self.end_s(current) + grace_s(self.interval_s):
                raise ends_early(self.path, late_s, self.end_s(current), self.duration_s())
            yield late_s, current

    def _check_start(self, time_s: float, current: Shown) -> None:
        if current[0] > time_s + grace_s(self.interval_s):
            raise MediaError(self.path, f"has no frame before {current[0]:.2f} s: its beginning is damaged")

    def check_hold(self, time_s: float, end_s: float) -> None:
        """Raise MediaError if no frame can be on screen at a time before which the last one ended at `end_s`."""
        patience_s = grace_s(self.interval_s) if self.damaged else LONG_HOLD_S
        if time_s > end_s + patience_s:
            why = "damaged packets" if self.damaged else "time stamps that jump"
            raise in_a_hole(self.path, time_s, end_s, why)

    def _first_hole(self, until_s: list[tuple[float, float]]) -> str:
        """Return why no frame can be read in the first hole between frames of a file, or "" where there is none."""
        try:
            for (_, end_s), (time_s, _) in pairwise(without_strays(until_s)):
                self.check_hold(time_s, end_s)
        except MediaError as error:
            return error.reason
        return ""

    def end_s(self, shown: Shown) -> float:
        """Return until when the file wants a frame on screen."""
        lasts_s = (getattr(shown[1], "duration", None) or 0) * self._tick_s
        return shown[0] + (lasts_s or self.interval_s)

    def _stretches(self, wanted: list[float]) -> list[list[float]]:
        """Cut the wanted times where a key frame lets the decoder skip what lies between."""
        stretches: list[list[float]] = []
        for time_s in wanted:
            if not stretches:
                stretches.append([time_s])
                continue
            last_s = stretches[-1][-1]
            if self._keys_s:
                skips = self._keys_s[max(bisect_right(self._keys_s, time_s) - 1, 0)] > last_s + self.interval_s
            else:
                skips = time_s - last_s > _SEEK_GAP_S
            if skips:
                stretches.append([time_s])
            else:
                stretches[-1].append(time_s)
        return stretches

    def _decode_from(self, time_s: float) -> Iterator[Shown]:
        """Yield frames from one that is shown at `time_s` or earlier."""
        for sought in self._starts(time_s):
            frames = self._decode(sought)
            first = next(frames, None)
            if first is not None and (not sought or first[0] <= time_s + SNAP_S):
                return chain([first], frames)
        return iter(())

    def _starts(self, time_s: float) -> Iterator[bool]:
        """Go to ever earlier places before a time, at last to the beginning; yield whether it was by seeking."""
        for back_s in _SEEK_BACK_S:
            if not self._worth_seeking(time_s - back_s) or not self._seek(time_s - back_s):
                break
            yield True
        self._rewind()
        yield False

    def _worth_seeking(self, time_s: float) -> bool:
        return time_s > (self._keys_s[1] if self._keys_s else 2.0)

    def _seek(self, time_s: float) -> bool:
        import av

        if self._fresh and "444" in (self.stream.codec_context.pix_fmt or ""):
            # x264 notes its version in the first packet, and FFmpeg must know it: old ones coded 4:4:4 differently.
            next(self._decode(), None)
        self._fresh = False
        try:
            self.container.seek(int((time_s + self._zero_s) / self._tick_s), stream=self.stream)
        except (av.FFmpegError, OSError):
            return False  # a GIF, or a file without an index
        return True

    def _rewind(self) -> None:
        if not self._fresh:
            self.container.close()
            self._open()

    def _decode(self, sought: bool = False) -> Iterator[Shown]:
        """Yield frames in the order they are shown, after a seek none that refers to what was skipped."""
        import av

        key_s: float | None = None if sought else -float("inf")
        previous_s: float | None = None if sought else -self.interval_s
        for packet in self._packets():
            if key_s is None:
                if not packet.is_keyframe:
                    continue
                stamp = getattr(packet, self._stamp)
                key_s = -float("inf") if stamp is None else self._s(stamp)
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self._note(error)
                continue
            for frame in frames:
                time_s = self._time_of(frame, previous_s)
                if time_s is None:
                    return  # after a seek nobody knows what frames without a time stamp show
                previous_s = time_s
                if time_s >= key_s - SNAP_S:  # earlier ones lead the key frame and lack what they refer to
                    if frame.is_corrupt:
                        self.damaged, self._complaint = True, self._complaint or "frames marked corrupt"
                        continue
                    if 0 in self._size:
                        self._size = (frame.width, frame.height)  # a stream without a header
                    yield time_s, frame

    def _time_of(self, frame: Any, previous_s: float | None) -> float | None:
        stamp = getattr(frame, self._stamp)
        if stamp is not None:
            return self._s(stamp)
        return None if previous_s is None else previous_s + self.interval_s

    def _packets(self) -> Iterator[Any]:
        import av

        self._fresh = False
        while True:
            demuxed: Any = self.container.demux(self.stream)
            with closing(demuxed) as packets:  # left half read, it would keep its buffer for good: 250 bytes a file
                while True:
                    try:
                        packet = next(packets, None)
                    except IndexError:  # a packet of a stream that begins here, which PyAV does not know: go on
                        break
                    except (av.FFmpegError, OSError) as error:  # what comes after it cannot be found
                        self._note(error)
                        return
                    if packet is None:
                        return
                    yield packet

    def _note(self, error: Exception) -> None:
        import av

        if not isinstance(error, av.EOFError):
            self.damaged = True
            self._complaint = getattr(error, "strerror", None) or str(error)

    def no_frame(self) -> str:
        """Return why there is no frame at all."""
        return "no frame can be decoded" + (f" ({self._complaint})" if self._complaint else "")

    def to_rgb(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        """Return a frame as uint8 (H, W, 3), upright.

        Args:
            frame: The av.VideoFrame.
            size: Width and height before turning; None is the size of the stream, even if it changes on the way.
        """
        import av

        width, height = size or self._size
        try:
            # PyAV's default interpolation gives the same pixels as decord for ordinary 8-bit video.
            image = frame.reformat(width=width, height=height, format="rgb24", **_one_thread())
        except av.FFmpegError as error:
            raise MediaError(self.path, f"its pixels ({frame.format.name}) cannot be converted to RGB") from error
        plane = image.planes[0]  # its rows are padded; `to_ndarray` would copy
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        return upright(rows[:, : 3 * width].reshape(height, width, 3), self._matrix_of(frame))


def _display_matrix(frame: Any) -> np.ndarray | None:
    """Return how the file wants the frame turned, int32 (3, 3), or None where it says nothing."""
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    return None if matrix is None else np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)


def _one_thread() -> dict[str, int]:
    """Return what keeps the conversion to RGB on this thread: PyAV 17 made it parallel, and made that a choice."""
    import av

    return {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


def _why_not_opened(path: str, error: Exception) -> str:
    import av

    if not isinstance(error, av.InvalidDataError):
        return f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    with open(path, "rb") as file:
        is_mp4 = file.read(8)[4:] == b"ftyp"
    if is_mp4:
        return "cannot be opened: its table of contents (moov) is missing or damaged; cut short when written or copied?"
    return "cannot be opened: its content is no video that FFmpeg knows"
