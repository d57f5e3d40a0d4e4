"""Tests of `data bench`, whose result `data.decoder=auto` uses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from eztorch_sce import cli
from eztorch_sce.data.config import DECODER_FILE, DataConfig
from eztorch_sce.errors import ConfigError


def test_the_fastest_decoder_that_agrees_with_pyav_is_chosen(
    write_video: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", num_frames=40)
    write_video(tmp_path / "old.avi", num_frames=40)  # decord and torchcodec refuse AVI with B-frames
    with pytest.raises(ConfigError, match="data bench"):
        DataConfig(root=str(tmp_path), decoder="auto").open()
    cli.main(["data", "bench", str(tmp_path), "data.num_frames=2", "data.clip_s=0.5", "data.batch_size=2"])
    assert "data.decoder=pyav" in capsys.readouterr().out
    result = json.loads((tmp_path / DECODER_FILE).read_text())
    assert result["decoder"] == "pyav"
    rows = {row["decoder"]: row for row in result["decoders"]}
    assert rows["pyav"]["clips_per_s"] > 0
    assert rows["decord"]["num_refused"] == 1
    assert "old.avi refused" in rows["decord"]["remark"]
    assert DataConfig(root=str(tmp_path), decoder="auto").decoder_name() == "pyav"


def test_a_missing_folder_is_a_mistake() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "bench", "data.num_frames=2"])
    assert ended.value.code == 2
