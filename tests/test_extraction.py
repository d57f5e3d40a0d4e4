"""Tests of `extract`: shards on any process, interruption, unreadable files, merging."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import eztorch_sce as sce
from eztorch_sce import api
from eztorch_sce.config.compose import compose
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.extraction_merge import check_alike
from eztorch_sce.extraction_work import ExtractWork
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.worker import work_on
from eztorch_sce.models.weights import save_weights

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in this process: the digits depend on the number
NETWORK = sce.SmallR2Plus1DConfig(width=4, num_blocks=1)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of 30 train and 10 test images of two classes."""
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for number in range(40):
        place = folder / ("val" if number % 4 == 0 else "train") / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(place / f"r{number:02d}.png")
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return a weights file of a small network for images of 16 pixels."""
    torch.manual_seed(0)
    file = tmp_path / "backbone.safetensors"
    save_weights(file, NETWORK.build(), NETWORK, sce.InputSpec(1, size=16), None, [])
    return file


def words(images: Path, weights: Path, run_dir: Path, *settings: str) -> list[str]:
    return [
        f"data.root={images}", f"weights={weights}", f"run.dir={run_dir}", "accelerator=cpu", "data.num_workers=0",
        *settings,
    ]  # fmt: skip


def extract(images: Path, weights: Path, run_dir: Path, *settings: str) -> sce.Report:
    return api.extract(compose("extract", words(images, weights, run_dir, *settings)))


def content(run_dir: Path, split: str) -> dict[str, Any]:
    return vars(sce.FeatureBank.load(run_dir / f"features_{split}.pt"))


def assert_equal(first: Path, second: Path) -> None:
    for split in ("train", "test"):
        banks = content(first, split), content(second, split)
        assert all(torch.equal(bank["features"], banks[0]["features"]) for bank in banks)
        assert banks[0]["paths"] == banks[1]["paths"]
        assert torch.equal(banks[0]["labels"], banks[1]["labels"])


def interrupted(run_dir: Path, monkeypatch: pytest.MonkeyPatch, *run: Any) -> None:
    """Call `extract`, which ends before its work starts and leaves the folder of its job."""

    def end(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("eztorch_sce.extraction.finish_job", end)
        with pytest.raises(KeyboardInterrupt):
            extract(*run)
    assert (run_dir / ".extract" / "job.json").is_file()


def test_a_worker_on_its_own_computes_the_same_bits_from_the_job_folder(
    images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(images, weights, tmp_path / "local", "runner.shard_records=9")
    run = images, weights, tmp_path / "apart", "runner.shard_records=9"
    interrupted(tmp_path / "apart", monkeypatch, *run)
    folder = str(tmp_path / "apart" / ".extract")
    for shards in ([3], [4, 0]):
        work_on(folder, shards, num_workers=1)
    hosts = {number: receipt.host for number, receipt in Job.open(folder).receipts().items()}
    assert sorted(hosts) == [0, 3, 4]
    extract(*run)  # does the others
    assert_equal(tmp_path / "local", tmp_path / "apart")
    assert not (tmp_path / "apart" / ".extract").exists()


def test_a_worker_refuses_weights_that_are_others_where_it_runs(
    images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = images, weights, tmp_path / "run"
    interrupted(tmp_path / "run", monkeypatch, *run)
    torch.manual_seed(1)
    save_weights(weights, NETWORK.build(), NETWORK, sce.InputSpec(1, size=16), None, [])
    with pytest.raises(ConfigError, match="is another file here"):
        work_on(str(tmp_path / "run" / ".extract"), [0], num_workers=0)


def test_segments_of_a_video_have_their_own_features(
    weights: Path, tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    brighter = partial(np.full, (32, 32, 3), dtype=np.uint8)
    file = write_video(tmp_path / "video.mp4", num_frames=240, fps=30, image=brighter)
    spans = [("0", "0.4"), ("0.4", "0.8"), ("4", "8"), ("", "")]
    (tmp_path / "list.csv").write_text("path,start,end\n" + "".join(f"{file},{a},{b}\n" for a, b in spans))
    settings = [
        f"data.list={tmp_path / 'list.csv'}", f"weights={weights}", "accelerator=cpu", "data.num_workers=0",
        "test.num_clips=1", "test.num_crops=1", "runner.shard_records=2",
    ]  # fmt: skip
    api.extract(compose("extract", [*settings, f"run.dir={tmp_path / 'run'}"]))
    features = content(tmp_path / "run", "train")["features"]
    assert len(features.unique(dim=0)) == 4


def test_an_extract_that_was_killed_goes_on(images: Path, weights: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eztorch_sce", "extract"]
    run = words(images, weights, tmp_path / "run", "runner.shard_records=1")
    receipts = tmp_path / "run" / ".extract" / "receipts"
    with subprocess.Popen(
        [*command, *run], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ONE_THREAD
    ) as process:
        while process.poll() is None and len(list(receipts.glob("*.json"))) < 12:
            time.sleep(0.0005)  # a shard takes a few milliseconds
        process.send_signal(signal.SIGKILL)
    before = sorted(receipts.glob("*.json"))
    assert 12 <= len(before) < 40
    texts = [file.read_text() for file in before]
    for number, file in enumerate(before):
        os.link(file, tmp_path / f"{number}.json")  # `extract` removes the folder of its job, and replaces no receipt
    result = subprocess.run([*command, *run], capture_output=True, text=True, check=True, env=ONE_THREAD)
    assert f"going on with {tmp_path / 'run'}" in result.stderr
    assert "of 40 records are done and unchanged" in result.stderr
    assert [(tmp_path / f"{number}.json").read_text() for number in range(len(before))] == texts
    extract(images, weights, tmp_path / "whole", "runner.shard_records=1")
    assert_equal(tmp_path / "whole", tmp_path / "run")
    result = subprocess.run([*command, *run], capture_output=True, text=True, check=True, env=ONE_THREAD)
    assert "holds a finished run of these settings" in result.stderr


def rows(file: Path) -> Sequence[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_all_unreadable_files_are_named_at_once_and_the_others_are_not_read_again(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    broken = [images / "train" / "a" / "r02.png", images / "val" / "a" / "r08.png"]
    for file in broken:
        file.write_bytes(b"no image")
    run = images, weights, tmp_path / "run", "runner.shard_records=9"
    with pytest.raises(MediaError, match=r"r02.png: .*2 of 40 records .*failed.csv.*Evaluation requires every record"):
        extract(*run)
    failed = rows(tmp_path / "run" / "failed.csv")
    assert [row["path"] for row in failed] == list(map(str, broken))
    assert all(row["reason"] for row in failed)
    assert not list((tmp_path / "run").glob("*.pt"))
    job = Job.open(tmp_path / "run" / ".extract")
    times = {number: receipt.finished for number, receipt in job.receipts().items()}
    assert len(times) == job.count
    assert not (tmp_path / "run" / "report.json").exists()

    for file in broken:
        Image.new("RGB", (20, 20)).save(file)
    extract(*run)
    assert len(content(tmp_path / "run", "train")["features"]) == 30
    assert not (tmp_path / "run" / "failed.csv").exists()


def test_unreadable_files_can_be_omitted(
    images: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(images, weights, tmp_path / "whole")
    (images / "val" / "a" / "r08.png").write_bytes(b"no image")
    run = images, weights, tmp_path / "run", "runner.shard_records=9"
    with pytest.raises(MediaError, match=r"r08\.png"):
        extract(*run)
    report = extract(*run, "unreadable=omit")
    assert "1 of 40 records could not be read and have no features" in capsys.readouterr().err
    assert report.metrics["test_records"] == 9
    whole, rest = (content(tmp_path / name, "test") for name in ("whole", "run"))
    kept = [place for place, path in enumerate(whole["paths"]) if not path.endswith("r08.png")]
    torch.testing.assert_close(whole["features"][kept], rest["features"])  # of other batches
    assert [whole["paths"][place] for place in kept] == rest["paths"]
    assert rest["protocol"]["unreadable"] == 1
    assert rows(tmp_path / "run" / "failed.csv")[0]["path"].endswith("r08.png")


def test_a_split_of_which_nothing_can_be_read_is_an_error(images: Path, weights: Path, tmp_path: Path) -> None:
    for file in (images / "val").rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(ConfigError, match="has no records"):
        extract(images, weights, tmp_path / "run", "unreadable=omit", "runner.shard_records=3")


class NotANumber(torch.nn.Module):
    """Mean color, but NaN for images that are black."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.flatten(start_dim=2).mean(dim=2)
        return torch.where(means < -2, torch.nan, means)


