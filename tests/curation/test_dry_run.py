"""Tests of `--dry-run` with `data` commands."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from eztorch_sce import cli


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of everything in a folder."""
    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths}


def dry_run(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    cli.main(["data", *words, "--dry-run"])
    return capsys.readouterr().out.splitlines()


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", *words])
    assert ended.value.code == 0


@pytest.fixture
def videos(write_video: Callable[..., Path], tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(4):
        write_video(folder / f"{number}.mp4", num_frames=4 + number)
    return folder


def test_the_doctor_tells_what_is_left_and_writes_nothing(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = states(videos)
    lines = dry_run(capsys, "doctor", str(videos), "runner.shard_records=1", "workers=1")
    assert states(videos) == before
    assert lines[0] == "dry run of data doctor: no mistakes found, and nothing was written"
    assert "4 of 4 shards to do, with 4 of 4 records" in lines
    assert "runner=local: the processes of this machine" in lines

    run("doctor", str(videos), "runner.shard_records=1", "workers=1")
    before = states(videos)
    assert "0 of 4 shards to do, with 0 of 4 records" in dry_run(capsys, "doctor", str(videos))
    os.utime(videos / "2.mp4", (1, 1))
    assert any(line.startswith("1 of 4 shards to do, ") for line in dry_run(capsys, "doctor", str(videos)))
    os.utime(videos / "2.mp4", ns=(1, before[str(videos / "2.mp4")][1]))
    assert states(videos) == before


def test_copies_that_are_lost_are_to_be_written_again(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "copies"
    assert f"copies to write: 4 of 4, to {out}" in dry_run(capsys, "prepare", str(videos), str(out))
    assert not out.exists()
    run("prepare", str(videos), str(out), "workers=1")
    assert f"copies to write: 0 of 4, to {out}" in dry_run(capsys, "prepare", str(videos), str(out))
    next(out.glob("3.*")).unlink()
    before = states(out)
    lines = dry_run(capsys, "prepare", str(videos), str(out))
    assert f"copies to write: 1 of 4, to {out}" in lines
    assert any(line.startswith("1 of ") for line in lines)
    assert states(out) == before


def test_mistakes_are_told_by_a_dry_run_too(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["doctor", "nowhere"], ["doctor", str(videos), "lists=[nowhere.csv]"], ["check", "ucf101", "."]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["data", *words, "--dry-run"])
        assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert "FOLDER=nowhere does not exist" in errors
    assert "nowhere.csv" in errors
    assert "data check has no --dry-run; the commands that have one are data doctor, data prepare" in errors


def test_the_job_script_is_shown_in_full(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = states(videos)
    lines = dry_run(capsys, "doctor", str(videos), "runner=slurm", "runner.partition=data", "runner.shard_records=2")
    assert "#SBATCH --partition=data" in lines
    assert any(line.startswith("srun ") and line.endswith(f" {videos}/.doctor/slurm") for line in lines)
    assert states(videos) == before
