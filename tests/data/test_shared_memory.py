"""Tests of shared memory: what loaders need of it, and what they do if there is too little."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from own_sources import Arrays, noise

import eztorch_sce as sce
from eztorch_sce.data.collate import stack
from eztorch_sce.data.parcel import Channels, Parcel
from eztorch_sce.data.shared_memory import Supply, fitted
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import Failure, Sample

MB = 2**20
TRAININGS = """
import numpy as np
import eztorch_sce as sce

class Images:
    def __len__(self): return 16
    def read(self, index): return np.full((3, 64, 64), index, np.uint8)
    def label(self, index): return None
    def name(self, index): return str(index)

view = sce.views("cifar")[0]
view.size = 256  # 197 kB per image

def train(batch_size, fill=0):
    data = sce.DataConfig(num_frames=1, num_workers=2, batch_size=batch_size).with_source(Images())
    try:
        loader = sce.training_loader(data, [view, view])
        if fill:
            open("/dev/shm/other", "wb").write(bytes(fill))
        print(len(list(map(len, loader))), "batches", flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)

train(8)
train(2)
train(2, fill=7 * 2**19)
"""


def test_a_tiny_shared_memory_is_named_or_suffices() -> None:
    mount = 'mount -t tmpfs -o size=4m tmpfs /dev/shm && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", TRAININGS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if not done.stdout:
        pytest.skip(f"no mount of its own: {done.stderr}")
    too_small, suffices, filled_later = done.stdout.splitlines()
    assert too_small.startswith("ConfigError - shared memory (/dev/shm) has 4 MB free, and a batch takes 3 MB: ")
    assert "docker run --shm-size=23m" in too_small  # 6 batches, and a quarter more
    assert "data.num_workers=0" in too_small
    assert suffices == "8 batches"
    assert "note: shared memory (/dev/shm) has 4 MB free" in done.stderr
    assert "data.num_workers=2 and data.prefetch=1 instead of data.num_workers=2 and data.prefetch=2" in done.stderr
    assert filled_later.startswith("LoadingError shared memory (/dev/shm) is full: set data.prefetch=1")


def free(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    status = SimpleNamespace(f_bavail=num_bytes // 4096, f_frsize=4096)
    monkeypatch.setattr("os.statvfs", lambda path: status)


def test_fewer_batches_wait_before_there_are_fewer_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 64 * MB)
    wanted = Supply(num_workers=8, prefetch=4)
    assert fitted(wanted, MB, num_processes=1, title="training") == (wanted, "")  # 34 MB
    supply, note = fitted(wanted, 2 * MB, num_processes=1, title="training")
    assert supply == (8, 3)  # 26 batches are 52 MB, and 34 would be 68
    assert "data.num_workers=8 and data.prefetch=3 instead of data.num_workers=8 and data.prefetch=4" in note
    assert fitted(wanted, 2 * MB, num_processes=4, title="training")[0] == (6, 1)  # 8 batches are 16 MB
    with pytest.raises(ConfigError, match=r"for 4 processes, and a batch takes 8 MB: the training needs 96 MB even"):
        fitted(wanted, 8 * MB, num_processes=4, title="training")


def test_a_training_without_room_stops_before_it_has_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sce.PretrainConfig(
        data=sce.DataConfig(batch_size=8, num_workers=2, num_frames=1),
        views="small_image",
        backbone="resnet18",
        optimizer="sgd",
        trainer=sce.TrainerConfig(max_epochs=1, accelerator="cpu"),
        run=sce.RunConfig(dir=str(tmp_path / "run")),
    )
    free(monkeypatch, 4096)
    with pytest.raises(ConfigError, match=r"shared memory \(/dev/shm\) has 4 kB free"):
        sce.pretrain(config, data=Arrays(noise(16, 3, 20, 24)))
    assert not (tmp_path / "run").exists()


def test_an_evaluation_without_room_loads_without_workers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = sce.DataConfig(num_workers=2, num_frames=1).with_source(Arrays(noise(6, 3, 20, 24)))
    backbone = sce.SmallR2Plus1DConfig(width=4, num_blocks=1).build()
    expected = sce.extract_features(backbone, data, sce.InputSpec(1, size=16))
    free(monkeypatch, 4096)
    bank = sce.extract_features(backbone, data, sce.InputSpec(1, size=16))
    torch.testing.assert_close(bank.features, expected.features)  # of other batches
    assert "It now loads without workers" in capsys.readouterr().err


def test_a_parcel_holds_the_batch() -> None:
    sizes = (5, 8)
    items: list[Sample | Failure] = [
        Sample([torch.randint(256, (3, 2, size, size), dtype=torch.uint8) for size in sizes], record, record, 4, 1.5)
        for record in range(3)
    ]
    channels = Channels(num_workers=1)
    items.insert(1, Failure(7, "broken.mp4", "is damaged"))
    batch, expected = Parcel(items, len(items), channels, 0).open(), stack(items)
    for column in ("label", "record", "epoch", "aspect"):
        assert torch.equal(getattr(batch, column), getattr(expected, column))
        assert getattr(batch, column).dtype == getattr(expected, column).dtype
    assert all(torch.equal(*pair) for pair in zip(batch.frames, expected.frames, strict=True))
    assert batch.failures == expected.failures
    storages = {frames.untyped_storage().data_ptr() for frames in batch.frames}
    assert len(storages) == 1
    assert batch.record.untyped_storage().data_ptr() not in storages
    only_failures = Parcel(items[1:2], 1, channels, 0).open()
    assert (only_failures.frames, len(only_failures.record), only_failures.failures) == ([], 0, items[1:2])


def test_samples_of_different_sizes_are_an_error() -> None:
    frames = [torch.zeros(3, 1, size, size, dtype=torch.uint8) for size in (4, 1)]
    with pytest.raises(RuntimeError, match="samples of one batch have frames of"):
        Parcel([Sample([each], 0, 0, 0, 1.0) for each in frames], 2, Channels(1), 0)
