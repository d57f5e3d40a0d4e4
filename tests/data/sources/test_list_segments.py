"""Tests of the columns start and end, which select the part of each video to use."""

from pathlib import Path

import pytest
from data_sets import touch, write

from eztorch_sce.data.sources.list_columns import seconds
from eztorch_sce.data.sources.list_file import from_list
from eztorch_sce.data.sources.records import Records
from eztorch_sce.errors import ConfigError


def opened(folder: Path, header: str, *rows: str) -> Records:
    touch(folder, "a.mp4", "b.mp4")
    return from_list(write(folder / "list.csv", "\n".join([header, *rows]))).records


def spans(records: Records) -> list[tuple[float | None, float | None]]:
    return [(record.start_s, record.end_s) for record in records]


@pytest.mark.parametrize(
    "columns",
    ["start,end", "time_start,time_end", "start_s,end_s", "t_start,t_end", "Start Time,End Time", "start (s),end (s)",
     "start_sec,stop_sec", "begin,end", "startSeconds,endSeconds", "from,to"],
)  # fmt: skip
def test_start_and_end_in_seconds_are_recognized(tmp_path: Path, columns: str) -> None:
    assert spans(opened(tmp_path, f"path,{columns}", "a.mp4,1.5,4", "b.mp4,0,10")) == [(1.5, 4), (0, 10)]


def test_either_may_be_missing_and_cells_may_be_empty(tmp_path: Path) -> None:
    assert spans(opened(tmp_path, "path,start", "a.mp4,1", "b.mp4,")) == [(1, None), (None, None)]
    assert spans(opened(tmp_path, "path,end", "a.mp4,1", "b.mp4,")) == [(None, 1), (None, None)]
    assert spans(opened(tmp_path, "path;start;end", "a.mp4;0,5;1,5", "b.mp4;;")) == [(0.5, 1.5), (None, None)]


def test_times_may_be_written_as_minutes_and_seconds() -> None:
    assert [seconds(text) for text in ("75", "1:15", "0:01:15", "1:15.5", "01:01:01", "1e1")] == [
        75, 75, 75, 75.5, 3661, 10
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon", "1:75", "1:2:3:4", "1_000", "0x10", "12s"])
@pytest.mark.parametrize("column", ["start", "end"])
def test_anything_but_a_time_is_an_error(tmp_path: Path, column: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"line 2: {column} '{text}' must be a number of seconds of at least 0"):
        opened(tmp_path, f"path,{column}", f"a.mp4,{text}")


@pytest.mark.parametrize(("start", "end"), [("5", "5"), ("5", "4"), ("", "0"), ("1:00", "59")])
def test_a_segment_must_end_after_its_start(tmp_path: Path, start: str, end: str) -> None:
    with pytest.raises(ConfigError, match=r"line 2: the part to use ends at .* s, not after its start at"):
        opened(tmp_path, "path,start,end", f"a.mp4,{start},{end}")


def test_the_same_file_with_other_segments_is_no_repetition(tmp_path: Path) -> None:
    records = opened(tmp_path, "path,start,end", "a.mp4,0,5", "a.mp4,5,10", "a.mp4,0,10")
    assert spans(records) == [(0, 5), (5, 10), (0, 10)]
    with pytest.raises(ConfigError, match="lines 2 and 3 are the same file"):
        opened(tmp_path, "path,start,end", "a.mp4,0,5", "a.mp4,0.0,0:05")


@pytest.mark.parametrize(("path", "noun"), [("c.jpg", "an image"), ("frames", "a folder of frames")])
def test_images_and_frames_have_no_segments(tmp_path: Path, path: str, noun: str) -> None:
    touch(tmp_path, "c.jpg", "frames/1.jpg")
    assert spans(opened(tmp_path, "path,start,end", f"{path},,", "a.mp4,1,2")) == [(None, None), (1, 2)]
    with pytest.raises(
        ConfigError, match=f"line 2: {path} is {noun}, which has no time in seconds; leave start and end"
    ):
        opened(tmp_path, "path,start,end", f"{path},1,2", "a.mp4,1,2")


@pytest.mark.parametrize("column", ["start_frame", "startFrame", "frame_start", "end_frame", "start_ms", "offset"])
def test_segments_in_another_unit_are_refused_instead_of_ignored(tmp_path: Path, column: str) -> None:
    with pytest.raises(ConfigError, match=f"column '{column}' is not in seconds; give the part to use in seconds"):
        opened(tmp_path, f"path,{column}", "a.mp4,10")
    assert len(opened(tmp_path, f"path,{column},start,end", "a.mp4,10,1,2")) == 1  # seconds are there as well


def test_a_duration_does_not_replace_the_end(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="columns 'start' and 'duration' have no end; add the end in seconds"):
        opened(tmp_path, "path,start,duration", "a.mp4,10,5")


def test_two_starts_are_an_error_unless_they_agree(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="the columns 'start' and 'start_s' could each be the start of the part to use"
    ):
        opened(tmp_path, "path,start,start_s", "a.mp4,1,2")
    assert spans(opened(tmp_path, "path,start,start_s", "a.mp4,1,1")) == [(1, None)]
