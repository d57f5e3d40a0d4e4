"""Tests of training loaders for your own loop."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eztorch_sce.augment.policies import views
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.data.dataset import EpochSampler
from eztorch_sce.data.loading import TrainingLoader, evaluation_batch_size, training_loader
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.types import Batch, InputSpec

VIEWS = views("cifar", size=16)


@pytest.fixture(scope="module")
def videos(write_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for number in range(5):
        write_video(root / f"{number}.mp4", num_frames=20)
    return root


def loader_of(root: Path, batch_size: int = 2, num_workers: int = 0, on_error: str = "skip") -> TrainingLoader:
    clips = DataConfig(root=str(root), num_frames=2, clip_s=0.2)
    clips.batch_size, clips.num_workers, clips.on_error = batch_size, num_workers, on_error
    clips.max_unreadable = 0.5
    return training_loader(clips, VIEWS, seed=1)


def same(first: list[Batch], second: list[Batch]) -> bool:
    frames = [[frames for batch in batches for frames in batch.frames] for batches in (first, second)]
    return all(torch.equal(a, b) for a, b in zip(*frames, strict=True))


@pytest.mark.parametrize(("spec", "num_views"), [(InputSpec(), 1), (InputSpec(), 30), (InputSpec(1, size=32), 1)])
def test_a_batch_of_an_evaluation_takes_at_most_32_mb(spec: InputSpec, num_views: int) -> None:
    bytes_per_record = torch.zeros(num_views, 3, spec.num_frames, spec.size, spec.size, dtype=torch.uint8).nbytes
    batch_size = evaluation_batch_size(spec, num_views)
    assert 1 <= batch_size <= 256
    assert batch_size == 1 or batch_size * bytes_per_record <= 32 * 2**20


@pytest.mark.parametrize("num_workers", [0, 1])
def test_each_iteration_is_a_new_epoch(videos: Path, num_workers: int) -> None:
    loader = loader_of(videos, num_workers=num_workers)
    epochs = [list(loader) for _ in range(3)]
    assert [batches[0].epoch.tolist() for batches in epochs] == [[0, 0], [1, 1], [2, 2]]
    assert not same(epochs[0], epochs[1])
    assert [len(batches) for batches in epochs] == [len(loader)] * 3 == [2] * 3  # the fifth record makes no batch


def test_an_epoch_that_is_left_early_is_not_repeated() -> None:
    sampler = EpochSampler(10, seed=0, shuffle=True)
    first = next(iter(sampler))
    assert first[0] == 0
    assert {epoch for epoch, _ in sampler} == {1}


def test_a_set_epoch_is_the_next_one() -> None:
    sampler = EpochSampler(10, seed=0, shuffle=True)
    whole = list(sampler)
    sampler.set_epoch(7)
    assert {epoch for epoch, _ in sampler} == {7}
    assert {epoch for epoch, _ in sampler} == {8}
    sampler.set_epoch(0)
    assert list(sampler) == whole


def test_an_epoch_goes_on_after_its_first_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another number of processes as well: the place is counted in samples of all of them."""
    whole = list(EpochSampler(12, seed=0, shuffle=True))
    monkeypatch.setattr("eztorch_sce.distributed.world_size", lambda: 2)
    by_process = []
    for rank in range(2):
        monkeypatch.setattr("eztorch_sce.distributed.rank", lambda rank=rank: rank)
        sampler = EpochSampler(12, seed=0, shuffle=True)
        sampler.start_at(0, 4)
        sampler.set_epoch(0)  # as Lightning does
        by_process.append(list(sampler))
        assert len(list(sampler)) == 6  # the next epoch is whole
    assert [pair for both in zip(*by_process, strict=True) for pair in both] == whole[4:]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_goes_on_at_a_saved_place(videos: Path, num_workers: int) -> None:
    loader = loader_of(videos, num_workers=num_workers)
    epochs = [list(loader) for _ in range(2)]
    batches = iter(loader)
    third = next(batches)
    place = loader.state_dict()
    assert place == {"epoch": 2, "samples": 2}
    rest = list(batches)
    assert loader.state_dict() == {"epoch": 3, "samples": 0}
    again = loader_of(videos, num_workers=0)
    again.load_state_dict(place)
    assert same(list(again), rest)
    again.load_state_dict({"epoch": 1, "samples": 0})
    assert same(list(again), epochs[1])
    assert third.epoch.tolist() == [2, 2]


def test_batches_are_those_of_pretraining(videos: Path) -> None:
    loader = loader_of(videos)
    config = DataConfig(root=str(videos), num_frames=2, clip_s=0.2, batch_size=2, num_workers=0)
    module = TrainingData(config, loader.manifest, VIEWS, loader.spec, seed=1)
    assert same(list(loader), list(module.train_dataloader()))


def test_the_loader_augments_its_batches(videos: Path) -> None:
    loader = loader_of(videos)
    output = loader.augment(next(iter(loader)))
    assert [tuple(view.shape) for view in output.views] == [(2, 3, 2, 16, 16)] * 2
    assert (loader.spec.num_frames, loader.spec.size, loader.spec.stats) == (2, 16, "cifar10")
    assert len(loader.manifest.records) == 5


def test_a_batch_moves_with_one_call(videos: Path) -> None:
    batch = next(iter(loader_of(videos)))
    moved = batch.to("meta", non_blocking=True)
    assert [frames.device.type for frames in [*moved.frames, moved.label]] == ["meta"] * 3
    assert torch.equal(moved.record, batch.record)  # used on the host
    assert batch.label.device.type == "cpu"


def test_an_unreadable_file_is_left_out_with_one_warning(videos: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.mp4").symlink_to(videos / f"{number}.mp4")
    (tmp_path / "broken.mp4").write_text("not a video")
    loader = loader_of(tmp_path, batch_size=4)
    with pytest.warns(UserWarning, match=r"left out of training: .*broken.mp4") as warned:
        counts = [len(batch.record) for _ in range(2) for batch in loader]
    assert counts == [3, 3]
    assert len(warned) == 1
    loader = loader_of(tmp_path, batch_size=4, on_error="raise")
    with pytest.raises(MediaError, match=r"broken.mp4: .* 1 of 4 files could not be read"):
        list(loader)


def test_a_batch_without_samples_is_passed_over(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "0.mp4").symlink_to(videos / "0.mp4")
    (tmp_path / "broken.mp4").write_text("not a video")
    with pytest.warns(UserWarning, match=r"broken.mp4"):
        assert [batch.record.tolist() for batch in loader_of(tmp_path, batch_size=1)] == [[0]]


def test_processes_share_a_batch(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = next(iter(loader_of(videos, batch_size=4)))
    monkeypatch.setattr("eztorch_sce.distributed.world_size", lambda: 2)
    rows = []
    for rank in range(2):
        monkeypatch.setattr("eztorch_sce.distributed.rank", lambda rank=rank: rank)
        rows.append(next(iter(loader_of(videos, batch_size=4))).record.tolist())
    assert rows[0] + rows[1] == whole.record.tolist()
    with pytest.raises(ConfigError, match=r"data.batch_size=3 is divided among 2 processes: set a multiple of 2, .* 4"):
        loader_of(videos, batch_size=3)


def test_launched_processes_that_are_not_connected_are_an_error(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"torchrun started 2 processes .*: call torch.distributed.init_process_grou"):
        loader_of(videos)


def test_a_batch_of_more_samples_than_records_is_an_error(videos: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.batch_size=6 is more than the 5 records"):
        loader_of(videos, batch_size=6)
