"""Tests of the doctor and the copies as jobs: what is done again, and that any division of the files gives the same."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from image_files import jpeg

from eztorch_sce.curation.doctor import diagnose
from eztorch_sce.curation.doctor_work import DoctorWork
from eztorch_sce.curation.prepare import prepare
from eztorch_sce.curation.prepare_work import PrepareWork
from eztorch_sce.curation.settings import DoctorConfig, PrepareConfig
from eztorch_sce.curation.shared_folder import records_of_files
from eztorch_sce.data.media import VIDEO_SUFFIXES
from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.data.sources.media_kinds import Listing, all_media
from eztorch_sce.data.sources.media_table import TABLE_NAME
from eztorch_sce.errors import ConfigError
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.merge import merge
from eztorch_sce.jobs.runners.local import LocalConfig
from eztorch_sce.jobs.work import Work

_WORKER = "import sys; from eztorch_sce.jobs.worker import work_on; work_on(sys.argv[1], eval(sys.argv[2]), 1)"


def in_shards_of(num_records: int) -> LocalConfig:
    return LocalConfig(shard_records=num_records)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Folder of three images, of which the second is cut, and a frame folder."""
    root = tmp_path / "images"
    (root / "frames" / "v").mkdir(parents=True)
    for number in range(3):
        (root / f"{number}.jpg").write_bytes(jpeg(seed=number)[: 900 if number == 1 else None])
        (root / "frames" / "v" / f"{number:04d}.jpg").write_bytes(jpeg(seed=number))
    return root


def table_of(root: Path) -> pa.Table:
    with pa.memory_map(str(root / TABLE_NAME)) as file:
        return pa.ipc.open_file(file).read_all()


def findings(root: Path, config: DoctorConfig | None = None) -> dict[str, list[str]]:
    return {row.path: row.findings for row in diagnose(root, config or DoctorConfig(workers=1)).rows}


