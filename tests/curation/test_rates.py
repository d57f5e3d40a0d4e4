"""Tests of the speeds that `data bench` measures for `data plan`."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eztorch_sce import cli
from eztorch_sce.curation.rates import read_rates, write_rates
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.walk import RATES_FILE
from eztorch_sce.errors import ConfigError

pytestmark = pytest.mark.xdist_group("rates")  # the videos are measured once, in one worker

_SMALL = ["data.num_frames=2", "data.clip_s=0.5", "data.batch_size=2", "data.num_workers=0"]


@pytest.fixture(scope="module")
def videos(write_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of short videos after `data bench`."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        write_video(folder / f"{number}.mp4", num_frames=30 * (1 + number))
    shutil.copy(folder / "3.mp4", folder / "4.mp4")
    cli.main(["data", "bench", str(folder), *_SMALL])
    return folder


def test_the_facts_of_the_files_are_theirs(videos: Path) -> None:
    rates = read_rates(videos)
    sizes = [file.stat().st_size for file in videos.glob("*.mp4")]
    assert min(sizes) < rates.bytes_per_record < max(sizes)
    assert 1 < rates.duration_s < 4
    assert rates.num_records == 5
    assert rates.videos == 1
    assert 0 < rates.scaling <= 1


def test_speeds_are_measured_for_each_command(videos: Path) -> None:
    rates = read_rates(videos)
    assert rates.prepare is not None
    assert rates.reading.clips is not None
    speeds = (rates.doctor, rates.prepare, rates.reading.one_clip, rates.reading.clips)
    assert all(speed.records_per_s > 0 and speed.num_records > 0 for speed in speeds)
    assert rates.doctor.bytes_read >= 0.5 * rates.bytes_per_record  # the doctor reads the packets of a file
    assert rates.prepare.bytes_written > 0
    assert rates.doctor.bytes_written == 0
    assert rates.reading.one_clip.records_per_s > rates.reading.clips.records_per_s  # 10 clips take longer than 1
    assert rates.network.views_per_s > 0
    assert rates.network.num_features > 0
    assert rates.merge.bytes_per_row > 100


def test_the_result_is_not_mistaken_for_data(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(DataConfig(root=str(videos)).open_for_pretraining(seed=0).train.records) == 5
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "doctor", str(videos), "workers=1"])
    assert ended.value.code == 0
    assert RATES_FILE not in capsys.readouterr().out


def test_images_have_speeds_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.jpg")
    cli.main(["data", "bench", str(tmp_path), "data.batch_size=2"])
    rates = read_rates(tmp_path)
    assert rates.prepare is None
    assert rates.reading.clips is None
    assert rates.videos == 0
    assert rates.reading.one_clip.records_per_s > 0
    assert "no videos" in capsys.readouterr().out


def test_speeds_are_read_as_they_were_written(videos: Path, tmp_path: Path) -> None:
    rates = replace(read_rates(videos), prepare=None)
    write_rates(tmp_path, rates)
    assert read_rates(tmp_path) == rates


def test_a_folder_without_speeds_names_the_command(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run `eztorch-sce data bench .*` first"):
        read_rates(tmp_path)
    content = json.loads((videos / RATES_FILE).read_text())
    for damaged in ("{", "[]", "{}", json.dumps(content | {"another": 1}), json.dumps(content | {"doctor": None})):
        (tmp_path / RATES_FILE).write_text(damaged)
        with pytest.raises(ConfigError, match=r"run `eztorch-sce data bench .*` again"):
            read_rates(tmp_path)