def test_features_that_are_not_numbers_are_named(images: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(images / "train" / "a" / "r02.png")
    config = sce.ExtractConfig(
        data=sce.DataConfig(root=str(images), num_workers=0, num_frames=1),
        run=sce.RunConfig(dir=str(tmp_path / "run")),
        accelerator="cpu",
    )
    with pytest.raises(ConfigError, match=r"NaN or infinite features \(1 of 30: .*r02.png\)"):
        api.extract(config, backbone=NotANumber())


@pytest.mark.long
def test_processes_that_are_launched_together_compute_the_same_bits(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    run = words(images, weights, tmp_path / "two", "runner.shard_records=9", "test.num_crops=1")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "eztorch_sce"]
    subprocess.run([*command, "extract", *run], check=True, capture_output=True, env=ONE_THREAD)
    extract(images, weights, tmp_path / "three", "runner.shard_records=9", "test.num_crops=1")
    assert_equal(tmp_path / "two", tmp_path / "three")


def test_shards_of_several_kinds_of_devices_are_not_mixed() -> None:
    check_alike({"cpu 32-true": ["shard 0 on a:1"]})
    with pytest.raises(ConfigError, match=r"cpu 32-true: shard 0 on a:1; cuda bf16-mixed: shard 1 on b:2"):
        check_alike({"cpu 32-true": ["shard 0 on a:1"], "cuda bf16-mixed": ["shard 1 on b:2"]})


def test_the_settings_of_the_work_are_json_and_rebuild_it(
    images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path / "run", monkeypatch, images, weights, tmp_path / "run")
    job = Job.open(tmp_path / "run" / ".extract")
    work = ExtractWork.load(json.loads(json.dumps(job.settings)))
    assert work.settings() == job.settings


@pytest.mark.long
@pytest.mark.parametrize("runner", [["slurm", "runner.executor=local", "runner.cpus_per_task=1"], ["ray"]], ids=str)
def test_a_cluster_computes_the_same_bits(runner: list[str], images: Path, weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit" if runner[0] == "slurm" else "ray")
    (images / "val" / "a" / "r08.png").write_bytes(b"no image")
    name, *settings = runner
    for place, chosen in (("here", []), ("there", [f"runner={name}", *settings])):
        run = words(images, weights, tmp_path / place, "runner.shard_records=9", "unreadable=omit")
        command = [sys.executable, "-m", "eztorch_sce", "extract", *chosen, *run]
        subprocess.run(command, check=True, capture_output=True, env=ONE_THREAD)
    assert_equal(tmp_path / "here", tmp_path / "there")
    assert rows(tmp_path / "here" / "failed.csv") == rows(tmp_path / "there" / "failed.csv")


def test_a_cluster_cannot_compute_what_only_this_process_holds(images: Path, tmp_path: Path) -> None:
    config = sce.ExtractConfig(
        data=sce.DataConfig(root=str(images), num_workers=0),
        run=sce.RunConfig(dir=str(tmp_path / "run")),
        runner="slurm",
    )
    with pytest.raises(ConfigError, match="runner=slurm cannot extract features with a backbone passed as a Python"):
        api.extract(config, backbone=NotANumber())
    assert not (tmp_path / "run").exists()