def test_the_doctor_inspects_only_files_that_have_changed(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = findings(images)
    table = table_of(images)
    assert findings(images) == first
    assert table_of(images).equals(table)
    assert "4 of 4 records are done and unchanged" in capsys.readouterr().err

    status = (images / "0.jpg").stat()
    (images / "0.jpg").write_bytes(bytes(status.st_size))  # damage that neither the size nor the time tells
    os.utime(images / "0.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    (images / "1.jpg").write_bytes(jpeg(seed=1))
    assert findings(images) == first | {"1.jpg": []}
    assert "3 of 4 records are done and unchanged" in capsys.readouterr().err

    (images / "frames" / "v" / "0001.jpg").write_bytes(b"no image")  # which the time of the folder does not tell
    assert findings(images)["frames/v"] != []
    full = findings(images, DoctorConfig(full=True, workers=1))  # other settings: all again
    assert full["0.jpg"] != []


def test_contents_are_read_again_only_of_files_that_have_changed(images: Path) -> None:
    for name in ("0 again.jpg", "0 too.jpg"):
        shutil.copy2(images / "0.jpg", images / name)
    duplicate = ["duplicate: same content as 0 again.jpg"]
    first = findings(images)
    assert (first["0 too.jpg"], first["0.jpg"]) == (duplicate, duplicate)
    status = (images / "0.jpg").stat()
    content = (images / "0.jpg").read_bytes()
    for name in ("0.jpg", "0 too.jpg"):  # the last byte of the end marker
        (images / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(images / "0.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    second = findings(images)
    assert second["0.jpg"] == duplicate  # as it was
    assert duplicate[0] not in second["0 too.jpg"]
    (images / ".doctor" / "contents.arrow").write_bytes(b"damaged")
    assert duplicate[0] not in findings(images)["0.jpg"]


def test_contents_are_read_of_files_that_agree_in_size_beginning_and_end(images: Path) -> None:
    names = ("one.mp4", "other end.mp4", "other middle.mp4", "same.mp4")
    for name in names:
        (images / name).write_bytes(bytes(50_000))
    for name, place in (("other end.mp4", 49_999), ("other middle.mp4", 25_000)):
        with (images / name).open("r+b") as file:
            file.seek(place)
            file.write(b"x")
    diagnosis = diagnose(images)
    digests = {row.path: row.digest for row in diagnosis.rows if row.path in names}
    assert digests["other end.mp4"] == ""
    assert digests["one.mp4"] == digests["same.mp4"] != digests["other middle.mp4"] != ""
    duplicates = [row.path for row in diagnosis.rows if any("duplicate" in finding for finding in row.findings)]
    assert duplicates == ["same.mp4"]


def test_the_folder_of_the_job_is_not_part_of_the_data(images: Path) -> None:
    (images / "frames").rename(images.parent / "frames")
    first = diagnose(images)
    assert (images / ".doctor" / "job.json").is_file()
    manifest = from_folder(images)
    assert (manifest.notes, manifest.ignored) == ([], {})
    second = diagnose(images)
    assert (list(second.rows), second.skipped, Listing.of(str(images)).ignored()) == (list(first.rows), [], {})


def test_a_folder_that_was_moved_is_not_inspected_again(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = findings(images)
    moved = images.rename(images.parent / "moved")
    assert findings(moved) == first
    assert "4 of 4 records are done and unchanged" in capsys.readouterr().err


def test_a_machine_that_does_not_see_the_files_is_named(images: Path) -> None:
    records = records_of_files(all_media(Listing.of(str(images)), "FOLDER"), str(images))
    job = Job.create(images.parent / "job", DoctorWork(str(images), full=False), records, per_shard=10)
    images.rename(images.parent / "elsewhere")
    with pytest.raises(ConfigError, match=rf"does not see the files of FOLDER={images}, such as 0.jpg: mount it"):
        list(DoctorWork.load(job.settings).process([job.shard(0)], 1, lambda num_records, num_failures=0: None))


def by_processes(folder: Path, work: Work, records: pa.Table, num_processes: int) -> pa.Table:
    """Return the merged table of a job that several processes work on at once, as the tasks of a cluster do."""
    job = Job.create(folder, work, records, per_shard=3)
    parts: Sequence[list[int]] = [list(range(start, job.count, num_processes)) for start in range(num_processes)]
    command = [sys.executable, "-c", _WORKER, str(folder)]
    processes = [subprocess.Popen([*command, repr(part)]) for part in parts]
    assert [process.wait() for process in processes] == [0] * num_processes
    return merge(job).table


@pytest.mark.real_data
@pytest.mark.long
def test_any_division_among_processes_gives_the_same_table_and_copies(shared: Path, tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()  # without a video that is slow to copy
    for path in (shared / "data" / "broken").iterdir():
        if path.is_file() and path.suffix in VIDEO_SUFFIXES and "timestamp_gap" not in path.name:
            shutil.copyfile(path, root / f"{path.stem} {path.suffix[1:]}{path.suffix}")
    reference = diagnose(root, DoctorConfig(workers=2, runner=in_shards_of(1000)))
    table = table_of(root)
    for num_records in (1, 7):
        shutil.rmtree(root / ".doctor")
        again = diagnose(root, DoctorConfig(workers=2, runner=in_shards_of(num_records)))
        assert list(again.rows) == list(reference.rows)
        assert table_of(root).equals(table)
    records = records_of_files(all_media(Listing.of(str(root)), "FOLDER"), str(root))
    rows = by_processes(tmp_path / "job", DoctorWork(str(root), full=False), records, num_processes=2)
    assert [os.fsdecode(key) for key in rows["key"].to_pylist()] == [row.path for row in reference.rows]
    assert rows["duration_s"].to_pylist() == [row.duration_s for row in reference.rows]
    assert rows["num_frames"].to_pylist() == [row.num_frames for row in reference.rows]

    config = PrepareConfig(short_side=16, workers=2)
    prepared = prepare(root, tmp_path / "copies", config)
    by_ones = prepare(root, tmp_path / "ones", replace(config, runner=in_shards_of(1)))
    assert (by_ones.num_written, by_ones.failed) == (prepared.num_written, prepared.failed)
    work = PrepareWork(str(root), str(tmp_path / "others"), config)
    copies = by_processes(tmp_path / "others" / ".prepare", work, records, num_processes=2)
    assert len(copies) == prepared.num_written > 10
    for target in map(os.fsdecode, copies["target"].to_pylist()):
        contents = {(tmp_path / out / target).read_bytes() for out in ("copies", "ones", "others")}
        assert len(contents) == 1


def test_a_finished_job_copies_nothing_and_says_so(
    write_video: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        write_video(tmp_path / "s" / f"{number}.mp4", num_frames=10)
    config = PrepareConfig(short_side=16, workers=1, runner=in_shards_of(1))
    assert prepare(tmp_path / "s", tmp_path / "c", config).num_written == 3
    again = prepare(tmp_path / "s", tmp_path / "c", config)
    assert (again.num_written, again.num_kept, again.speedup) == (0, 3, None)
    assert "3 of 3 records are done and unchanged" in capsys.readouterr().err
