"""Videos through PyAV, which brings its own FFmpeg: frame-exact on everything FFmpeg reads.

One opening of a file serves all spans. The wanted times are sorted and cut into stretches at key frames; each stretch
is decoded once from the key frame before it, and only wanted frames are converted to RGB.

What damage does: a packet that cannot be decoded is passed over, and so is a frame with a stray time stamp. A wanted
time in the hole that they leave, later than the grace after the frame before it, is a `MediaError`; elsewhere the file
is read as if it were sound. In a file without visible damage a frame stays on screen for as long as the file says, and
for up to `_LONG_HOLD_S` more where the file does not say.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Any

import numpy as np
import torch

from eztorch_sce.data.decoders.base import SNAP_S, Decoder, ends_early, frame_times, grace_s
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.registry import register
from eztorch_sce.types import Clip, ClipSpan, MediaInfo

_LONG_HOLD_S = 10.0  # slides and screen recordings hold a frame for seconds; a stray time stamp jumps by minutes
_SEEK_GAP_S = 10.0  # without a table of key frames: a gap that seeking probably bridges faster than decoding
_SEEK_BACK_S = (0.0, 2.0, 10.0)  # how much earlier to seek each time the last seek landed too late

Shown = tuple[float, Any]  # a time in seconds and the av.VideoFrame that is first shown then


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

    def read(self, path: str, spans: Sequence[ClipSpan], num_frames: int) -> list[Clip]:
        """Return one clip per span; spans that overlap share their frames."""
        places: dict[float, list[tuple[int, int]]] = {}
        for clip, span in enumerate(spans):
            for slot, time_s in enumerate(frame_times(span, num_frames)):
                places.setdefault(time_s, []).append((clip, slot))

        frames: list[np.ndarray] = []
        pts_s = np.zeros((len(spans), num_frames))
        with _Video(path) as video:
            converted, picture = None, None
            for time_s, (first_shown_s, frame) in video.shown_at(sorted(places)):
                if picture is None or frame is not converted:
                    converted, picture = frame, video.to_rgb(frame)  # (H, W, 3)
                if not frames:
                    frames = [np.empty((num_frames, *picture.shape), np.uint8) for _ in spans]
                for clip, slot in places[time_s]:
                    frames[clip][slot] = picture
                    pts_s[clip, slot] = first_shown_s
        return [
            Clip(torch.from_numpy(thwc).permute(3, 0, 1, 2), torch.from_numpy(pts))
            for thwc, pts in zip(frames, pts_s, strict=True)
        ]


class _Video:
    """An open file and its video stream; times are seconds from the first displayed frame."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.damaged = False
        self._complaint = ""
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

    def _open(self) -> None:
        import av

        if not os.path.isfile(self.path):
            found = os.path.lexists(self.path)
            raise MediaError(self.path, "is no file, or a link to nowhere" if found else "does not exist")
        if os.path.getsize(self.path) == 0:
            raise MediaError(self.path, "is empty (0 bytes)")
        try:
            # The prefix keeps FFmpeg from taking "a:b.mp4" for a network protocol.
            self.container = av.open(f"file:{self.path}", metadata_errors="ignore")
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
        pictures = Disposition.attached_pic | Disposition.timed_thumbnails
        movies = [stream for stream in streams.video if not stream.disposition & pictures]
        if not movies:
            found = "only a cover picture" if streams.video else "audio only?" if len(streams) else "nothing in it"
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

    def upright_size(self) -> tuple[int, int]:
        """Return height and width of the frames as they are shown."""
        self._rewind()
        shown = next(self._decode(), None)
        if shown is None:
            raise MediaError(self.path, self._no_frame())
        width, height = self._size
        blank = np.broadcast_to(np.uint8(0), (height, width, 3))
        height, width, _ = _upright(blank, _display_matrix(shown[1])).shape
        return height, width

    def shown_at(self, wanted: list[float]) -> Iterator[tuple[float, Shown]]:
        """Yield for each of the ascending `wanted` times the frame that is shown then.

        Raises:
            MediaError: If there is no frame at all, or none near a wanted time.
        """
        for stretch in self._stretches(wanted):
            yield from self._shown_in(stretch)

    def _shown_in(self, stretch: list[float]) -> Iterator[tuple[float, Shown]]:
        waiting = iter(stretch)
        time_s = next(waiting)
        current: Shown | None = None
        for later in _without_strays(self._decode_from(stretch[0])):
            while current is not None and time_s < later[0] - SNAP_S:
                self._check_start(time_s, current)
                self._check_hold(time_s, current)
                yield time_s, current
                following = next(waiting, None)
                if following is None:
                    return
                time_s = following
            current = later
        if current is None:
            raise MediaError(self.path, self._no_frame())
        for late_s in chain([time_s], waiting):
            self._check_start(late_s, current)
            if late_s > self._end_s(current) + grace_s(self.interval_s):
                raise ends_early(self.path, late_s, self._end_s(current), self.duration_s())
            yield late_s, current

    def _check_start(self, time_s: float, current: Shown) -> None:
        if current[0] > time_s + grace_s(self.interval_s):
            raise MediaError(self.path, f"has no frame before {current[0]:.2f} s: its beginning is damaged")

    def _check_hold(self, time_s: float, current: Shown) -> None:
        patience_s = grace_s(self.interval_s) if self.damaged else _LONG_HOLD_S
        if time_s > self._end_s(current) + patience_s:
            why = "damaged packets" if self.damaged else "time stamps that jump"
            raise MediaError(self.path, f"has no frame from {self._end_s(current):.2f} s to {time_s:.2f} s: {why}")

    def _end_s(self, shown: Shown) -> float:
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
        for back_s in _SEEK_BACK_S:
            if not self._worth_seeking(time_s - back_s) or not self._seek(time_s - back_s):
                break
            frames = self._decode(sought=True)
            first = next(frames, None)
            if first is not None and first[0] <= time_s + SNAP_S:
                return chain([first], frames)
        self._rewind()
        return self._decode()

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
                key_s = -float("inf") if stamp is None else stamp * self._tick_s - self._zero_s
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
                    self.damaged |= frame.is_corrupt
                    if 0 in self._size:
                        self._size = (frame.width, frame.height)  # a stream without a header
                    yield time_s, frame

    def _time_of(self, frame: Any, previous_s: float | None) -> float | None:
        stamp = getattr(frame, self._stamp)
        if stamp is not None:
            return float(stamp * self._tick_s - self._zero_s)
        return None if previous_s is None else previous_s + self.interval_s

    def _packets(self) -> Iterator[Any]:
        import av

        self._fresh = False
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
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
            self._complaint = str(error)

    def _no_frame(self) -> str:
        return "no frame can be decoded" + (f" ({self._complaint})" if self._complaint else "")

    def to_rgb(self, frame: Any) -> np.ndarray:
        """Return a frame as uint8 (H, W, 3), upright, in the size of the stream even if it changes on the way."""
        import av

        width, height = self._size
        try:
            # PyAV's default interpolation gives the same pixels as decord for ordinary 8-bit video.
            picture = frame.reformat(width=width, height=height, format="rgb24", **_one_thread())
        except av.FFmpegError as error:
            raise MediaError(self.path, f"its pixels ({frame.format.name}) cannot be converted to RGB") from error
        plane = picture.planes[0]  # its rows are padded; `to_ndarray` would copy
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        return _upright(rows[:, : 3 * width].reshape(height, width, 3), _display_matrix(frame))


def _without_strays(frames: Iterable[Shown]) -> Iterator[Shown]:
    """Leave out frames with a stray time stamp: earlier than one before, or a jump that the next frame takes back."""
    last_s = -float("inf")
    jumped: Shown | None = None
    for shown in frames:
        if jumped is not None:
            if shown[0] > jumped[0]:
                yield jumped
                last_s = jumped[0]
            jumped = None
        if shown[0] <= last_s:
            continue
        if shown[0] - max(last_s, 0.0) > _LONG_HOLD_S:
            jumped = shown
            continue
        yield shown
        last_s = shown[0]
    if jumped is not None:
        yield jumped


def _display_matrix(frame: Any) -> np.ndarray | None:
    """Return how the file wants the frame turned, int32 (3, 3), or None where it says nothing."""
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    return None if matrix is None else np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)


def _upright(picture: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Turn and mirror (H, W, 3) by quarter turns; a pixel at (x, y) moves to (x, y) times the matrix."""
    if matrix is None:
        return picture
    if abs(matrix[0, 1]) > abs(matrix[0, 0]):  # x becomes y
        picture = picture.transpose(1, 0, 2)
        turned_x, turned_y = matrix[1, 0] < 0, matrix[0, 1] < 0
    else:
        turned_x, turned_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    return picture[:: -1 if turned_y else 1, :: -1 if turned_x else 1]


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
